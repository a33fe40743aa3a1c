#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon under --keeper: what its clients have survives kills, hangs, a broken
# configuration and upgrades; nobody who connects meanwhile is turned away; and
# every end is the one that sparqd(8) describes.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires pgrep
sparqd=$build/daemon/sparqd

child() { pgrep -P "$daemon_pid"; }
changed() { local now; now=$(child) && [ "$now" != "$1" ]; }
status() { "$build/client/sparqctl" status --all --control "$scratch/control.sock"; }
said() { [ "$(grep -cE "$2" "$daemon_log")" = "$1" ]; } # TIMES PATTERN
# begin NAME: the first part of a run, by a client that dies with it.
begin() {
	local got=0
	probe --name "$1" --park --tokens 400 --die-at 200 run >/dev/null 2>&1 || got=$?
	[ "$got" = 137 ] || fail "the client ended with $got"
}
# rest NAME: its second part, which must give what an undisturbed run gives.
rest() {
	probe --name "$1" --park --attach --tokens 400 --from 320 run >"$scratch/rest" ||
		fail "attach after $1: $(cat "$scratch/rest")"
	[ "$(awk '/^rows/ { print $4 }' "$scratch/rest")" = "$whole" ] || fail "$1: other results"
	echo "ok: $1"
}

daemon_options=(--keeper)
start_daemon keeper_watchdog_s=1
whole=$(sum_of --tokens 400 --from 320)
[ -n "$whole" ] || fail "no sum"
status >"$scratch/said"
grep -qE 'kept by +the keeper' "$scratch/said" || fail "the status says: $(cat "$scratch/said")"
[ "$(stat -c %a "$socket.keep")" = 600 ] || fail "the keeper's socket is open to others"

# ---- killed ---------------------------------------------------------------------------

begin killed
for round in 1 2 3 4 5; do
	before=$(child)
	kill -KILL "$before"
	# At once: the socket takes it, whoever serves it.
	probe burst >"$scratch/said" 2>&1 || fail "round $round: $(cat "$scratch/said")"
	changed "$before" || fail "round $round: no other daemon"
done
said 5 'was ended by signal 9 \(Killed\); 2 descriptors are kept' || fail "not said 5 times"
said 5 'recovered 1 caches, 1 sequences' || fail "not recovered 5 times"
rest killed

begin anew
# A sequence whose cache drops it when its client goes: the end of a daemon is no such thing.
probe --name running --tokens 1000000 --pause-us 2000 run >"$scratch/running" 2>&1 &
eventually grep -qs started "$scratch/running" || fail "no step was done"
before=$(child)
kill -USR1 "$daemon_pid"
eventually changed "$before" || fail "SIGUSR1 started nobody"
eventually said 1 'recovered 3 caches, 3 sequences' || fail "SIGUSR1 dropped something"
grep -qE 'stopping: .* stay with the keeper for the next start' "$daemon_log" || fail "no word of it"
rest anew

# ---- stuck ----------------------------------------------------------------------------

begin stuck
before=$(child)
kill -STOP "$before"
sleep 7 # a second of patience, five for SIGABRT, which a stopped process does not get
changed "$before" || fail "the stuck daemon is still there"
said 1 'made no progress for 1 s' || fail "the watchdog did not say so"
rest stuck

# Idle is not stuck.
before=$(child)
sleep 3
[ "$(child)" = "$before" ] || fail "an idle daemon was killed"

# ---- a configuration that broke meanwhile ---------------------------------------------------

begin broken
cp "$scratch/sparqd.conf" "$scratch/good.conf"
echo 'isa = neon9' >>"$scratch/sparqd.conf"
kill -KILL "$(child)"
eventually grep -q 'isa = neon9: unknown' "$daemon_log" || fail "it starts with a wrong word"
eventually grep -q 'ended with status 1; 2 descriptors are kept' "$daemon_log" || fail "not tried again"
cp "$scratch/good.conf" "$scratch/sparqd.conf"
rest broken

# ---- ends -------------------------------------------------------------------------------------

stop_daemon
grep -q 'the 2 descriptors of its memory are dropped' "$daemon_log" || fail "no word of what is dropped"
for left in "$socket" "$socket.keep" "$scratch/control.sock"; do
	[ ! -e "$left" ] || fail "$left stayed"
done
start_daemon
probe --name killed --park --attach --tokens 400 run >"$scratch/said" 2>&1 && fail "not dropped"
grep -q 'recovered' <(tail -n 3 "$daemon_log") && fail "recovered out of nothing"
echo "ok: ended, and dropped"

# Of the daemon itself: it was told to, so nobody starts it again.
kill -TERM "$(child)"
got=0
wait "$daemon_pid" || got=$?
daemon_pid=
[ "$got" = 0 ] || fail "status $got after SIGTERM of the child"

# The keeper is killed: the daemon has the only copy, serves on, and nobody takes its name.
start_daemon keeper_watchdog_s=1
orphan=$(child)
cleanup_fn kill -KILL "$orphan" "2>/dev/null"
kill_daemon
probe burst >/dev/null || fail "it does not go on without its keeper"
eventually grep -q 'the keeper is gone: KV ends with this daemon' "$daemon_log" || fail "not noticed"
status | grep 'nobody keeps its memory' >/dev/null || fail "the status does not say so"
out=$("$sparqd" --keeper --config "$scratch/sparqd.conf" 2>&1) && fail "a second one started"
[[ $out == *"somebody listens on"* ]] || fail "the second one said: $out"
kill -TERM "$orphan"
eventually sh -c "! kill -0 $orphan 2>/dev/null" || fail "the orphan stays"
grep -qE 'stopping: .* end with this daemon' "$daemon_log" || fail "the orphan did not say what ends"
echo "ok: without its keeper"

# A name in the working directory is one that the child can speak to, too.
(cd "$scratch" && exec "$sparqd" --keeper --config sparqd.conf --socket near.sock) \
	</dev/null >>"$daemon_log" 2>&1 &
daemon_pid=$!
status_kept() { status 2>/dev/null | grep -E 'kept by +the keeper' >/dev/null; }
eventually status_kept || fail "a relative socket: nobody keeps"
[ -S "$scratch/near.sock.keep" ] || fail "no socket of the keeper beside it"
stop_daemon

# ---- what cannot start -----------------------------------------------------------------------

# says TEXT STATUS COMMAND...: the command ends so and says it.
says() {
	local text=$1 expected=$2 got=0 out
	shift 2
	out=$(timeout 10 "$@" 2>&1 </dev/null) || got=$?
	[ "$got" = "$expected" ] || fail "status $got, not $expected: $*: $out"
	[[ $out == *"$text"* ]] || fail "\"$text\" is expected from $*, which said: $out"
}
says 'a whole number from 0 to 64 is expected' 2 "$sparqd" --keeper --workers many
echo 'isa = neon9' >>"$scratch/sparqd.conf"
says 'at its first start: not starting it again' 1 "$sparqd" --keeper --config "$scratch/sparqd.conf"
# shellcheck disable=SC2016
says 'leave --keeper away' 2 bash -c 'exec 3<>/dev/zero
	LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=catalogue exec "$0" --keeper --config "$1"' \
	"$sparqd" "$scratch/good.conf"
long=$(printf 'x%.0s' {1..96})
says 'File name too long' 1 "$sparqd" --keeper --socket "/tmp/sparq-$long" --control "$scratch/c"
echo "ok: what cannot start says why"
