# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the system tests share. Each sources it and is called with the build directory.
#
#   requires COMMAND...        skips the test (77) if one is missing
#   start_daemon [KEY=VALUE]   a daemon of its own, small and without huge pages; waits until it serves
#                              daemon_options are put before its own, daemon_program is another one
#   kill_daemon, stop_daemon   SIGKILL; SIGTERM, which must end it with status 0
#   probe ARGUMENT...          the well-behaved client; hostile ARGUMENT... the other one
#   sum_of ARGUMENT...         what a run of the probe computed, as one word
#   eventually COMMAND...      true within 20 s, for which a daemon on a busy machine has reasons
#   fail TEXT                  ends the test, with the daemon's last words
#   cleanup_fn COMMAND...      run at the end, last first
set -euo pipefail

build=${1:?usage: $0 BUILD-DIRECTORY}
build=$(cd "$build" && pwd)
export LC_ALL=C.UTF-8
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sparq-test.XXXXXX")
socket=$scratch/sparqd.sock
daemon_log=$scratch/log
daemon_pid=
daemon_options=()
cleanups=()

cleanup_fn() { cleanups+=("$*"); }

# shellcheck disable=SC2317 # called by trap
at_exit() {
	local status=$? i children
	set +e
	for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
		eval "${cleanups[i]}"
	done
	if [ -n "$daemon_pid" ]; then
		# A keeper's child goes on without it.
		mapfile -t children < <(pgrep -P "$daemon_pid" 2>/dev/null)
		kill -KILL "$daemon_pid" "${children[@]}" 2>/dev/null
		wait "$daemon_pid" 2>/dev/null
	fi
	rm -rf "$scratch"
	exit "$status"
}
trap at_exit EXIT

fail() {
	echo "FAILED: $*"
	[ ! -s "$daemon_log" ] || { echo "-- daemon:"; tail -n 40 "$daemon_log"; }
	exit 1
}

requires() {
	local command
	for command in "$@"; do
		command -v "$command" >/dev/null || { echo "no $command: skipped"; exit 77; }
	done
}

eventually() {
	local i
	for ((i = 0; i < 400; i++)); do
		"$@" && return 0
		sleep 0.05
	done
	return 1
}

daemon_alive() { [ -n "$daemon_pid" ] && kill -0 "$daemon_pid" 2>/dev/null; }

# shellcheck disable=SC2317 # called by eventually
serves_or_dead() { ! daemon_alive || { [ -S "$socket" ] && probe burst >/dev/null 2>&1; }; }

start_daemon() {
	local assignment
	# The limits on rates are for people; tests come faster. Later lines win over these.
	local -A keys=(
		[socket]=$socket [control]=$scratch/control.sock [pool_bytes]=128M
		[huge_pages]=no [catalogue_bytes]=16M [workers]=2 [pin_workers]=no
		[user_session_rate]=0
	)
	for assignment in "$@"; do
		keys[${assignment%%=*}]=${assignment#*=}
	done
	for assignment in "${!keys[@]}"; do
		echo "$assignment = ${keys[$assignment]}"
	done >"$scratch/sparqd.conf"
	rm -f "$socket"
	"${daemon_program:-$build/daemon/sparqd}" "${daemon_options[@]}" --config "$scratch/sparqd.conf" </dev/null >>"$daemon_log" 2>&1 &
	daemon_pid=$!
	eventually serves_or_dead || fail "the daemon does not serve"
	daemon_alive || fail "the daemon ended at its start"
}

kill_daemon() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || true
	daemon_pid=
}

stop_daemon() {
	local status=0
	daemon_alive || fail "the daemon is dead"
	kill -TERM "$daemon_pid"
	wait "$daemon_pid" || status=$?
	daemon_pid=
	[ "$status" = 0 ] || fail "the daemon ended with status $status"
}

probe() { "$build/tests/system/probe" --socket "$socket" "$@"; }
hostile() { "$build/tests/system/hostile" "$socket" "$@"; }

sum_of() { probe "$@" run | awk '/^rows/ { print $4 }'; }
