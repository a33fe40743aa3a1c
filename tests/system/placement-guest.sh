#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Where rows lie on machines with two and four nodes, as the kernel says it: of the test's sequences
# by move_pages, by KV head and by row; of a daemon's by its own figures and by numa_maps.
#
#   GUEST_RUN=/path/to/tool placement-guest.sh BUILD-DIRECTORY
#
# What the tool must offer is said in numa-guest.sh. Without one this test is skipped (77).
set -euo pipefail

build=$(cd "${1:?usage: placement-guest.sh BUILD-DIRECTORY}" && pwd)
if [ -z "${GUEST_RUN:-}" ]; then
	echo "GUEST_RUN names no tool that boots a machine with NUMA nodes: skipped"
	exit 77
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/lib"
for program in daemon/sparqd client/sparqctl tests/system/probe tests/unit/test-spread; do
	cp "$build/$program" "$stage/"
	# The guest has a bare system: bring what is not part of every system.
	LD_LIBRARY_PATH=$build/client ldd "$build/$program" |
		awk '$1 ~ /^lib(cmocka|uring|numa|json-c|xxhash|sparq|ncurses|tinfo|systemd)/ && $3 { print $3 }'
done | sort -u | xargs -r cp -t "$stage/lib"

cat >"$stage/run" <<'SCRIPT'
#!/bin/bash
set -euo pipefail
export LD_LIBRARY_PATH=/build/lib CMOCKA_MESSAGE_OUTPUT=STDOUT
nodes=$1
fail() { echo "FAILED: $*"; cat /tmp/log; exit 1; }
# used NODE: bytes of it that are out.
used() {
	/build/sparqctl status --control /tmp/control --json | tr ',{}' '\n\n\n' |
		awk -F: -v node="$1" '/"node":/ { at = $2 + 0 } /"used_bytes":/ && at == node { print $2 + 0; exit }'
}
# tried PLACEMENT: a daemon of that default, which keeps a sequence.
tried() {
	rm -f /tmp/control /tmp/sock
	/build/sparqd --socket /tmp/sock --control /tmp/control --set placement="$1" --pool 256M \
		--log-level info >/tmp/log 2>&1 &
	for ((i = 0; i < 300; i++)); do [ -S /tmp/control ] && break; sleep 0.1; done
	/build/probe --socket /tmp/sock --tokens 300 --park --name kept run >/tmp/sum || fail "the probe"
	for ((node = 0; node < nodes; node++)); do
		grep -q "memfd:sparqd-pool.* N$node=" "/proc/$!/numa_maps" || fail "no arena on node $node"
		echo "$1: node $node has $(used $node) bytes of it"
	done
}
end() { kill $!; wait $! || fail "the end"; }
FIXTURE_BOUND=1 /build/test-spread 'nodes_by_*' || fail "rows are not where the rule says"
[ "$nodes" -gt 2 ] || { # the probe has two KV heads
	tried heads
	[ "$(used 0)" -gt 0 ] && [ "$(used 0)" = "$(used 1)" ] || fail "heads: $(used 0) and $(used 1)"
	end
	cp /tmp/sum /tmp/heads
}
tried local
with=0
for ((node = 0; node < nodes; node++)); do [ "$(used $node)" = 0 ] || with=$((with + 1)); done
[ "$with" = 1 ] || fail "local: on $with nodes"
end
[ ! -e /tmp/heads ] || cmp /tmp/heads /tmp/sum || fail "other results than with heads"
SCRIPT
chmod +x "$stage/run"
for nodes in 2 4; do
	"$GUEST_RUN" -n "$nodes" -b "$stage" -- /build/run "$nodes"
done
