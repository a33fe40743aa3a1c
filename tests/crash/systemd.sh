#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill-rounds under a real systemd: the installed unit, its descriptor store, its restarts.
#
#   systemd.sh BUILD-DIRECTORY [ROUNDS]
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/../machine/functions.sh"
rounds=${2:-20}
stage_installed
stage_program tests/crash/kill-rounds
echo "$rounds" >"$stage/rounds"

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
install_tree
configure pool_bytes=48M catalogue_bytes=4M max_sequences=1024 max_caches=512 workers=2 \
	user_session_rate=0 reattach_s=1
# The unit is as it is installed, but for the time that systemd waits before a restart.
mkdir -p /etc/systemd/system/sparqd.service.d
printf '[Service]\nRestartSec=1ms\n' >/etc/systemd/system/sparqd.service.d/test.conf
systemctl daemon-reload
systemctl enable --now sparqd.socket
rounds=$(cat /build/rounds)
/build/kill-rounds --rounds "$rounds" --seed 1 --outside /run/sparqd/sparqd.sock || fail "kill-rounds"
restarts=$(systemctl show -P NRestarts sparqd.service)
[ "$restarts" -ge "$rounds" ] || fail "systemd counts $restarts restarts in $rounds rounds"
[ "$(systemctl show -P ActiveState sparqd.service)" = active ] || fail "the unit is not active"
echo "ok: $restarts restarts by systemd"
SCRIPT
machine "$((120 + rounds * 2))"
