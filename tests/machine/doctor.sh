#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqctl doctor of an installed service: the daemon answers from within its sandbox, with systemd's
# word on the unit; who may not ask it gets the checks of a start, and the command that lets it; a
# unit that keeps nothing is found and mended. The unit for huge pages passes a container by.
#
#   doctor.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/functions.sh"
stage_installed
stage_program tests/system/probe

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
install_tree
make_users
configure pool_bytes=64M catalogue_bytes=16M
systemctl daemon-reload

# doctor STATUS USER: its output in $said. is CHECK VERDICT [TEXT].
doctor() {
	local status=0
	said=$(as "$2" sparqctl doctor 2>&1) || status=$?
	[ "$status" = "$1" ] || fail "as $2, doctor ended with $status: $said"
}
is() { grep -qE "^$2 +$1 .*${3:-}" <<<"$said" || fail "$1 is not $2: $said"; }
remedy() { awk -v n="$1" '/^ /{ if (hit) { print; exit } } { hit = $2 == n }' <<<"$said"; }

doctor 0 root
is daemon warning 'No such file'
is socket warning 'No such file'
sh -c "$(remedy socket)" 2>/dev/null || fail "not mended by: $(remedy socket)"
doctor 0 root # which starts the daemon, by its socket
[[ $said == "checked by the daemon"* ]] || fail "nobody answers: $said"
is socket ok
is kept ok 'systemd keeps the memory'
is fd-store ok '253 descriptors'
is systemd ok 'version 2'
is io-uring ok
is memory ok 'taken'
echo "ok: asked as root"

doctor 0 user
[[ $said == "checked by sparqd --check"* ]] || fail "a user outside sparq-admin asked the daemon: $said"
is daemon warning 'Permission denied'
is groups ok 'in group sparq'
[ "$(remedy daemon | xargs)" = "usermod -aG sparq-admin user" ] || fail "remedy: $(remedy daemon)"
sh -c "$(remedy daemon)"
doctor 0 user
[[ $said == "checked by the daemon"* ]] || fail "not mended: $said"
doctor 0 stranger
is groups warning 'not in group sparq'
sh -c "$(remedy groups)"
doctor 0 stranger
is groups ok
echo "ok: asked by others"

sed -i '/FileDescriptorStoreMax/d' /usr/local/lib/systemd/system/sparqd.service
systemctl daemon-reload
doctor 1 root
is fd-store wrong 'FileDescriptorStoreMax=0'
sh -c "$(remedy fd-store)" || fail "not mended by: $(remedy fd-store)"
doctor 0 root
is fd-store ok '253'
echo "ok: a unit that keeps nothing"

systemctl start sparqd-hugepages.service || fail "the unit for huge pages"
[ "$(systemctl show -P ConditionResult sparqd-hugepages.service)" = no ] ||
	fail "it ran where /sys is not to be written"
! journalctl -u sparqd --no-pager | grep -iE 'not permitted|denied|EPERM' || fail "the sandbox is in the way"
echo "ok: sparqd-hugepages.service in a container"
SCRIPT
machine 120
