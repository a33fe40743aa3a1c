#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a picture: its panels, where they are, over recorded.json.

    units/grafana/draw.py >units/grafana/sparqd.svg

Nothing but the standard library, and the same bytes for the same input: tests/lint/grafana.sh
compares. What Grafana draws differs in its colours and its type, not in its figures.
"""
import html
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMN, ROW, GAP = 40, 26, 6
COLOURS = ["#3b7dd8", "#d9822b", "#3a9a4b", "#b5467d", "#7a5bc7", "#8a8f98", "#c9a400", "#2aa5a0"]
TEXT, QUIET, LINE, PAPER = "#24292f", "#6e7781", "#d8dee4", "#ffffff"


def scaled(value, steps, names):
    size = 0
    while abs(value) >= steps and size + 1 < len(names):
        value, size = value / steps, size + 1
    return f"{value:.3g} {names[size]}".strip()


def figure(value, unit):
    if unit == "Bps":
        return scaled(value, 1000, ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
    if unit == "bytes":
        return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"])
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return scaled(value * 1e6, 1000, ["µs", "ms", "s"])
    if unit == "ops":
        return scaled(value, 1000, ["/s", "k/s", "M/s"])
    return scaled(value, 1000, ["", "k", "M", "G"])


def series_of(panel, recorded):
    """(legend, points) of each series, as the legend's format says."""
    for target, found in zip(panel["targets"], recorded["panels"][str(panel["id"])]):
        for series in sorted(found, key=lambda s: sorted(s["labels"].items())):
            label = lambda m: series["labels"].get(m.group(1), "")
            yield re.sub(r"\{\{(\w+)\}\}", label, target["legendFormat"]), dict(series["points"])


class Picture:
    def __init__(self):
        self.lines = []

    def add(self, line):
        self.lines.append(line)

    def text(self, x, y, text, size=11, colour=TEXT, anchor="start", weight="normal"):
        self.add(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" '
                 f'text-anchor="{anchor}" font-weight="{weight}">{html.escape(text)}</text>')

    def box(self, x, y, w, h):
        self.add(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" '
                 f'fill="{PAPER}" stroke="{LINE}"/>')

    def path(self, points, colour, closed=False):
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        style = f'fill="{colour}" fill-opacity="0.35"' if closed else f'fill="none" stroke="{colour}"'
        self.add(f'<path d="{d}{"Z" if closed else ""}" {style}/>')


def draw_stat(p, panel, series, x, y, w, h):
    defaults = panel["fieldConfig"]["defaults"]
    value = series[0][1][max(series[0][1])] if series and series[0][1] else None
    colour = TEXT
    for step in defaults.get("thresholds", {}).get("steps", []):
        if value is not None and (step["value"] is None or value >= step["value"]):
            colour = {"red": "#cf222e", "green": "#1a7f37"}[step["color"]]
    text = "no data" if value is None else figure(value, defaults["unit"])
    p.text(x + w / 2, y + h / 2 + 18, text, 24, colour, "middle", "bold")


def draw_legend(p, series, x, y, w):
    at = x
    for i, (name, _) in enumerate(series):
        width = 14 + 6.2 * len(name)
        if at + width > x + w:
            p.text(at, y, "…", 10, QUIET)
            break
        p.add(f'<rect x="{at:g}" y="{y - 7:g}" width="8" height="8" fill="{COLOURS[i % 8]}"/>')
        p.text(at + 11, y, name, 10, QUIET)
        at += width + 6


def stacked(series):
    """Each on top of those before it."""
    below = {}
    for name, points in series:
        top = {t: v + below.get(t, 0) for t, v in points.items()}
        yield name, top, {t: below.get(t, 0) for t in points}
        below.update(top)


def unbroken(line):
    """Where nothing was known there is no line."""
    part, last = [], None
    for t, at in line:
        if last is not None and t - last > 2:
            yield part
            part = []
        part, last = part + [at], t
    if part:
        yield part


def draw_series(p, panel, series, seconds, x, y, w, h):
    defaults = panel["fieldConfig"]["defaults"]
    is_stack = defaults["custom"]["stacking"]["mode"] == "normal"
    layers = list(stacked(series)) if is_stack else [(n, v, None) for n, v in series]
    top = max((v for _, points, _ in layers for v in points.values()), default=0)
    top = max(top * 1.08, defaults.get("max", 0) if top * 4 > defaults.get("max", 0) else 0) or 1
    left, plot, bottom = x + 58, w - 74, y + h - 40
    height = bottom - (y + 30)
    for i in range(4):
        at = bottom - height * i / 3
        p.add(f'<path d="M{left:g} {at:.1f}h{plot:g}" stroke="{LINE}"/>')
        p.text(left - 5, at + 3, figure(top * i / 3, defaults["unit"]), 9, QUIET, "end")
    for second in range(0, seconds + 1, 30 if plot > 200 else 75):
        p.text(left + plot * second / seconds, bottom + 13, f"{second} s", 9, QUIET, "middle")
    if not layers:
        p.text(left + plot / 2, bottom - height / 2, "no data", 12, QUIET, "middle")
    place = lambda t, v: (left + plot * t / seconds, bottom - height * min(v / top, 1))
    for i, (_, points, below) in enumerate(layers):
        line = [(t, place(t, v)) for t, v in sorted(points.items())]
        if below is not None and line:
            back = [place(t, v) for t, v in sorted(below.items(), reverse=True)]
            p.path([at for _, at in line] + back, COLOURS[i % 8], closed=True)
        for part in unbroken(line):
            p.path(part, COLOURS[i % 8])
    draw_legend(p, [(n, v) for n, v, _ in layers], left, y + h - 8, plot)


def draw(dashboard, recorded):
    p = Picture()
    bottom = max(q["gridPos"]["y"] + q["gridPos"]["h"] for q in dashboard["panels"])
    width, height = 24 * COLUMN + GAP, bottom * ROW + GAP
    p.add(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
          f'font-family="sans-serif">')
    p.add("<!-- SPDX-License-Identifier: Apache-2.0; made by units/grafana/draw.py -->")
    p.add(f'<rect width="{width}" height="{height}" fill="#f6f8fa"/>')
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y = at["x"] * COLUMN + GAP, at["y"] * ROW + GAP
        w, h = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        p.box(x, y, w, h)
        p.text(x + 8, y + 17, panel["title"], 12, weight="bold")
        series = list(series_of(panel, recorded))
        if panel["type"] == "stat":
            draw_stat(p, panel, series, x, y, w, h)
        else:
            draw_series(p, panel, series, recorded["seconds"], x, y, w, h)
    p.add("</svg>")
    return "\n".join(p.lines) + "\n"


if __name__ == "__main__":
    with open(f"{HERE}/sparqd.json") as d, open(f"{HERE}/recorded.json") as r:
        sys.stdout.write(draw(json.load(d), json.load(r)))
