#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Threads on one connection go on through their daemon's deaths and restarts, and compute what they
# would have computed undisturbed: an engine has many, and none of them may know of the others.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires pgrep

# shellcheck disable=SC2034 # start_daemon takes it
daemon_options=(--keeper)
start_daemon
# shellcheck disable=SC2317 # called by eventually
changed() { local now; now=$(pgrep -P "$daemon_pid") && [ "$now" != "$before" ]; }
survive() { "$build/tests/system/survive" "$socket" "${THREADS:-4}" "${TOKENS:-1500}" "$@"; }

for format in hier4 f16; do
	survive "$format" >"$scratch/whole" || fail "$format: $(cat "$scratch/whole")"
	survive "$format" >"$scratch/struck" 2>"$scratch/said" &
	client=$!
	eventually grep -qs begun "$scratch/struck" || fail "$format: not at work: $(cat "$scratch/struck")"
	kills=0
	while kill -0 "$client" 2>/dev/null && [ "$kills" -lt "${KILLS:-6}" ]; do
		# One that nobody has come back to yet would be no news to the client.
		eventually probe burst >/dev/null || fail "no daemon after $kills kills"
		sleep "0.$((RANDOM % 3))"
		# By turns: a crash, and a restart as for an upgrade.
		before=$(pgrep -P "$daemon_pid")
		if ((kills % 2)); then kill -USR1 "$daemon_pid"; else kill -KILL "$before"; fi
		eventually changed || fail "the daemon is still the same after kill $kills"
		kills=$((kills + 1))
	done
	wait "$client" || fail "$format, after $kills kills: $(tail -n 3 "$scratch/struck")"
	[[ $(cat "$scratch/said") =~ ^[1-9] ]] || fail "$format: never struck"
	diff "$scratch/whole" "$scratch/struck" || fail "$format: other results after $kills kills"
	echo "$format: $kills kills, $(cat "$scratch/said"): the same results"
	eventually probe burst >/dev/null || fail "no daemon after the last kill"
done
stop_daemon
