# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The tests of numa/, and a daemon and its clients, on a machine with several NUMA nodes.
#
#   numa.sh NODES
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"' ERR
nodes=$1
found=(/sys/devices/system/node/node[0-9]*)
[ "${#found[@]}" = "$nodes" ] || fail "asked for $nodes nodes, got ${#found[@]}"
cat /sys/devices/system/node/node*/distance

# With several nodes nothing has a reason to be skipped.
export SPARQ_FIXTURES=/build/fixtures CMOCKA_MESSAGE_OUTPUT=STDOUT
for test in topo pin arena; do
	test-$test | tee "$scratch/out"
	! grep SKIPPED "$scratch/out" || fail "a test was skipped"
done

probe() { /build/probe --socket "$socket" "$@"; }
ctl() { sparqctl "$@" --control "$control"; }
serve() {
	configure "pool_bytes=$((32 * nodes))M" "$@"
	start || fail "the daemon does not start"
}

# figure MEMBER: of all nodes, one a line, as sparqctl numa --json has them, misplaced pages or not.
figure() { { ctl numa --json || true; } | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p"; }
sum() { awk '{ n += $1 } END { print n + 0 }'; }
sum_of() { probe "$@" run | awk '/^rows/ { print $4 }'; }

# Pages of the pool, as the kernel says through two of its doors: node after node, all of a mapping
# on one, the mappings in the order of the nodes.
all_at_home() {
	local node=0 line mapped
	mapped=$(pages where "$pid" memfd:sparqd-pool)
	[ "$(wc -l <<<"$mapped")" = "$nodes" ] || fail "mappings of the pool: $mapped"
	# Each has its own node and no other.
	[ "$(sort -u <<<"$mapped" | awk 'NF == 2 { print $1 }' | sort -n | xargs)" = \
		"$(seq 0 $((nodes - 1)) | xargs)" ] || return 1
	for ((node = 0; node < nodes; node++)); do
		line=$(grep "memfd:sparqd-pool" "/proc/$pid/numa_maps" | grep "bind:$node ") ||
			fail "no pool is bound to node $node"
		[ "$(grep -o 'N[0-9]*=' <<<"$line")" = "N$node=" ] || return 1
	done
}

# The same client, with any number of workers: what it computes is the same, bit for bit.
expected=
for workers in 1 2 "$nodes"; do
	serve "workers=$workers"
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
serve "workers=$nodes"
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
pages migrate "$pid" 0 1
if all_at_home; then fail "nothing was moved"; fi
if ctl numa --verify >"$scratch/numa"; then fail "misplaced pages are not reported: $(cat "$scratch/numa")"; fi
moved=$(figure misplaced_pages | sum)
[ "$moved" -gt 0 ] || fail "no misplaced page: $(cat "$scratch/numa")"
[ "$(figure misplaced_pages | head -n 1)" = "$moved" ] || fail "not those of node 0: $(cat "$scratch/numa")"
ctl numa --verify >/dev/null || true
[ "$(grep -c 'are not on their NUMA node' "$log")" = 1 ] || fail "not said once"
ctl status --json | grep "\"misplaced_pages\":$moved" >/dev/null || fail "the status: $(ctl status --json)"
tail -n 1 "$scratch/numa"
ctl numa --repair || fail "not brought back"
all_at_home || fail "brought back, it says, and is not"
grep -q 'on their NUMA nodes again' "$log" || fail "not said"
whole=$(sum_of --seed 9 --tokens 300 --from 200 --name whole --park)
[ "$(sum_of --seed 9 --tokens 300 --from 200 --name kept --park --attach)" = "$whole" ] ||
	fail "what was kept is not what it was"
stop

# Without pinning nobody knows what is near: absent, with the reason.
serve "workers=$nodes" pin_workers=no
[ -z "$(figure shares_near)" ] || fail "near of workers that are anywhere: $(ctl numa)"
ctl numa | grep 'not pinned' || fail "no reason: $(ctl numa)"
stop
echo "numa: $nodes nodes passed"
