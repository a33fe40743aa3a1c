# SPDX-License-Identifier: Apache-2.0
"""The dashboard: grafana.py DASHBOARD METRICS [RULES]

METRICS is what metrics-sample list prints. Complains, a line each, and exits with 1: what is no
dashboard, a panel that overlaps another, an expression with a metric that is not there or a label
that it does not have. Writes the expressions as recording rules, for promtool, to RULES.
"""
import json
import re
import sys

WORDS = {"sum", "rate", "by", "on", "histogram_quantile", "changes", "increase", "max", "min"}
KEYS = {"uid", "title", "description", "schemaVersion", "time", "templating", "annotations", "panels"}
PANEL_KEYS = {"id", "type", "title", "description", "datasource", "gridPos", "fieldConfig",
              "options", "targets"}
said = []


def metrics_of(path):
    labels = {}
    for line in open(path):
        name, *rest = line.split()
        labels[name] = set(rest)
        if name == "sparq_step_duration_seconds":
            labels[name + "_bucket"] = {"le"}
            labels[name + "_sum"] = labels[name + "_count"] = set()
    return labels


def check_expression(where, expr, metrics):
    names = set(re.findall(r"sparq_\w+", expr))
    for name in names - metrics.keys():
        said.append(f"{where}: there is no metric {name}")
    known = set().union(*(metrics[n] for n in names & metrics.keys())) | {"instance", "job"}
    if not names:
        said.append(f"{where}: an expression without a metric")
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expr) + re.findall(r"(\w+)\s*=~?\s*\"", expr)
    for label in re.findall(r"\w+", " ".join(grouped)):
        if label not in known:
            said.append(f"{where}: no metric of it has the label {label}")
    for word in re.findall(r"\b([a-z_]+)\s*\(", expr):
        if word not in WORDS:
            said.append(f"{where}: {word}() is not known to this check")
    return known


def check_panel(panel, metrics):
    where = f"panel {panel.get('id')} \"{panel.get('title')}\""
    for key in PANEL_KEYS - panel.keys():
        said.append(f"{where}: no {key}")
    for target in panel.get("targets", []):
        known = check_expression(where, target["expr"], metrics)
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            if label not in known:
                said.append(f"{where}: the legend has the label {label}, no metric of it does")
    refs = [t["refId"] for t in panel.get("targets", [])]
    if not refs or len(set(refs)) != len(refs):
        said.append(f"{where}: targets without names of their own")


def check_places(panels):
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > 24 or at["w"] < 1 or at["h"] < 1:
            said.append(f"panel {panel['id']} does not fit into 24 columns")
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in taken and taken[x, y] != panel["id"]:
                    said.append(f"panels {taken[x, y]} and {panel['id']} overlap")
                    return
                taken[x, y] = panel["id"]


def main():
    dashboard = json.load(open(sys.argv[1]))
    metrics = metrics_of(sys.argv[2])
    panels = dashboard.get("panels", [])
    for key in KEYS - dashboard.keys():
        said.append(f"no {key}")
    if len({p["id"] for p in panels}) != len(panels) or len(panels) < 5:
        said.append("panels without ids of their own, or hardly any")
    for panel in panels:
        check_panel(panel, metrics)
    check_places(panels)
    expressions = [t["expr"] for p in panels for t in p["targets"]]
    for note in dashboard["annotations"]["list"]:
        check_expression(f"annotation {note['name']}", note["expr"], metrics)
        expressions.append(note["expr"])
    if len(sys.argv) > 3:
        rules = [{"record": f"x:{i}", "expr": e.replace("$__rate_interval", "1m")}
                 for i, e in enumerate(expressions)]
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, open(sys.argv[3], "w"))
    print("\n".join(said) if said else f"{len(panels)} panels, {len(expressions)} expressions")
    return 1 if said else 0


sys.exit(main())
