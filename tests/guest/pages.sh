# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Huge pages and the limits on memory as an administrator meets them, on two nodes under systemd:
# pages of 1 GiB, of which node 1 has one and node 0 none, nodes without pages, limits of a control
# group, what doctor says of each and that the command it prints mends it, and
# sparqd-hugepages.service.
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
cp /build/lib/* /usr/local/lib/ && ldconfig
install /build/sparqd /build/sparqd-hugepages /usr/local/sbin/
nodes=/sys/devices/system/node
small=hugepages/hugepages-2048kB/nr_hugepages
# What doctor asks about a start.
printf '#!/bin/sh\nexec sparqd --config %s "$@"\n' "$scratch/conf" >"$scratch/check"
chmod +x "$scratch/check"
export SPARQD_PROGRAM=$scratch/check

# set_up KEY=VALUE...: what start and doctor look at.
set_up() { configure workers=1 max_rows=65536 "$@"; }
# says REGEX: the daemon's log does.
says() { logged "$1" || fail "the log has no \"$1\""; }
# ready TIMES: the daemon was, or its successors.
# shellcheck disable=SC2317 # called by eventually
ready() { [ "$(grep -c ' ready: ' "$log")" = "$1" ]; }
# doctor STATUS [COMMAND...]: as said of the configuration, in $said.
doctor() {
	local status=0
	said=$("${@:2}" sparqctl doctor --control "$control" --socket "$socket") || status=$?
	[ "$status" = "$1" ] || fail "doctor ended with $status: $said"
}
is() { grep -qE "^$2 +$1 .*${3:-}" <<<"$said" || fail "$1 is not $2 ($3): $said"; }
# The first command below the lines of a check.
remedy() { awk -v n="$1" '/^ /{ if (hit) { print; exit } } { hit = $2 == n }' <<<"$said" | sed 's/^ *//'; }
# mend CHECK VERDICT [COMMAND...]: it is short, and its command mends it.
mend() {
	local command
	said=$("${@:3}" sparqctl doctor --control "$control" --socket "$socket") || true
	is "$1" "$2"
	command=$(remedy "$1")
	[ -n "$command" ] || fail "$1: no command: $said"
	sh -c "$command" >"$scratch/out" 2>&1 || fail "$command: $(cat "$scratch/out")"
	said=$("${@:3}" sparqctl doctor --control "$control" --socket "$socket") || true
	! grep -E "^(wrong|warning) +$1 " <<<"$said" || fail "not mended by: $command"
	is "$1" ok
	echo "ok: $1: $command"
}

# ---- pages of 1 GiB, on node 1 alone ------------------------------------------------
# An emulated machine clears small pages one by one for minutes.
echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
echo 0 | tee $nodes/node*/$small >/dev/null
set_up pool_bytes=2G huge_pages=1G
doctor 1
is huge-pages wrong 'node 0: 0 pages of 1 GiB are free, 1 are wanted'
is huge-pages ok 'node 1: 1024 MiB wanted, enough pages of 1 GiB are free'
# Kept by a keeper: a restart finds them filled, and does not clear them again.
sparqd --config "$scratch/conf" --keeper 2>"$log" &
pid=$!
eventually ready 1 || eventually ready 1 || fail "not ready"
says 'pool: 1024 MiB on node 1 in hugetlb 1 GiB'
says 'pool: 1024 MiB on node 0 in (THP shmem|shmem 4 KiB)'
says 'on node 0 are not in pages of 1 GiB: .*echo [0-9]+ > /sys/devices/system/node/node0/hugepages/'
child=$(pgrep -P $pid sparqd)
grep 'memfd:sparqd-pool' /proc/"$child"/numa_maps | tee "$scratch/maps"
grep -qE '^[0-9a-f]+ bind:1 .*huge .*N1=1 kernelpagesize_kB=1048576' "$scratch/maps" || fail "not one page on node 1"
kill -KILL "$child"
eventually ready 2 || fail "not started again"
[ "$(grep -c 'taken and cleared' "$log")" = 1 ] || fail "what was kept was cleared again"
[ "$(grep -c 'pool: 1024 MiB on node 1 in hugetlb 1 GiB' "$log")" = 2 ] || fail "another pool after the restart"
stop
echo "ok: a page of 1 GiB on the node that has one, and again after a crash"

# ---- a node without pages ------------------------------------------------------------
echo 32 >$nodes/node0/$small
set_up pool_bytes=64M
start || fail "it does not start"
says 'pool: 32 MiB on node 0 in hugetlb 2 MiB'
says 'pool: 32 MiB on node 1 in (THP shmem|shmem 4 KiB)'
[ "$(grep -c 'not in huge pages' "$log")" = 1 ] || fail "it is not said once"
doctor 0
is huge-pages warning 'node 1: 0 pages of 2 MiB are free, 16 are wanted'
is huge-pages ok 'node 0: 32 MiB in hugetlb 2 MiB'
stop
set_up pool_bytes=64M huge_pages=2M
mend huge-pages wrong
start || fail "it does not start"
[ "$(grep -c 'in hugetlb 2 MiB' "$log")" = 2 ] || fail "not both nodes"
! grep -q 'not in huge pages' "$log" || fail "it complains of what is there"
stop
echo "ok: each node by itself"

# Both short, one line.
echo 0 | tee $nodes/node*/$small >/dev/null
start || fail "it does not start"
says '64 MiB on node 0 and 1 other are not in huge pages: .*; sparqctl doctor tells of each'
[ "$(grep -c 'not in huge pages' "$log")" = 1 ] || fail "it is not said once"
stop

# ---- control groups --------------------------------------------------------------------
echo '+memory +hugetlb' >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/test
printf '#!/bin/sh\necho $$ >/sys/fs/cgroup/$G/cgroup.procs\nexec "$@"\n' >"$scratch/in"
chmod +x "$scratch/in"
set_up pool_bytes=256M huge_pages=no
echo 64M >/sys/fs/cgroup/test/memory.max
export G=test
if start "$scratch/in"; then fail "it starts beyond the limit"; fi
says 'no memory for the pool: .*the cgroup leaves .* raise MemoryMax= of the unit'
mend cgroup-memory wrong "$scratch/in"
start "$scratch/in" || fail "it does not start within the limit"
stop
set_up pool_bytes=64M huge_pages=2M
echo 64 | tee $nodes/node*/$small >/dev/null
echo 16M >/sys/fs/cgroup/test/hugetlb.2MB.max
mend cgroup-hugetlb wrong "$scratch/in"
# Where the limit is a unit's, systemd is told.
systemd-run --quiet --unit=sparqd.service -p MemoryMax=64M sleep infinity
set_up pool_bytes=256M huge_pages=no
G=system.slice/sparqd.service mend cgroup-memory wrong "$scratch/in"
[[ $(systemctl show -P MemoryMax sparqd.service) -gt $((256 << 20)) ]] || fail "MemoryMax of the unit"
systemctl stop sparqd.service

# ---- settings of the kernel ---------------------------------------------------------------
set_up pool_bytes=256M huge_pages=no
echo never >/sys/kernel/mm/transparent_hugepage/shmem_enabled
mend thp-shmem warning
echo 1 >/proc/sys/kernel/numa_balancing
mend numa-balancing warning
echo 2 >/proc/sys/kernel/io_uring_disabled
mend io-uring warning
echo 1000 >/proc/sys/vm/max_map_count
mend max-map-count warning
set_up pool_bytes=1G huge_pages=no
echo 1 >/proc/sys/vm/overcommit_ratio
echo 2 >/proc/sys/vm/overcommit_memory
mend overcommit wrong
set_up pool_bytes=100G huge_pages=no
mend memory wrong
start || fail "it does not start with the pool that was proposed"
stop

# ---- sparqd-hugepages ---------------------------------------------------------------------
echo 0 | tee $nodes/node*/$small >/dev/null
sparqd-hugepages --set reserve_huge_pages=node0:2M:20,node1:2M:12
[ "$(cat $nodes/node0/$small) $(cat $nodes/node1/$small)" = "20 12" ] || fail "pages set aside"
sparqd-hugepages --set reserve_huge_pages=node0:2M:8
[ "$(cat $nodes/node0/$small)" = 20 ] || fail "pages of others were taken back"
sparqd-hugepages --exact --set reserve_huge_pages=node0:2M:8
[ "$(cat $nodes/node0/$small)" = 8 ] || fail "--exact"
status=0
sparqd-hugepages --set reserve_huge_pages=node0:1G:8,node0:2M:16 >"$scratch/out" || status=$?
cat "$scratch/out"
[ "$status" = 1 ] || fail "eight pages of 1 GiB of a node that has less: $status"
grep -qE 'node 0: [0-3] of 8 pages of 1 GiB: .*hugepagesz=1G hugepages=0:8' "$scratch/out" || fail "no word of it"
[ "$(cat $nodes/node0/$small)" = 16 ] || fail "the other size is left out"
sparqd-hugepages --exact --set reserve_huge_pages=node0:1G:0 >/dev/null

mkdir -p /usr/local/etc/sparqd /etc/systemd/system/sparqd-hugepages.service.d
printf '%s\n' 'pool_bytes = 200M' >/usr/local/etc/sparqd/sparqd.conf
cp /build/sparqd-hugepages.service /etc/systemd/system/
# The rest of /sys is not for it.
cat >/etc/systemd/system/sparqd-hugepages.service.d/look.conf <<-'DROPIN'
	[Service]
	ExecStartPre=/bin/sh -c '! echo never >/sys/kernel/mm/transparent_hugepage/enabled'
	ExecStartPre=/bin/sh -c 'grep -q "^CapEff:.*0000000000000000" /proc/self/status'
DROPIN
systemctl daemon-reload
systemctl enable sparqd-hugepages.service 2>/dev/null
[[ $(systemctl show -P Before sparqd-hugepages) == *sparqd.service* ]] || fail "not before sparqd"
systemctl start sparqd-hugepages || { journalctl -u sparqd-hugepages --no-pager; fail "the unit"; }
journalctl -u sparqd-hugepages --no-pager -o cat
[ "$(cat $nodes/node0/$small) $(cat $nodes/node1/$small)" = "50 50" ] || fail "pages by the unit: $(cat $nodes/node*/$small)"
echo 'reserve_huge_pages = node0:1G:8' >>/usr/local/etc/sparqd/sparqd.conf
! systemctl restart sparqd-hugepages 2>/dev/null || fail "the unit does not fail with too few"
[ "$(systemctl show -P Result sparqd-hugepages)" = exit-code ] || fail "result of the unit"
echo "ok: sparqd-hugepages.service"
