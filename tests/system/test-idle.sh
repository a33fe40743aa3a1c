#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon that nobody uses costs nothing; one whose clients sleep, next to
# nothing. The most frequent complaint about services that poll.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
[ -r /proc/self/schedstat ] || { echo "no schedstat: skipped"; exit 77; }

# Nanoseconds of CPU of all its threads.
cpu_ns() { cat "/proc/$daemon_pid"/task/*/schedstat | awk '{ n += $1 } END { print n }'; }

# at_most MICROSECONDS WHAT: of CPU in two seconds.
at_most() {
	local before us
	before=$(cpu_ns)
	sleep 2
	us=$((($(cpu_ns) - before) / 1000))
	echo "$2: $us us of CPU in 2 s"
	[ "$us" -le "$1" ] || fail "$2: $us us of CPU in 2 s, more than $1"
}

start_daemon
sleep 0.3
at_most 3000 "nobody connected"

# A client between two tokens: its heartbeat is all that goes on.
"$build/tests/system/probe" --socket "$socket" --tokens 1000 --pause-us 700000 run >/dev/null 2>&1 &
client=$!
cleanup_fn "kill -KILL $client 2>/dev/null"
sleep 0.5
at_most 60000 "a client that sleeps"

kill -KILL $client
wait $client 2>/dev/null || true
sleep 1.5 # its teardown
at_most 3000 "nobody any more"
stop_daemon
