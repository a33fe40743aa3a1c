#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The stats page of a daemon: its figures are those of the completions, by whoever counted them;
# it is given to those who may see it and to nobody else, and none of them can write it; who
# watches is told of another daemon.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

stats() { "$build/tests/system/stats" "$socket" "$@"; }
sum() { stats sums | awk -v what="$1" '$1 == what { print $2 }'; }
status() { "$build/client/sparqctl" status --control "$scratch/control.sock" --json; }
# shellcheck disable=SC2317 # called by eventually
has() { [ "$(sum "$1")" = "$2" ]; }

# Two parts of the pool are one node's all the same.
start_daemon pool_parts=2
stats write || fail "whoever may read the page can write it"

stats order || fail "requests in another order"
# Those have all gone: there is room for as many again.
eventually stats order || fail "watchers that went away still count"

# One client after another: what the first two have read stays in the sums when they are gone.
probe --tokens 300 --policy sparq run >/dev/null
probe --tokens 40 --seed 5 --format hier4 run >/dev/null
probe --tokens 300 --seed 6 --park --name kept run >/dev/null
read_bytes=$(status | sed -n 's/^ *"read_bytes": *\([0-9]*\),*$/\1/p' | head -n 1)
[ "${read_bytes:-0}" -gt 0 ] || fail "the status says that nothing was read"
for who in ops nodes users; do
	[ "$(sum $who)" = "$read_bytes" ] ||
		fail "$who have read $(sum $who) bytes, the completions say $read_bytes"
done
of_nodes=$(stats sums | awk '/^read-/ { n += $2 } END { print n }')
[ "$of_nodes" = "$read_bytes" ] || fail "the nodes that are there have read $of_nodes of $read_bytes bytes"
eventually has sessions 0 || fail "$(sum sessions) sessions: who watches is none"
eventually has parked 1 || fail "$(sum parked) sequences are parked"
[ "$(sum there)" = 1 ] && [ "$(sum counted)" = 1 ] || fail "not one sequence: $(stats sums)"
[ "$(sum rows)" = 300 ] || fail "$(sum rows) rows of the one sequence"
of_one=$(sum sequences)
{ [ "$of_one" -gt 0 ] && [ "$of_one" -lt "$read_bytes" ]; } || fail "$of_one of $read_bytes bytes"

# Where rows lie, as clients are told.
for placement in local:1 heads:2 rows:3; do
	told=$(probe --options "placement=${placement%:*}" placement)
	[ "$told" = "${placement#*:} ${placement#*:}" ] || fail "$placement: cache and sequence say $told"
done

# What a node's memory can do. Where caches are larger than this small pool it says so instead.
if "$build/client/sparqctl" calibrate --control "$scratch/control.sock" >"$scratch/calibrated"; then
	grep -Eq '^ *node .* [0-9.]+ GB/s read by [12] threads, 20' "$scratch/calibrated" ||
		fail "calibrate says: $(cat "$scratch/calibrated")"
	[ "$(sum roofline)" -gt 0 ] || fail "the page has no roofline"
	status | grep '"read_bytes_per_second": *[1-9]' >/dev/null || fail "the status has no roofline"
else
	grep -q 'would be read from the caches' "$scratch/calibrated" ||
		fail "calibrate says: $(cat "$scratch/calibrated")"
	[ "$(sum roofline)" = 0 ] || fail "the page has a roofline that was not measured"
	! status | grep '"read_bytes_per_second"' >/dev/null || fail "the status has one that was not measured"
fi

# Others are told why not. The socket's mode is not what keeps them from it here.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 711 "$scratch"
	chmod 666 "$socket"
	stranger() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
	if stranger "$build/tests/system/stats" "$socket" sums 2>"$scratch/refusal"; then
		fail "a stranger sees the figures of all"
	fi
	grep -q 'uid 65534 may not see the figures of all users' "$scratch/refusal" ||
		fail "the refusal says: $(cat "$scratch/refusal")"
	# A member of the group may, and can change it no more than others.
	if admins=$(getent group sparq-admin | cut -d: -f3) && [ -n "$admins" ]; then
		setpriv --reuid 65534 --regid 65534 --groups "$admins" \
			"$build/tests/system/stats" "$socket" write || fail "a member of sparq-admin"
	else
		echo "no group sparq-admin: its members are not tried"
	fi
else
	echo "not root, or no setpriv: strangers are not tried"
fi

# Who watches is a session to nobody, and hears of another daemon.
coproc watch { stats watch; }
# shellcheck disable=SC2154 # coproc sets it
watcher=$watch_PID
cleanup_fn "kill -KILL $watcher 2>/dev/null"
ask() { echo >&"${watch[1]}"; read -r said generation <&"${watch[0]}"; }
ask
[ "$said" = same ] || fail "the first refresh says $said"
before=$generation
stop_daemon
start_daemon
ask
[ "$said" = new ] || fail "after a restart it says $said"
[ "$generation" != "$before" ] || fail "the generation is still $before"
[ "$(sum ops)" = 0 ] || fail "counters of a new daemon begin at $(sum ops)"
eval "exec ${watch[1]}>&-"
wait "$watcher" || fail "the watcher ended with $?"
stop_daemon

# More sequences than one look takes: what it has not counted yet is not 0.
start_daemon max_sequences=200000 catalogue_bytes=512M
probe --tokens 40 --park --name kept run >/dev/null
first=$(sum parked)
case $first in
1 | 18446744073709551615) ;;
*) fail "$first sequences are parked, before all were looked at" ;;
esac
[ "$(sum counted)" = 1 ] || fail "not one sequence: $(stats sums)"
eventually has parked 1 || fail "$(sum parked) sequences are parked"
stop_daemon
