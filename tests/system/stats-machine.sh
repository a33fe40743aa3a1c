#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The stats page and sparqd-bandwidth under a real systemd: who gets the figures and who does not,
# and that what has the capability has nothing else.
#
#   stats-machine.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/../machine/functions.sh"
stage_installed
stage_program tests/system/probe tests/system/stats

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
stats() { as "$1" /build/stats /run/sparqd/sparqd.sock "$2"; }
reasons() { stats root sources | cut -d: -f2- | sort -u; }

install_tree
make_users
useradd -m -G sparq,sparq-admin watcher
id sparqd-exporter >/dev/null 2>&1 || useradd -r sparqd-exporter
usermod -aG sparq sparqd-exporter
configure pool_bytes=128M catalogue_bytes=16M
systemctl enable --now sparqd.socket
probe --tokens 50 run >/dev/null

for who in root watcher sparqd-exporter; do
	stats $who sums >/tmp/sums || fail "$who does not get the figures"
	[ "$(awk '$1 == "users" && $2 > 0' /tmp/sums)" ] || fail "$who: $(cat /tmp/sums)"
	stats $who write || fail "$who can write the page"
done
echo "ok: root, an administrator and the exporter see the figures"
stats user sums 2>/tmp/said && fail "a user sees the figures of all"
grep -q 'may not see the figures of all users: root, members of sparq-admin' /tmp/said ||
	fail "the user heard: $(cat /tmp/said)"
stats admin sums 2>/tmp/said && fail "somebody outside the group sparq may connect"
grep -q 'it is for group sparq, of which uid [0-9]* is no member' /tmp/said ||
	fail "the administrator heard: $(cat /tmp/said)"
echo "ok: others are told why not"

[ "$(reasons)" = " sparqd-bandwidth does not run: systemctl start sparqd-bandwidth" ] ||
	fail "without the helper: $(reasons)"
systemctl start sparqd-bandwidth || fail "sparqd-bandwidth"
eventually test -s /run/sparqd-bandwidth/counters || fail "no file"
[ "$(stat -c '%a %U %G' /run/sparqd-bandwidth/counters)" = "640 sparqd-bandwidth sparqd" ] ||
	fail "the file is $(stat -c '%a %U %G' /run/sparqd-bandwidth/counters)"
pid=$(systemctl show -P MainPID sparqd-bandwidth)
[ "$(ps -o user= -p "$pid")" = sparqd-b+ ] || [ "$(ps -o user:20= -p "$pid")" = sparqd-bandwidth ] ||
	fail "it runs as $(ps -o user:20= -p "$pid")"
grep -q '^CapEff:	0000004000000000$' "/proc/$pid/status" ||
	fail "it may $(grep CapEff "/proc/$pid/status")"
sleep 0.2 # figures are brought up to date ten times a second at most
[ "$(reasons | wc -l)" -gt 1 ] || fail "with the helper: $(reasons)"
reasons | grep 'does not run' >/dev/null && fail "with the helper: $(reasons)"
as user cat /run/sparqd-bandwidth/counters >/dev/null 2>&1 && fail "a user reads the file"
echo "ok: with sparqd-bandwidth: $(reasons | tr '\n' ';')"
systemctl stop sparqd-bandwidth
[ "$(systemctl show -P Result sparqd-bandwidth)" = success ] || fail "its end"
[ ! -e /run/sparqd-bandwidth ] || fail "its directory stayed"
sleep 0.2
reasons | grep 'does not run' >/dev/null || fail "after the helper: $(reasons)"
echo "ok: and without it again"
SCRIPT
machine 90
