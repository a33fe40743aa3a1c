# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The stats page on a machine with two nodes: bytes are counted for the node that they lie on, and
# each node is measured for itself.
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
sum() { stats "$socket" sums | awk -v what="$1" '$1 == what { print $2 }'; }
probe() { /build/probe --socket "$socket" --tokens 60 "$@" run >/dev/null || fail "the probe"; }

configure pool_bytes=256M
start || fail "the daemon does not start"
# Sequences take turns over the nodes.
for seed in 1 2 3 4; do
	probe --seed $seed
done
all=$(sum ops)
[ "$all" -gt 0 ] && [ "$(sum nodes)" = "$all" ] || fail "$(sum nodes) bytes by node, $all by operation"
for node in 0 1; do
	[ "$(sum read-$node)" -gt 0 ] || fail "nothing was read of node $node: $(stats "$socket" sums)"
done
echo "ok: $(sum read-0) bytes of node 0, $(sum read-1) of node 1"

probe --park --name kept
# shellcheck disable=SC2317 # called by eventually
pages_are_out() { [ $(($(sum used-0) + $(sum used-1))) -gt 0 ]; }
eventually pages_are_out || fail "no page is out"
sparqctl calibrate --control "$control" >"$scratch/said" ||
	grep -q 'would be read from the caches' "$scratch/said" || fail "$(cat "$scratch/said")"
[ "$(grep -c '^ *node [01] ' "$scratch/said")" = 2 ] || fail "$(cat "$scratch/said")"
cat "$scratch/said"
[ "$(sparqd-bandwidth --once | wc -l)" = 8 ] || fail "$(sparqd-bandwidth --once)"
stop
