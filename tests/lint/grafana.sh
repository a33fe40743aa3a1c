#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The dashboard is one, shows only metrics that there are, in PromQL that Prometheus takes; and its
# picture is what draw.py makes of the dashboard and the recording.
#
#   grafana.sh SOURCE-DIRECTORY METRICS-SAMPLE
set -euo pipefail
export LC_ALL=C.UTF-8

usage='usage: grafana.sh SOURCE-DIRECTORY METRICS-SAMPLE'
source=${1:?$usage} sample=$(realpath "${2:?$usage}")
dashboard=$source/units/grafana/sparqd.json
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}
check() { /usr/bin/python3 "$source/tests/lint/grafana.py" "$@"; }
# refused SED-SCRIPT: the dashboard, changed so, must not pass.
refused() {
	sed "$1" "$dashboard" >"$scratch/bad.json"
	! cmp -s "$dashboard" "$scratch/bad.json" || complain "positive control: $1 changes nothing"
	! check "$scratch/bad.json" "$scratch/metrics" >/dev/null 2>&1 ||
		complain "positive control: passes although $1"
}

"$sample" list >"$scratch/metrics"
check "$dashboard" "$scratch/metrics" "$scratch/rules.yml" || failed=1
refused 's/sparq_queue_depth\|sparq_clients/sparq_customers/'
refused 's/sum by (plane)/sum by (plain)/'
refused 's/{{plane}}/{{plain}}/'
refused 's/"id": 2,/"id": 1,/'
refused '0,/"x": 4,/s/"x": 4,/"x": 3,/'
refused '0,/"title": "Clients",/s/"title": "Clients",//'
if command -v promtool >/dev/null; then
	promtool check rules "$scratch/rules.yml" >"$scratch/said" 2>&1 || complain "$(cat "$scratch/said")"
	sed 's/rate(/rate((/' "$scratch/rules.yml" >"$scratch/bad.yml"
	! promtool check rules "$scratch/bad.yml" >/dev/null 2>&1 ||
		complain "positive control: promtool takes a wrong expression"
else
	echo "no promtool (package prometheus): the expressions were not parsed"
fi

/usr/bin/python3 "$source/units/grafana/draw.py" >"$scratch/picture"
cmp "$scratch/picture" "$source/units/grafana/sparqd.svg" ||
	complain "sparqd.svg is not what draw.py makes: units/grafana/draw.py >units/grafana/sparqd.svg"
large=$(find "$source/units/grafana" -type f -size +200k)
[ -z "$large" ] || complain "too large: $large"
exit $failed
