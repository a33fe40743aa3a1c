# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A machine whose last node has memory only and the one before it processors only, beside two whole
# ones: no processor and no node with both is left out, all pages are where they are said to be, and
# what is computed is the same wherever it is.
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
nodes=/sys/devices/system/node
[ "$(cat $nodes/has_cpu) $(cat $nodes/has_memory)" = "0-2 0-1,3" ] ||
	fail "processors: $(cat $nodes/has_cpu), memory: $(cat $nodes/has_memory)"
export SPARQ_FIXTURES=/build/fixtures CMOCKA_MESSAGE_OUTPUT=STDOUT
test-topo this_machine || fail "the topology"
test-pin || fail "pinning"

# figure MEMBER: of all nodes that the daemon uses, one a line.
figure() { { sparqctl numa --json --control "$control" || true; } |
	sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p"; }
expected=
for workers in 1 3; do
	configure pool_bytes=96M workers=$workers
	start || fail "the daemon does not start"
	[ "$(figure workers | awk '{ n += $1 } END { print n }')" = $workers ] ||
		fail "workers: $(figure workers | xargs)"
	used=$(figure node | xargs)
	[[ $used == "0 1"* ]] || fail "the daemon uses nodes $used"
	[[ $used != *2* ]] || fail "there is no memory on node 2"
	[ "$(figure pool_bytes | sort -un | head -n 1)" -gt 0 ] || fail "a node without a pool"
	sparqctl numa --verify --control "$control" || fail "pages are not where they were put"
	sum=$(probe --socket "$socket" --tokens 300 run | awk '/^rows/ { print $4 }')
	[ -n "$sum" ] && [ "$sum" = "${expected:=$sum}" ] || fail "$workers workers: $sum, not $expected"
	sparqctl numa --repair --control "$control" || fail "not all at home after work"
	# By the kernel's word: bound to a node that has memory, and there.
	sed -n 's/^[0-9a-f]* bind:\([0-9]*\) \(.*memfd:sparqd-pool.*\)/\1 \2/p' "/proc/$pid/numa_maps" \
		>"$scratch/pools"
	[ "$(cut -d ' ' -f 1 "$scratch/pools" | sort -u | xargs)" = "$used" ] || fail "$(cat "$scratch/pools")"
	while read -r node rest; do
		[[ $rest == *" N$node="* ]] || fail "bound to node $node: $rest"
	done <"$scratch/pools"
	stop
done
echo "uneven: passed"
