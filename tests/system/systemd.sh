#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The installed units under a real systemd: users, socket activation, readiness,
# the sandbox, reload; and that what clients have survives kills, restarts, the watchdog and a
# configuration that broke, and does not survive a stop.
#
#   systemd.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/../machine/functions.sh"
stage_installed
stage_program tests/system/probe

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
sum() { probe --tokens 300 run | awk '/^rows/ { print $4 }'; }

install_tree
make_users
mkdir -p /etc/systemd/system/sparqd.service.d
printf '[Service]\nWatchdogSec=3s\n' >/etc/systemd/system/sparqd.service.d/test.conf
configure pool_bytes=128M catalogue_bytes=16M
systemctl daemon-reload
systemctl enable --now sparqd.socket

[ -S /run/sparqd/sparqd.sock ] || fail "no session socket"
systemctl is-active --quiet sparqd.service && fail "the daemon runs before anyone asked"
[ "$(stat -c '%a %G' /run/sparqd/sparqd.sock)" = "660 sparq" ] || fail "mode of the socket"

alone=$(sum)
[ -n "$alone" ] || fail "no sum by socket activation"
[ "$(show ActiveState)" = active ] || fail "not active"
[ "$(stat -c '%a %G' /run/sparqd/control.sock)" = "660 sparq-admin" ] || fail "control socket"
echo "ok: socket activation; status: $(show StatusText)"
if as stranger /build/probe --socket /run/sparqd/sparqd.sock burst >/dev/null 2>&1; then
	fail "a user outside the group may connect"
fi
echo "ok: a stranger is refused"

pid=$(show MainPID)
[ "$(ps -o user= -p "$pid")" = sparqd ] || fail "user of the daemon"
grep -q '^CapEff:	0*$' "/proc/$pid/status" || fail "it has capabilities"
grep -q '^Seccomp:	2$' "/proc/$pid/status" || fail "no system call filter"
journalctl -u sparqd --no-pager | grep -iE 'not permitted|denied|EPERM' && fail "the sandbox is in the way"
echo "ok: sandboxed, and nothing was in the way"

systemctl reload sparqd || fail "reload"
[ "$(sum)" = "$alone" ] || fail "another sum after a reload"
echo "ok: reload"

whole
[ "$(stored)" = 2 ] || fail "descriptors in the store: $(stored)"
begin killed
# More than the five that are the usual limit of starts.
for ((round = 1; round <= 10; round++)); do
	pid=$(show MainPID)
	kill -KILL "$pid"
	# At once: it waits in the socket.
	[ "$(sum)" = "$alone" ] || fail "no service after crash $round"
	[ "$(show MainPID)" != "$pid" ] || fail "crash $round: the same daemon"
done
[ "$(show NRestarts)" = 10 ] || fail "restarts: $(show NRestarts)"
[ "$(stored)" = 2 ] || fail "descriptors in the store after crashes: $(stored)"
rest killed
echo "ok: kept through ten crashes"

begin restarted
systemctl restart sparqd || fail "restart"
rest restarted
logged 'stopping: .* [0-9]+ rows .* stay with systemd for the next start, a stop of the unit drops them' ||
	fail "the restart does not say what is at stake"
begin ended
pid=$(show MainPID)
kill -TERM "$pid"
eventually sh -c "[ \"\$(systemctl show -P MainPID sparqd)\" != $pid ]" || fail "still there after SIGTERM"
rest ended
echo "ok: kept through systemctl restart, and a SIGTERM of somebody"

begin broken
echo 'isa = neon9' >>/usr/local/etc/sparqd/sparqd.conf
kill -KILL "$(show MainPID)"
eventually logged 'isa = neon9: unknown' || fail "it starts with a wrong word"
sleep 5 # a few times over
[ "$(show ActiveState)" = activating ] || fail "a wrong word made the unit $(show ActiveState)"
sed -i '/neon9/d' /usr/local/etc/sparqd/sparqd.conf
rest broken
echo "ok: kept through a configuration that broke"

begin stuck
restarts=$(show NRestarts)
kill -STOP "$(show MainPID)"
eventually restarts_pass "$restarts" || fail "the watchdog did not bite"
restarts=$(show NRestarts)
rest stuck
journalctl -u sparqd --no-pager | grep 'Watchdog timeout' >/dev/null || fail "no word of the watchdog"
echo "ok: kept through the watchdog"

# Idle, it must not be taken for stuck: nothing feeds the watchdog but its own loop.
sleep 8
[ "$(show NRestarts)" = "$restarts" ] || fail "an idle daemon was killed"
echo "ok: idle for longer than the watchdog waits"

# What a newer version would have left: systemd's copy of the catalogue, with another layout.
catalogue() {
	local fd
	for fd in /proc/1/fd/*; do
		[[ $(readlink "$fd") != *memfd:sparqd-catalogue* ]] || echo "$fd"
	done
}
layout() { od -An -t o1 -j 8 -N 1 "$(catalogue)" | tr -d ' '; }
patch_layout() { printf '%b' "\\0$1" | dd of="$(catalogue)" bs=1 seek=8 conv=notrunc status=none; }
begin refused
ours=$(layout)
patch_layout 011
kill -KILL "$(show MainPID)"
probe run >/tmp/said 2>&1 && fail "served on memory of another layout"
grep -q 'layout 9.* start the sparqd that left it; to drop it: systemctl stop sparqd' /tmp/said ||
	fail "the client heard: $(cat /tmp/said)"
[[ $(show StatusText) == "serving nobody: "*"layout 9"* ]] || fail "status: $(show StatusText)"
[ "$(show ActiveState)" = active ] || fail "refusing, it is $(show ActiveState)"
[ "$(stored)" = 2 ] || fail "descriptors in the store: $(stored)"
patch_layout "$ours"
systemctl restart sparqd || fail "restart"
rest refused
echo "ok: kept through a refusal"

begin stopped
systemctl stop sparqd.service || fail "stop"
eventually sh -c '[ "$(systemctl show -P ActiveState sparqd)" = inactive ]' || fail "not stopped"
[ "$(stored)" = 0 ] || fail "a stop leaves $(stored) descriptors"
probe --name stopped --park --attach --tokens 400 run >/dev/null 2>&1 && fail "kept through a stop"
[ "$(stored)" = 2 ] || fail "descriptors of the daemon that the socket started: $(stored)"
echo "ok: dropped by systemctl stop"

systemctl stop sparqd.service sparqd.socket sparqd-control.socket
[ "$(show Result)" = success ] || fail "stop: $(show Result)"
[ ! -e /run/sparqd/sparqd.sock ] || fail "the socket stayed"
echo "ok: stop"
SCRIPT
machine 120
