#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill-rounds under a real systemd: the installed unit, its descriptor store, its restarts.
#
#   NSPAWN_RUN=/path/to/tool systemd.sh BUILD-DIRECTORY [ROUNDS]
#
# The tool is that of tests/system/systemd.sh. Without one this test is skipped (77).
set -euo pipefail
export LC_ALL=C.UTF-8

build=$(cd "${1:?usage: systemd.sh BUILD-DIRECTORY [ROUNDS]}" && pwd)
rounds=${2:-20}
if [ -z "${NSPAWN_RUN:-}" ]; then
	echo "NSPAWN_RUN names no tool that boots systemd: skipped"
	exit 77
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
DESTDIR="$stage/tree" meson install -C "$build" --no-rebuild --quiet
cp "$build/tests/crash/kill-rounds" "$stage/"
echo "$rounds" >"$stage/rounds"
# What a bare system lacks of our dependencies comes along.
mkdir "$stage/lib"
for program in "$stage"/tree/usr/local/sbin/* "$stage/kill-rounds"; do
	LD_LIBRARY_PATH=$build/client ldd "$program" |
		awk '$1 ~ /^lib(uring|numa|json-c|xxhash|sparq)/ && $3 { print $3 }'
done | sort -u | xargs -r cp -t "$stage/lib"

cat >"$stage/inside" <<'SCRIPT'
#!/bin/bash
set -euo pipefail
fail() { echo "FAILED: $*"; journalctl -u 'sparqd*' --no-pager | tail -n 30; exit 1; }

cp -r /build/tree/. / && cp /build/lib/* /usr/local/lib/ && ldconfig
systemd-sysusers && systemd-tmpfiles --create
mkdir -p /usr/local/etc/sparqd
printf '%s\n' 'pool_bytes = 48M' 'catalogue_bytes = 4M' 'max_sequences = 1024' 'max_caches = 512' \
	'workers = 2' 'user_session_rate = 0' 'reattach_s = 1' >/usr/local/etc/sparqd/sparqd.conf
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
chmod +x "$stage/inside"
"$NSPAWN_RUN" -t "$((120 + rounds * 2))" -b "$stage" -- /build/inside
