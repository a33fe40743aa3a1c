#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon dies in a step: a client hears of it at once, whether it spins, sleeps or is idle.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

limit_ms=2000
now_ms() { date +%s%3N; }

for round in 1 2 3; do
	start_daemon
	# Always in a step; then one that pauses between steps.
	probe --tokens 1000000 run >"$scratch/busy" 2>&1 &
	busy=$!
	probe --tokens 1000000 --pause-us 20000 run >"$scratch/paused" 2>&1 &
	paused=$!
	eventually grep -q started "$scratch/busy" || fail "no step was done"
	eventually grep -q started "$scratch/paused" || fail "no step was done"

	start=$(now_ms)
	kill_daemon
	for client in "$busy" "$paused"; do
		status=0
		wait "$client" || status=$?
		[ "$status" = 3 ] ||
			fail "a client ended with $status: $(cat "$scratch/busy" "$scratch/paused")"
	done
	took=$(($(now_ms) - start))
	[ "$took" -lt "$limit_ms" ] || fail "the clients heard of it after $took ms"
	echo "round $round: both clients ended after $took ms: $(tail -n 1 "$scratch/busy")"
done

# Without a daemon an open fails at once, in words.
rm -f "$socket"
status=0
timeout 5 "$build/tests/system/probe" --socket "$socket" run >"$scratch/none" 2>&1 || status=$?
[ "$status" = 1 ] || [ "$status" = 3 ] || fail "an open without a daemon: status $status"
grep -q '^open: ' "$scratch/none" || fail "no word about it"
