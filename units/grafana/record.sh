#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Records what the dashboard shows of a real run, for the picture of it: a daemon, two users at work,
# the exporter, and a Prometheus that scrapes it and evaluates the dashboard's own expressions.
#
#   units/grafana/record.sh BUILD-DIRECTORY [SECONDS] >units/grafana/recorded.json
#   units/grafana/draw.py >units/grafana/sparqd.svg
#
# As root, for there are two users. Needs prometheus, python3, setpriv.
set -euo pipefail

build=$(cd "${1:?usage: record.sh BUILD-DIRECTORY [SECONDS]}" && pwd)
seconds=${2:-150}
here=$(cd "$(dirname "$0")" && pwd)
model=$here/../../client/examples/model
directory=$(mktemp -d) pids=()
chmod 755 "$directory"

# shellcheck disable=SC2317 # called by trap
cleanup() {
	kill "${pids[@]}" 2>/dev/null || true
	wait || true
	rm -rf "$directory"
}
trap cleanup EXIT
session=$directory/session

"$build/daemon/sparqd" --set huge_pages=no --pool 192M --set catalogue_bytes=16M --set workers=2 \
	--set pin_workers=no --set user_session_rate=0 --socket "$session" \
	--control "$directory/control" >"$directory/log" 2>&1 &
pids+=($!)
until grep -q ' ready: ' "$directory/log"; do sleep 0.1; done
chmod 666 "$session"
"$build/client/sparqd-exporter" --listen 127.0.0.1:19841 --socket "$session" &
pids+=($!)
cat >"$directory/prometheus.yml" <<END
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: sparqd
    static_configs: [ { targets: ['127.0.0.1:19841'] } ]
END
prometheus --config.file="$directory/prometheus.yml" --storage.tsdb.path="$directory/data" \
	--web.listen-address=127.0.0.1:19842 --log.level=error >&2 &
pids+=($!)

# User 0 writes text by a language model, dense and with SparQ, and asks for more than there is.
generate() {
	while sleep 1; do
		"$build/client/examples/sparq-generate" --socket "$session" --model "$model" \
			--prompt "$model/prompt.txt" --held-out "$model/text-c.txt" --compare --short
		timeout 4 "$build/tests/system/probe" --socket "$session" --seed 3 fill || true
	done >/dev/null 2>&1
}
# User 65534 decodes with a longer context, now and then.
decode() {
	cp "$build/tests/system/probe" "$directory/probe" && chmod 755 "$directory/probe"
	while sleep 8; do
		LD_LIBRARY_PATH=$build/client setpriv --reuid 65534 --regid 65534 --clear-groups \
			"$directory/probe" --socket "$session" --policy sparq --format hier4 --layers 4 \
			--tokens 12000 run
	done >/dev/null 2>&1
}
generate &
pids+=($!)
decode &
pids+=($!)
sleep $((seconds / 3))
"$build/client/sparqctl" calibrate --control "$directory/control" >&2
sleep $((seconds - seconds / 3))

/usr/bin/python3 - "$here/sparqd.json" "$seconds" <<'SCRIPT'
import json, sys, time, urllib.parse, urllib.request

dashboard, seconds = json.load(open(sys.argv[1])), int(sys.argv[2])
end = time.time()

def ask(expr):
	expr = expr.replace("$__rate_interval", "5s")
	query = urllib.parse.urlencode({"query": expr, "start": end - seconds, "end": end, "step": 1})
	answer = urllib.request.urlopen(f"http://127.0.0.1:19842/api/v1/query_range?{query}")
	series = json.load(answer)["data"]["result"]
	# Second from the beginning, figure with four digits: it is for a picture.
	return [{"labels": {k: v for k, v in s["metric"].items() if k not in ("instance", "job", "__name__")},
	     "points": [[round(t - end + seconds), float(f"{float(v):.4g}")] for t, v in s["values"]
			if v not in ("NaN", "+Inf")]} for s in series]

recorded = {"seconds": seconds,
	     "panels": {str(p["id"]): [ask(t["expr"]) for t in p["targets"]] for p in dashboard["panels"]}}
print(json.dumps(recorded, separators=(",", ":")))
SCRIPT
