#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon dies before and after it has evicted, three times each: the next one finds each sequence
# whole or not at all, what was pinned still there and pinned, and charges that add up.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq
export SPARQ_CONTROL=$scratch/control.sock SPARQD_POINT_FILE=$scratch/arrivals

evict() { "$build/tests/system/evict" "$socket" "$@" >"$scratch/out" 2>&1; }
status() { "$build/client/sparqctl" status --json | jq -e "$1"; }
killed() { [ "$(grep -c 'was ended by signal 9' "$daemon_log")" -ge "$1" ]; }

daemon_program=$build/tests/crash/sparqd-points daemon_options=(--keeper) deaths=0
for point in evict_chosen evict_dropped; do
	rm -f "$scratch/arrivals"
	truncate -s 4096 "$scratch/arrivals"
	export SPARQD_POINT=$point:1,$point:2,$point:3
	start_daemon reattach_s=1
	for n in 1 2 3; do
		evict load || true # a death between two calls is none to the client
		deaths=$((deaths + 1))
		eventually killed "$deaths" || fail "$point: no death in round $n: $(cat "$scratch/out")"
		eventually evict check 3 || fail "$point, death $n: $(cat "$scratch/out")"
	done
	evict load || fail "$point, afterwards: $(cat "$scratch/out")"
	evict check 0 || fail "$point, in the end: $(cat "$scratch/out")"
	[ "$(status '.caches | map(.bytes) | add')" = "$(status '.users | map(.charged_bytes) | add')" ] ||
		fail "$point: charges do not add up: $(status .)"
	echo "ok: $point"
	stop_daemon
done
