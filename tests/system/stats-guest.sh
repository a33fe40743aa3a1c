#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The stats page on a machine with two nodes: bytes are counted for the node that they lie on, and
# each node is measured for itself.
#
#   GUEST_RUN=/path/to/tool stats-guest.sh BUILD-DIRECTORY
#
# What the tool must offer is said in numa-guest.sh. Without one this test is skipped (77).
set -euo pipefail

build=$(cd "${1:?usage: stats-guest.sh BUILD-DIRECTORY}" && pwd)
if [ -z "${GUEST_RUN:-}" ]; then
	echo "GUEST_RUN names no tool that boots a machine with NUMA nodes: skipped"
	exit 77
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/lib"
for program in daemon/sparqd daemon/sparqd-bandwidth client/sparqctl tests/system/probe \
	tests/system/stats; do
	cp "$build/$program" "$stage/"
	# The guest has a bare system: bring what is not part of every system.
	LD_LIBRARY_PATH=$build/client ldd "$build/$program" |
		awk '$1 ~ /^lib(uring|numa|json-c|xxhash|sparq|ncurses|tinfo|systemd)/ && $3 { print $3 }'
done | sort -u | xargs -r cp -t "$stage/lib"

cat >"$stage/run" <<'SCRIPT'
#!/bin/bash
set -euo pipefail
export LD_LIBRARY_PATH=/build/lib
fail() { echo "FAILED: $*"; cat /tmp/log; exit 1; }
sum() { /build/stats /tmp/sock sums | awk -v what="$1" '$1 == what { print $2 }'; }

/build/sparqd --socket /tmp/sock --control /tmp/control --pool 256M --log-level info >/tmp/log 2>&1 &
for ((i = 0; i < 300; i++)); do [ -S /tmp/control ] && break; sleep 0.1; done
# Sequences take turns over the nodes.
for seed in 1 2 3 4; do
	/build/probe --socket /tmp/sock --seed $seed --tokens 60 run >/dev/null || fail "the probe"
done
all=$(sum ops)
[ "$all" -gt 0 ] && [ "$(sum nodes)" = "$all" ] || fail "$(sum nodes) bytes by node, $all by operation"
for node in 0 1; do
	[ "$(sum read-$node)" -gt 0 ] || fail "nothing was read of node $node: $(/build/stats /tmp/sock sums)"
done
echo "ok: $(sum read-0) bytes of node 0, $(sum read-1) of node 1"
/build/probe --socket /tmp/sock --tokens 60 --park --name kept run >/dev/null || fail "the probe"
sleep 0.2
[ $(($(sum used-0) + $(sum used-1))) -gt 0 ] || fail "no page is out"
/build/sparqctl calibrate --control /tmp/control >/tmp/calibrated ||
	grep -q 'would be read from the caches' /tmp/calibrated || fail "$(cat /tmp/calibrated)"
[ "$(grep -c '^ *node [01] ' /tmp/calibrated)" = 2 ] || fail "$(cat /tmp/calibrated)"
cat /tmp/calibrated
[ "$(/build/sparqd-bandwidth --once | wc -l)" = 8 ] || fail "$(/build/sparqd-bandwidth --once)"
kill %1
wait %1 || fail "the end"
SCRIPT
chmod +x "$stage/run"
"$GUEST_RUN" -n 2 -b "$stage" -- /build/run
