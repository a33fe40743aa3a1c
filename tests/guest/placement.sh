# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Where rows lie, as the kernel says it: of the test's sequences by move_pages, by KV head and by row;
# of a daemon's by its own figures and by numa_maps.
#
#   placement.sh NODES
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
export CMOCKA_MESSAGE_OUTPUT=STDOUT
nodes=$1
# used NODE: bytes of it that are out.
used() {
	sparqctl status --control "$control" --json | tr ',{}' '\n\n\n' |
		awk -F: -v node="$1" '/"node":/ { at = $2 + 0 }
			/"used_bytes":/ && at == node && !said++ { print $2 + 0 }'
}
# tried PLACEMENT: a daemon of that default, which keeps a sequence.
tried() {
	configure pool_bytes=256M placement="$1"
	start || fail "the daemon does not start"
	probe --socket "$socket" --tokens 300 --park --name kept run >"$scratch/sum" || fail "the probe"
	for ((node = 0; node < nodes; node++)); do
		grep -q "memfd:sparqd-pool.* N$node=" "/proc/$pid/numa_maps" || fail "no arena on node $node"
		echo "$1: node $node has $(used $node) bytes of it"
	done
}

FIXTURE_BOUND=1 test-spread 'nodes_by_*' || fail "rows are not where the rule says"
[ "$nodes" -gt 2 ] || { # the probe has two KV heads
	tried heads
	[ "$(used 0)" -gt 0 ] && [ "$(used 0)" = "$(used 1)" ] || fail "heads: $(used 0) and $(used 1)"
	stop
	cp "$scratch/sum" "$scratch/heads"
}
tried local
with=0
for ((node = 0; node < nodes; node++)); do
	[ "$(used $node)" = 0 ] || with=$((with + 1))
done
[ "$with" = 1 ] || fail "local: on $with nodes"
stop
[ ! -e "$scratch/heads" ] || cmp "$scratch/heads" "$scratch/sum" || fail "other results than with heads"
