#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon and its clients on a machine with several NUMA nodes: run inside of it
# by numa-guest.sh, with what it needs beside it.
#
#   numa-inside.sh NODES
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
nodes=${1:?usage: numa-inside.sh NODES}
scratch=$(mktemp -d)
log=$scratch/log
daemon=

# shellcheck disable=SC2317 # called by trap
at_exit() {
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null || true
	rm -rf "$scratch"
}
trap at_exit EXIT
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"' ERR

fail() {
	echo "FAILED: $*"
	echo "-- daemon:"
	tail -n 40 "$log"
	exit 1
}

probe() { "$here/probe" --socket "$scratch/sparqd.sock" "$@"; }
ctl() { "$here/sparqctl" "$@" --control "$scratch/control.sock"; }

# start KEY=VALUE...
start() {
	local assignment i
	{
		printf '%s\n' "socket = $scratch/sparqd.sock" "control = $scratch/control.sock" \
			"pool_bytes = $((32 * nodes))M" 'catalogue_bytes = 16M' 'user_session_rate = 0'
		for assignment in "$@"; do
			echo "${assignment%%=*} = ${assignment#*=}"
		done
	} >"$scratch/sparqd.conf"
	"$here/sparqd" --config "$scratch/sparqd.conf" </dev/null >>"$log" 2>&1 &
	daemon=$!
	for ((i = 0; i < 600; i++)); do
		[ -S "$scratch/sparqd.sock" ] && probe burst >/dev/null 2>&1 && return 0
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	fail "the daemon does not serve"
}

stop() {
	kill -TERM "$daemon"
	wait "$daemon" || fail "the daemon ended with status $?"
	daemon=
}

# figure MEMBER: of all nodes, one a line, as sparqctl numa --json has them, misplaced pages or not.
figure() { { ctl numa --json || true; } | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p"; }
sum() { awk '{ n += $1 } END { print n + 0 }'; }
sum_of() { probe "$@" run | awk '/^rows/ { print $4 }'; }

# Pages of the pool, as the kernel says through two of its doors: node after node, all of a mapping
# on one, the mappings in the order of the nodes.
all_at_home() {
	local node=0 line mapped
	mapped=$("$here/pages" where "$daemon" memfd:sparqd-pool)
	[ "$(wc -l <<<"$mapped")" = "$nodes" ] || fail "mappings of the pool: $mapped"
	# Each has its own node and no other.
	[ "$(sort -u <<<"$mapped" | awk 'NF == 2 { print $1 }' | sort -n | xargs)" = \
		"$(seq 0 $((nodes - 1)) | xargs)" ] || return 1
	for ((node = 0; node < nodes; node++)); do
		line=$(grep "memfd:sparqd-pool" "/proc/$daemon/numa_maps" | grep "bind:$node ") ||
			fail "no pool is bound to node $node"
		[ "$(grep -o 'N[0-9]*=' <<<"$line")" = "N$node=" ] || return 1
	done
}

# The same client, with any number of workers: what it computes is the same, bit for bit.
expected=
for workers in 1 2 "$nodes"; do
	start "workers=$workers"
	all_at_home || fail "pages are not where they were put"
	[ "$(figure node | xargs)" = "$(seq 0 $((nodes - 1)) | xargs)" ] || fail "the nodes: $(ctl numa)"
	[ "$(figure workers | sum)" = "$workers" ] || fail "the workers: $(ctl numa)"
	for seed in 1 2; do
		got+=$(sum_of --seed $seed --tokens 300)
	done
	expected=${expected:-$got}
	[ "$got" = "$expected" ] || fail "$workers workers: $got, not $expected"
	got=
	echo "$workers workers: shares near $(figure shares_near | xargs), far $(figure shares_far | xargs)"
	stop
done

echo "sums: $expected"

# Every node has its worker now, and clients that keep all of them busy.
start "workers=$nodes"
for ((i = 0; i < nodes; i++)); do
	probe --seed $i --tokens 250 run >/dev/null &
	clients+=($!)
done
for client in "${clients[@]}"; do
	wait "$client" || fail "a client failed"
done
near=$(figure shares_near | sum) far=$(figure shares_far | sum)
echo "busy: near $near, far $far"
[ "$near" -gt 0 ] || fail "nothing was near"
ctl numa

# Somebody moves its pages: found when it is asked for, said once, brought back, and nothing is lost.
probe --seed 9 --tokens 200 --name kept --park run >/dev/null
"$here/pages" migrate "$daemon" 0 1
if all_at_home; then fail "nothing was moved"; fi
if ctl numa --verify >"$scratch/numa"; then fail "misplaced pages are not reported: $(cat "$scratch/numa")"; fi
moved=$(figure misplaced_pages | sum)
[ "$moved" -gt 0 ] || fail "no misplaced page: $(cat "$scratch/numa")"
[ "$(figure misplaced_pages | head -n 1)" = "$moved" ] || fail "not those of node 0: $(cat "$scratch/numa")"
ctl numa --verify >/dev/null || true
[ "$(grep -c 'are not on their NUMA node' "$log")" = 1 ] || fail "not said once"
ctl status --json | grep -q "\"misplaced_pages\":$moved" || fail "the status: $(ctl status --json)"
tail -n 1 "$scratch/numa"
ctl numa --repair || fail "not brought back"
all_at_home || fail "brought back, it says, and is not"
grep -q 'on their NUMA nodes again' "$log" || fail "not said"
whole=$(sum_of --seed 9 --tokens 300 --from 200 --name whole --park)
[ "$(sum_of --seed 9 --tokens 300 --from 200 --name kept --park --attach)" = "$whole" ] ||
	fail "what was kept is not what it was"
stop

# Without pinning nobody knows what is near: absent, with the reason.
start "workers=$nodes" pin_workers=no
[ -z "$(figure shares_near)" ] || fail "near of workers that are anywhere: $(ctl numa)"
ctl numa | grep 'not pinned' || fail "no reason: $(ctl numa)"
stop
echo "numa: $nodes nodes passed"
