# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests in virtual machines share, inside of them: each sources it as /build/inside.sh.
#
#   configure KEY=VALUE...  of a small daemon, on the sockets of this test
#   start [COMMAND...]  one that is so configured, by that command; waits until it is ready, is false
#                       if it ended instead
#   stop                ends it, which it must with status 0
#   fail TEXT           ends the test, with the daemon's last words
#   eventually COMMAND...   true within a minute: processors are emulated
#   logged REGEX        whether the daemon's log has it
#
# $scratch is its directory; $socket, $control, $log and $pid are the daemon's.
set -euo pipefail
export LC_ALL=C.UTF-8 LD_LIBRARY_PATH=/build/lib PATH=/build:$PATH
scratch=$(mktemp -d)
socket=$scratch/sock control=$scratch/control log=$scratch/log pid=

# shellcheck disable=SC2317 # called by trap
at_exit() {
	[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
	rm -rf "$scratch"
}
trap at_exit EXIT

fail() {
	echo "FAILED: $*"
	tail -n 40 "$log" 2>/dev/null
	exit 1
}

eventually() {
	local i
	for ((i = 0; i < 600; i++)); do
		"$@" && return 0
		sleep 0.1
	done
	return 1
}

logged() { grep -qE "$1" "$log"; }
ended() { ! kill -0 "$pid" 2>/dev/null; }
# shellcheck disable=SC2317 # called by eventually
ready_or_ended() { logged ' ready: ' 2>/dev/null || ended; }

configure() {
	printf '%s\n' "socket=$socket" "control=$control" catalogue_bytes=16M user_session_rate=0 \
		"$@" | sed 's/=/ = /' >"$scratch/conf"
}

start() {
	rm -f "$log"
	"$@" sparqd --config "$scratch/conf" </dev/null >"$log" 2>&1 &
	pid=$!
	eventually ready_or_ended || fail "neither ready nor ended"
	! ended
}

stop() {
	kill -TERM "$pid"
	wait "$pid" || fail "the daemon ended with $?"
	pid=
}
