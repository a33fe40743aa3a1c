#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Clients that die with an entry in flight: the others do not notice, and nothing of them stays.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

descriptors() { find "/proc/$daemon_pid/fd" -mindepth 1 | wc -l; }
used() { probe info | awk '/^used/ { print $2 }'; }
# shellcheck disable=SC2317 # called by eventually
all_given_back() { [ "$(used)" = "$before_used" ] && [ "$(descriptors)" = "$before_fds" ]; }

start_daemon
alone=$(sum_of --seed 7 --tokens 2000)
eventually test "$(used)" = 0 || true
before_used=$(used)
before_fds=$(descriptors)

sum_of --seed 7 --tokens 2000 >"$scratch/sum" &
witness=$!
deaths=0
while kill -0 "$witness" 2>/dev/null || [ "$deaths" -lt 20 ]; do
	# In a step, at the first token and later, and with rows that were flushed.
	for token in 0 3 200; do
		status=0
		probe --seed "$deaths" --die-at "$token" run >/dev/null 2>&1 || status=$?
		[ "$status" = 137 ] || fail "a client that kills itself ended with $status"
		deaths=$((deaths + 1))
	done
done
wait "$witness" || fail "the witness failed"
[ "$(cat "$scratch/sum")" = "$alone" ] || fail "the witness got other results"
eventually all_given_back ||
	fail "used $before_used -> $(used) bytes, $before_fds -> $(descriptors) descriptors"
echo "$deaths clients died; all of theirs was given back"
stop_daemon
