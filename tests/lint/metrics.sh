#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The text of sparqctl metrics and sparqd-exporter, as those see it who read it: Prometheus's own
# linter for the plain format, the reference parser for OpenMetrics. And each metric is explained in
# sparq-metrics(7), with its labels, and no other.
#
#   metrics.sh METRICS-SAMPLE SOURCE-DIRECTORY
set -euo pipefail
export LC_ALL=C

usage='usage: metrics.sh METRICS-SAMPLE SOURCE-DIRECTORY'
sample=$(realpath "${1:?$usage}")
source=${2:?$usage}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}

parser() { /usr/bin/python3 - "$1" <<'SCRIPT'
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families

text = open(sys.argv[1]).read()
families = list(text_string_to_metric_families(text))
samples = sum(len(f.samples) for f in families)
print(f"OpenMetrics: {len(families)} families, {samples} samples")
SCRIPT
}

"$sample" list | sort >"$scratch/table"
[ -s "$scratch/table" ] || complain "the table is empty"
sed -n 's/^\.It Li \(sparq_[a-z_]*\)\( Pq Ar\)\{0,1\}\(.*\)/\1\3/p' "$source/man/sparq-metrics.7" | sort >"$scratch/page"
diff "$scratch/table" "$scratch/page" >"$scratch/differs" ||
	complain "metrics.def (<) and sparq-metrics(7) (>): $(cat "$scratch/differs")"

checked=0
"$sample" plain >"$scratch/plain"
"$sample" plain 3 >"$scratch/sequences"
if command -v promtool >/dev/null; then
	for text in plain sequences; do
		promtool check metrics <"$scratch/$text" >"$scratch/said" 2>&1 ||
			complain "promtool check metrics: $(cat "$scratch/said")"
		[ ! -s "$scratch/said" ] || complain "promtool says: $(cat "$scratch/said")"
	done
	# Positive controls: it sees a counter without _total and a line that is none.
	sed 's/^\(# TYPE sparq_clients\) gauge/\1 counter/' "$scratch/plain" |
		promtool check metrics >/dev/null 2>&1 &&
		complain "positive control: promtool takes a counter without _total"
	checked=$((checked + 1))
else
	echo "no promtool (package prometheus): the plain format was not looked at"
fi
"$sample" open 3 >"$scratch/open"
if /usr/bin/python3 -c 'import prometheus_client.openmetrics.parser' 2>/dev/null; then
	parser "$scratch/open" || complain "the OpenMetrics text is not well-formed"
	sed '/^# EOF/d' "$scratch/open" >"$scratch/bad"
	parser "$scratch/bad" >/dev/null 2>&1 && complain "positive control: a text without its end passes"
	sed 's/^# UNIT sparq_read_bytes bytes/# UNIT sparq_read_bytes seconds/' "$scratch/open" >"$scratch/bad"
	parser "$scratch/bad" >/dev/null 2>&1 && complain "positive control: a wrong unit passes"
	checked=$((checked + 1))
else
	echo "no python3-prometheus-client: OpenMetrics was not looked at"
fi
[ "$checked" != 0 ] || exit 77
exit $failed
