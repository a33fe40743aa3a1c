# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A machine whose last node has memory only, as a CXL expander is: left out, and said so, until
# numa_nodes promotes it. Then its part of the pool is there, the nearest node's worker works for
# it, and what is computed is the same.
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
nodes=/sys/devices/system/node
[ "$(cat $nodes/has_cpu) $(cat $nodes/has_memory)" = "0-2 0-3" ] ||
	fail "processors: $(cat $nodes/has_cpu), memory: $(cat $nodes/has_memory)"
numa() { sparqctl numa --control "$control" "$@" || fail "sparqctl numa $*"; }
# figure MEMBER: of all nodes of the pool, one a line.
figure() {
	numa --json | sed '/"memory_only"/,$d' |
		sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p"
}
doctor() { sparqctl doctor --control "$control" || true; }
sum() { probe --socket "$socket" --tokens 300 run | awk '/^rows/ { print $4 }'; }

configure pool_bytes=96M workers=3
start || fail "the daemon does not start"
[ "$(figure node | xargs)" = "0 1 2" ] || fail "the daemon uses nodes $(figure node | xargs)"
logged 'node 3 has [0-9]* MiB of memory and no CPUs: the pool has no part of it' || fail "no word of it"
numa | grep '^node 3 has memory and no CPUs, nearest to node 2 (distance 12): .* no part' >/dev/null ||
	fail "the table: $(numa)"
doctor | grep 'node 3 has .* no CPUs: the pool has no part of it' >/dev/null || fail "doctor: $(doctor)"
expected=$(sum)
[ -n "$expected" ] || fail "no sum"
stop

configure pool_bytes=96M workers=3 numa_nodes=0-3
start || fail "the daemon does not start with all nodes"
[ "$(figure node | xargs)" = "0 1 2 3" ] || fail "promoted, and the daemon uses $(figure node | xargs)"
[ "$(figure pool_bytes | sort -u | wc -l)" = 1 ] || fail "parts: $(figure pool_bytes | xargs)"
[ "$(figure workers | xargs)" = "1 1 1 0" ] || fail "workers: $(figure workers | xargs)"
[ "$(figure nearest)" = 2 ] || fail "nearest: $(figure nearest)"
logged 'node 3 has no CPUs: those of node 2 work for it' || fail "no word of who works for it"
doctor | grep 'those of node 2 work for it (distance 12)' >/dev/null || fail "doctor: $(doctor)"
[ "$(sum)" = "$expected" ] || fail "another sum"
numa --verify >/dev/null
grep 'memfd:sparqd-pool' "/proc/$pid/numa_maps" | grep 'bind:3 .* N3=' >/dev/null || fail "nothing on node 3"
stop

# That one alone: its nearest node's worker has work, the others help where there is more.
configure pool_bytes=64M workers=3 numa_nodes=3
start || fail "the daemon does not start on node 3"
[ "$(figure node | xargs)" = 3 ] || fail "alone, and the daemon uses $(figure node | xargs)"
[ "$(sum)" = "$expected" ] || fail "another sum on node 3"
stop

configure pool_bytes=64M numa_nodes=0,7
! start || fail "a daemon without node 7"
logged 'numa_nodes = 0,7: this machine has no node 7' || fail "it does not say what is missing"
pid=
echo "expander: passed"
