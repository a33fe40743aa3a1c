#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqd-resctrl.service under a real systemd, in a tree like resctrl's, for few machines have one:
# it is passed over where nothing is mounted, puts every thread of each daemon into the group, and
# may write nothing else; sparqd-bandwidth finds what was mounted after its start.
#
#   resctrl.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/functions.sh"
stage_installed
stage_program tests/system/probe tests/system/stats
cp -r "$source/tests/unit/fixtures/bandwidth-resctrl/sys/fs/resctrl" "$stage/resctrl"

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
tree=/sys/fs/resctrl tasks=/sys/fs/resctrl/mon_groups/sparqd/tasks
threads() { ls "/proc/$(show MainPID)/task" | sort; }
# What was written since it was emptied, which who writes it does not notice.
moved() { tr -d '\0' <$tasks | sort -u; }
all_moved() { [ -z "$(comm -23 <(threads) <(moved))" ]; }
result() { systemctl show -P "$1" sparqd-resctrl.service; }
says() { /build/stats /run/sparqd/sparqd.sock sources | grep resctrl; }
counts() { says | grep ': counts$' >/dev/null; }

install_tree
make_users
configure pool_bytes=64M catalogue_bytes=16M
# /sys/fs with one folder more, which the kernel has where the processor counts.
mkdir /run/fs
for folder in /sys/fs/*/; do
	mkdir "/run/fs/$(basename "$folder")"
	mount --rbind "$folder" "/run/fs/$(basename "$folder")"
done
mkdir -p /run/fs/resctrl
mount --rbind /run/fs /sys/fs
systemctl enable --now sparqd.socket 2>/dev/null
systemctl enable sparqd-resctrl.service sparqd-bandwidth.service 2>/dev/null
probe --tokens 50 run >/dev/null || fail "the probe"

eventually test -s /run/sparqd-bandwidth/counters || fail "no figures"
[ "$(result ConditionResult)" = no ] || fail "it ran where nothing is mounted"
! counts || fail "something counts: $(says)"
[[ $(says) == *"mount -t resctrl"* ]] || fail "no word of it: $(says)"
sparqd-resctrl 2>/tmp/said && fail "it works where nothing is mounted"
grep -q 'mount -t resctrl resctrl /sys/fs/resctrl' /tmp/said || fail "it said: $(cat /tmp/said)"
echo "ok: nothing is mounted"

# "Mounted" while everything runs.
mount -t tmpfs resctrl $tree
cp -r /build/resctrl/. $tree/
[ -e $tree/info ] || fail "$(ls $tree)"
mkdir -p $tree/mon_groups/sparqd
: >$tasks # the kernel gives a new group its files
cp -r $tree/mon_data $tree/mon_groups/sparqd/
eventually counts || eventually counts || fail "what was mounted later is not found: $(says)"
echo "ok: sparqd-bandwidth finds what was mounted later"

! all_moved || fail "all threads are in the group before anybody put them there"
systemctl start sparqd-resctrl.service || fail "$(journalctl -u sparqd-resctrl --no-pager)"
all_moved || fail "in the group: $(moved | xargs), threads: $(threads | xargs)"
[ "$(threads | wc -l)" -gt 1 ] || fail "one thread shows nothing"
echo "ok: $(threads | wc -l) threads are in the group"

# Once more for each daemon, also one that nobody asked for.
for how in "systemctl restart sparqd" "systemctl kill --signal KILL sparqd"; do
	: >$tasks
	pid=$(show MainPID)
	$how
	probe --tokens 50 run >/dev/null || fail "the probe"
	[ "$(show MainPID)" != "$pid" ] || fail "the same daemon"
	eventually all_moved || fail "after $how: $(moved | xargs), threads: $(threads | xargs)"
	echo "ok: $how"
done

# Its sandbox: the group, and nothing else below /sys; no capability.
mkdir /etc/systemd/system/sparqd-resctrl.service.d
cat >/etc/systemd/system/sparqd-resctrl.service.d/look.conf <<-'DROPIN'
	[Service]
	ExecStartPre=/bin/sh -c '! touch /sys/fs/cgroup/there'
	ExecStartPre=/bin/sh -c '! mkdir /etc/there && ! mkdir /var/there'
	ExecStartPre=/bin/sh -c 'grep -q "^CapEff:.*0000000000000000" /proc/self/status'
	ExecStartPre=/bin/sh -c 'mkdir /sys/fs/resctrl/mon_groups/there'
DROPIN
systemctl daemon-reload
systemctl restart sparqd-resctrl.service || fail "$(journalctl -u sparqd-resctrl --no-pager)"
[ -d $tree/mon_groups/there ] || fail "the drop-in was not in force"
echo "ok: it may write the group alone"

# The group is full, or whatever the kernel has against it: it fails and says so, the daemon works.
rm -r $tree/mon_groups/sparqd /etc/systemd/system/sparqd-resctrl.service.d
systemctl daemon-reload
: >$tree/mon_groups/sparqd
! systemctl restart sparqd-resctrl.service 2>/dev/null || fail "it works without a group"
journalctl -u sparqd-resctrl --no-pager | grep 'sparqd-resctrl.*: /sys/fs/resctrl/mon_groups/sparqd' >/dev/null ||
	fail "no word of it: $(journalctl -u sparqd-resctrl --no-pager | tail -n 3)"
probe --tokens 50 run >/dev/null || fail "the daemon does not work"
echo "ok: without the group"
SCRIPT
machine 150
