# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Pages off a node that is full, on a machine with two: of the test's own sequences where their rows
# lie by move_pages, before and after; of a daemon's what it says, and that the sequences which were
# moved compute what they would have.
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
FIXTURE_BOUND=1 CMOCKA_MESSAGE_OUTPUT=STDOUT test-rebalance 'relieves_*' || fail "rows are not where the kernel says"

ctl() { sparqctl "$@" --control "$control"; }
probe() { /build/probe --socket "$socket" --format f32 --head-dim 256 --park "$@"; }
sum_of() { probe "$@" run | awk '/^rows/ { print $4 }'; }
# figure MEMBER: of all nodes, one a line.
figure() { ctl numa --json | tr ',{}' '\n\n\n' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\",]*\)\"\{0,1\}$/\1/p"; }
used() { figure pool_used_bytes | sed -n "$(($1 + 1))p"; }

# 32 MiB a node, of which 6.4 are full and 3.2 are room; each sequence takes more than 3.
configure pool_bytes=64M placement=local rebalance_full=20 rebalance=no
start || fail "the daemon does not start"
whole=$(sum_of --name whole --seed 1 --tokens 320 --from 300)
for i in 1 2 3 4; do
	sum_of --name "s$i" --seed 1 --tokens 300 >/dev/null
done
# Those of node 1 go, and node 0 is full beside an empty one.
ctl sequences --json | tr -d ' \n' | sed 's/},{/\n/g' >"$scratch/sequences"
for i in $(sed -n 's/.*"id":"\([^"]*\)".*"node":1,.*/\1/p' "$scratch/sequences"); do
	ctl drop --yes "$i"
done
mapfile -t left < <(sed -n 's/.*"name":"\(s[0-9]\)".*"node":0,.*/\1/p' "$scratch/sequences")
[ "${#left[@]}" -gt 0 ] && [ "${#left[@]}" -lt 4 ] || fail "sequences: $(cat "$scratch/sequences")"
before=$(used 0)
[ "$before" -gt $(((32 << 20) * 20 / 100)) ] || fail "node 0 is not full: $(ctl numa)"
[ "$(figure moved_pages)" = 0 ] || fail "moved, and it was told not to: $(ctl numa)"

# While nobody is connected nothing moves; a client that is idle is enough.
sed -i 's/^rebalance = no/rebalance = yes/' "$scratch/conf"
ctl reload || fail "no reload"
/build/probe --socket "$socket" --tokens 1000000 --pause-us 200000 run >/dev/null 2>&1 &
client=$!
# shellcheck disable=SC2317 # called by eventually
relieved() { [ "$(figure moved_pages)" -gt 0 ] && [ "$(used 0)" -lt "$before" ]; }
eventually relieved || fail "nothing was moved: $(ctl numa)"
ctl numa --verify || fail "pages are not where they were put"
echo "moved $(figure moved_pages) pages, $(figure moved_bytes) bytes: $before bytes on node 0 became $(used 0), and $(used 1) on node 1"
kill "$client"
for i in "${left[@]}"; do
	[ "$(sum_of --name "$i" --seed 1 --attach --tokens 320 --from 300)" = "$whole" ] || fail "$i is not what it was"
done
stop
echo "rebalance: passed"
