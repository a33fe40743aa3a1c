#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon that is handed memory it must not touch: it stays, says why to clients and to
# administrators, feeds the watchdog, and ends when it is told to. (Ended by itself it would be
# started again until a manager gives up and drops what it keeps.)
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires pgrep

why='what is stored as "catalogue" is no memfd; all is kept; to drop it: start sparqd without it'
start_daemon # for its configuration file
stop_daemon

# Nobody is served: its exit status says so.
status() { "$build/client/sparqctl" status --control "$scratch/control.sock" "$@"; }

# shellcheck disable=SC2317 # called by eventually
says_it() { [[ $(status 2>/dev/null) == "serving nobody"* ]]; }

# As a manager would: a descriptor from 3 on, and its name. Not /dev/null, which is 3's usual fate.
run_handed() {
	rm -f "$socket"
	bash -c 'exec 3<>/dev/zero; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=catalogue
		exec "$@"' bash "$build/daemon/sparqd" --config "$scratch/sparqd.conf" \
		</dev/null >>"$daemon_log" 2>&1 &
	daemon_pid=$!
	eventually test -S "$socket" || fail "no socket"
	# It may be there before anybody listens on it.
	eventually says_it || fail "no status"
}
run_handed

for _ in 1 2 3; do
	got=0
	probe run >"$scratch/said" 2>&1 || got=$?
	[ "$got" = 1 ] || [ "$got" = 3 ] || fail "a client was served: $(cat "$scratch/said")"
	grep -qF "$why" "$scratch/said" || fail "the client heard: $(cat "$scratch/said")"
done
grep -qF "serving nobody: $why" "$daemon_log" || fail "the log does not say why"
! status >"$scratch/said" || fail "the status is 0 where nobody is served"
grep -qF "serving nobody: $why" "$scratch/said" || fail "the status says: $(cat "$scratch/said")"
status --json >"$scratch/said" || true
grep -q '"refusal": *"what is stored' "$scratch/said" || fail "the status has no member refusal"

# A reload has nothing to apply to, and must not be the end.
kill -HUP "$daemon_pid"
eventually grep -q 'reloaded' "$daemon_log" || fail "no reload"
# Ten at once: none may hang, none may be counted for ever.
for _ in {1..10}; do probe run >/dev/null 2>&1 & clients+=($!); done
for client in "${clients[@]}"; do wait "$client" && fail "a client was served"; done
stop_daemon
[ ! -e "$socket" ] || fail "the socket stayed"
echo "refused, and stopped when told to"

# Without it the same daemon serves.
start_daemon
[ -n "$(sum_of --tokens 20)" ] || fail "no service"
stop_daemon

# ---- memory of another version ------------------------------------------------------

# The keeper's copy, through its descriptor: what a newer daemon would have left.
catalogue() {
	local fd
	for fd in /proc/"$daemon_pid"/fd/*; do
		[[ $(readlink "$fd") != *memfd:sparqd-catalogue* ]] || echo "$fd"
	done
}
# patch OFFSET OCTAL-BYTE, of the header: the layout is at 8.
patch() { printf '%b' "\\0$2" | dd of="$(catalogue)" bs=1 seek="$1" conv=notrunc status=none; }
child() { pgrep -P "$daemon_pid"; }
# refused WORDS: the next daemon says so, to clients and in its status, and keeps what is kept.
refused() {
	local got=0
	kill -KILL "$(child)"
	probe run >"$scratch/said" 2>&1 || got=$?
	[ "$got" = 1 ] || [ "$got" = 3 ] || fail "a client was served: $(cat "$scratch/said")"
	grep -qE "$1" "$scratch/said" || fail "the client heard: $(cat "$scratch/said")"
	status >"$scratch/said" || true
	grep -qE "^serving nobody: .*$1" "$scratch/said" || fail "the status says: $(cat "$scratch/said")"
	[ -n "$(catalogue)" ] || fail "the catalogue is not kept"
	echo "refused: $(head -n 1 "$scratch/said")"
}
daemon_options=(--keeper)
start_daemon
whole=$(sum_of --tokens 400 --from 320)
got=0
probe --name kept --park --tokens 400 --die-at 200 run >/dev/null 2>&1 || got=$?
[ "$got" = 137 ] || fail "the client ended with $got"
patch 8 11
refused 'has layout 9\.1, this sparqd .* reads 4\..*end sparqd --keeper'
patch 8 4
cp -f "$(catalogue)" "$scratch/before"
patch 40 377 # a size: now the checksum does not agree
refused 'all is kept; to drop it: end sparqd --keeper'
dd if="$scratch/before" of="$(catalogue)" bs=1 skip=40 seek=40 count=1 conv=notrunc status=none
kill -USR1 "$daemon_pid" # "the sparqd that left it"
eventually grep -q 'starting the daemon anew; 2 descriptors are kept' "$daemon_log" || fail "no new start"
probe --name kept --park --attach --tokens 400 --from 320 run >"$scratch/rest" ||
	fail "attach: $(cat "$scratch/rest")"
[ "$(awk '/^rows/ { print $4 }' "$scratch/rest")" = "$whole" ] || fail "other results"
stop_daemon
echo "kept through refusals"
