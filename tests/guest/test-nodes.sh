#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What there is about NUMA nodes, on machines with two and with four of them: numa.sh, placement.sh,
# figures.sh, rebalance.sh; and where some have no memory or no processors: uneven.sh and expander.sh.
#
#   test-nodes.sh BUILD-DIRECTORY
#
# shellcheck source=tests/guest/functions.sh
. "$(dirname "$0")/functions.sh"
cp -r "$source/tests/unit/fixtures" "$stage/"
stage_program daemon/sparqd daemon/sparqd-bandwidth client/sparqctl \
	tests/system/{probe,pages,stats} tests/unit/test-{topo,pin,arena,spread,rebalance}

nodes() { beside 3584 -n "$1" -p 48 -t 1200 "${@:2}"; }
nodes 4 -- numa 4 + placement 4
nodes 2 -- numa 2 + placement 2 + figures
nodes 4 -M 1 -P 1 -- uneven
nodes 4 -M 1 -- expander
nodes 2 -- rebalance
status=0
finish || status=1
# What is computed does not depend on where it lies.
[ "$(grep '^sums: ' "$stage/said" | sort | uniq -c | awk '{ print $1 }')" = 2 ] || {
	echo "2 and 4 nodes do not compute the same"
	status=1
}
exit $status
