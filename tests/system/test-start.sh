#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Start and end: what a wrong command line or file says, who has the sockets,
# what is left behind, what a reload may change.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
sparqd=$build/daemon/sparqd

# says TEXT STATUS COMMAND...: the command ends so and its last line has the text.
says() {
	local text=$1 status=$2 got=0 out
	shift 2
	out=$("$@" 2>&1 </dev/null) || got=$?
	[ "$got" = "$status" ] || fail "status $got, not $status: $*: $out"
	[[ $out == *"$text"* ]] || fail "\"$text\" is expected from $*, which said: $out"
}

# ---- what is wrong is said, before anything is taken ------------------------------

says 'unrecognized option' 2 "$sparqd" --no-such-option
says 'options are all it takes' 2 "$sparqd" something
says 'workers = "many": a whole number from 0 to 64 is expected' 2 "$sparqd" --workers many
says '"worker" is not a key of sparqd.conf(5)' 2 "$sparqd" --set worker=1
says 'isa = neon9: unknown; it can be scalar' 1 "$sparqd" --isa neon9 --socket "$socket" --control "$scratch/c"
says "No such file or directory" 1 "$sparqd" --config "$scratch/none" --check-config
printf 'workers = 1\n\nhuge_pages = perhaps\n' >"$scratch/bad.conf"
says "bad.conf:3: huge_pages = \"perhaps\": yes, no, 2M or 1G is expected" 1 \
	"$sparqd" --config "$scratch/bad.conf" --check-config
says 'cannot listen on' 1 "$sparqd" --socket "$scratch/no/such/directory"
says 'sparqd ' 0 "$sparqd" --version
[ "$("$sparqd" --help)" = "$("$sparqd" -h)" ] || fail "--help and -h differ"
"$sparqd" --help | awk 'length > 80 { exit 1 }' || fail "--help is wider than 80 columns"
[ ! -e "$socket" ] || fail "a daemon that did not start left its socket"

# A dump is a file that says the same.
"$sparqd" --set workers=3 --set user_bytes=5G --dump-config >"$scratch/dump.conf"
"$sparqd" --config "$scratch/dump.conf" --dump-config | diff "$scratch/dump.conf" - ||
	fail "a dump read again differs"

# ---- one daemon to a socket ---------------------------------------------------------

start_daemon
says 'somebody listens on' 1 "$sparqd" --config "$scratch/sparqd.conf"
probe run >/dev/null || fail "the first daemon was disturbed by the second"

# The name that a killed daemon leaves is taken over.
kill_daemon
[ -S "$socket" ] || fail "the kill removed the socket: this tests nothing"
# run_daemon [COMMAND...]: with the same file, under a command.
run_daemon() {
	"$@" "$sparqd" --config "$scratch/sparqd.conf" </dev/null >>"$daemon_log" 2>&1 &
	daemon_pid=$!
	eventually serves_or_dead && daemon_alive
}
run_daemon || fail "it does not start over a stale socket"

# ---- reload -------------------------------------------------------------------------

reload() {
	local before
	before=$(grep -c "$1" "$daemon_log" || true)
	kill -HUP "$daemon_pid"
	# shellcheck disable=SC2317 # called by eventually
	logged() { [ "$(grep -c "$1" "$daemon_log" || true)" -gt "$2" ]; }
	eventually logged "$1" "$before" || fail "no line \"$1\" after a reload"
}

# sessions N: so many, before long. A session ends a little after its client.
has_sessions() {
	"$build/client/sparqctl" status --control "$scratch/control.sock" --json |
		grep "\"sessions\": *$1," >/dev/null
}
sessions() { eventually has_sessions "$1" || fail "there are not $1 sessions"; }

echo 'user_sessions = 1' >>"$scratch/sparqd.conf"
reload 'reloaded'
sessions 0
probe run >/dev/null || fail "one session is allowed"
sessions 0
"$build/tests/system/probe" --socket "$socket" --tokens 100000 run >"$scratch/first" 2>&1 &
first=$!
cleanup_fn "kill -KILL $first 2>/dev/null"
sessions 1
probe info >"$scratch/second" 2>&1 && fail "a second session in spite of user_sessions = 1"
grep -q 'user_sessions = 1' "$scratch/second" || fail "no reason: $(cat "$scratch/second")"
kill -KILL $first
sed -i 's/^pool_bytes.*/pool_bytes = 64M/' "$scratch/sparqd.conf"
reload 'pool_bytes runs as .* needs a restart'

# ---- the end ------------------------------------------------------------------------

# With a client in the middle of its work: it is told, and the daemon ends.
sessions 0
"$build/tests/system/probe" --socket "$socket" --tokens 1000000 run >"$scratch/last" 2>&1 &
last=$!
cleanup_fn "kill -KILL $last 2>/dev/null"
sessions 1
stop_daemon
status=0
wait $last || status=$?
[ "$status" = 3 ] || fail "the client ended with $status when the daemon stopped: $(tail -n 3 "$scratch/last")"
if [ -e "$socket" ] || [ -e "$scratch/control.sock" ]; then fail "the sockets are left behind"; fi
tail -n 1 "$daemon_log" | grep stopped >/dev/null || fail "it does not say that it stopped"

# ---- other ways to start --------------------------------------------------------------

# One session at a time would make each probe wait for the end of the one before.
sed -i '/^user_sessions/d' "$scratch/sparqd.conf"

# Where io_uring is forbidden, as in containers: epoll, said once, and all else the same.
if strace -f -qq -o /dev/null -e inject=io_uring_setup:error=EPERM true 2>/dev/null; then
	run_daemon strace -f -qq -o /dev/null -e inject=io_uring_setup:error=EPERM \
		-e trace=io_uring_setup -E ASAN_OPTIONS=detect_leaks=0 || # not under ptrace
		fail "it does not start without io_uring"
	[ "$(grep -c 'io_uring is not available' "$daemon_log")" = 1 ] || fail "it does not say so"
	probe run >/dev/null || fail "it does not serve without io_uring"
	"$build/client/sparqctl" status --all --control "$scratch/control.sock" | grep epoll >/dev/null ||
		fail "status does not say epoll"
	strace_pid=$daemon_pid
	daemon_pid=$(pgrep -P "$strace_pid" sparqd)
	kill -TERM "$daemon_pid"
	wait "$strace_pid" || fail "it did not end well without io_uring"
	daemon_pid=
fi

# Sockets passed in: not made, and not removed.
if command -v systemd-socket-activate >/dev/null; then
	systemd-socket-activate --seqpacket -l "$socket" "$sparqd" --config "$scratch/sparqd.conf" \
		</dev/null >>"$daemon_log" 2>&1 &
	daemon_pid=$!
	eventually serves_or_dead || fail "it does not serve a socket passed in"
	daemon_alive || fail "it ended with a socket passed in"
	probe run >/dev/null || fail "it does not serve a socket passed in"
	stop_daemon
	[ -S "$socket" ] || fail "it removed a socket that was not its own"
fi
