#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The tests of numa/ and a daemon with clients on real nodes: in virtual machines
# with 2 and with 4 of them, where pages can lie on the wrong one.
#
#   GUEST_RUN=/path/to/tool numa-guest.sh BUILD-DIRECTORY
#
# The tool boots a machine and runs a command in it, the options used here:
#   -n NODES  -t SECONDS  -p 2-MIB-PAGES-PER-NODE  -b DIRECTORY-SHOWN-AS-/build  -- COMMAND
# and returns the command's status. Without one this test is skipped (77).
set -euo pipefail

build=${1:?usage: numa-guest.sh BUILD-DIRECTORY}
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${GUEST_RUN:-}" ]; then
	echo "GUEST_RUN names no tool that boots a machine with NUMA nodes: skipped"
	exit 77
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/lib"
cp -r "$here/../unit/fixtures" "$stage/"
for test in topo pin arena; do
	cp "$build/tests/unit/test-$test" "$stage/"
done
cp "$build/daemon/sparqd" "$build/client/sparqctl" "$build/tests/system/probe" \
	"$build/tests/system/pages" "$here/numa-inside.sh" "$stage/"
cp "$build"/client/libsparq.so.0 "$stage/lib"
# The guest has a bare system: bring what is not part of every system.
for program in "$stage"/test-* "$stage"/sparq* "$stage/probe" "$stage/pages"; do
	ldd "$program" | awk '$1 ~ /^lib(cmocka|numa|uring|json-c|xxhash|ncurses|tinfo)\./ { print $3 }' |
		xargs -r cp -t "$stage/lib"
done
cat >"$stage/run" <<'SCRIPT'
#!/bin/sh
export LD_LIBRARY_PATH=/build/lib SPARQ_FIXTURES=/build/fixtures CMOCKA_MESSAGE_OUTPUT=STDOUT
status=0
nodes=$(ls -d /sys/devices/system/node/node[0-9]* | wc -l)
[ "$nodes" = "$1" ] || { echo "asked for $1 nodes, got $nodes"; exit 1; }
cat /sys/devices/system/node/node*/distance
for test in topo pin arena; do
	/build/test-$test || status=1
done
/build/numa-inside.sh "$1" || status=1
exit $status
SCRIPT
chmod +x "$stage/run"

status=0
for nodes in 2 4; do
	log=$stage/log-$nodes
	"$GUEST_RUN" -n "$nodes" -p 48 -t 280 -b "$stage" -- /build/run "$nodes" >"$log" 2>&1 || status=1
	cat "$log"
	# With several nodes nothing has a reason to be skipped.
	if grep -q 'SKIPPED' "$log"; then
		echo "$nodes nodes: a test was skipped"
		status=1
	fi
done
# What is computed does not depend on where it lies.
if [ "$(grep -h '^sums: ' "$stage"/log-* | sort | uniq -c | awk '{ print $1 }')" != 2 ]; then
	echo "2 and 4 nodes do not compute the same"
	status=1
fi
exit $status
