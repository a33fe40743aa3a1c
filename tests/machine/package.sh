#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Debian packages: made, looked at by lintian, installed, used, upgraded, removed and purged.
#
#   package.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/functions.sh"
for tool in dpkg-buildpackage dh lintian; do
	command -v "$tool" >/dev/null || { echo "no $tool: skipped"; exit 77; }
done
packages=$("$source/tests/machine/packages" "$build/packages")
lintian --allow-root --fail-on error,warning "$packages"/*.changes ||
	{ echo "lintian complains"; exit 1; }
echo "ok: packages of which lintian has nothing to say"

# The example of libsparq(3) builds against libsparq-dev and nothing else of ours.
for name in libsparq0 libsparq-dev; do
	dpkg-deb -x "$packages/${name}"_[0-9]*.deb "$stage/development"
done
libdir=$(dirname "$(find "$stage/development" -name sparq.pc)")
flags=$(PKG_CONFIG_LIBDIR=$libdir PKG_CONFIG_SYSROOT_DIR=$stage/development \
	PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 \
	pkg-config --cflags --libs sparq)
# shellcheck disable=SC2086 # words
${CC:-cc} -o "$stage/hello" "$source/client/examples/hello.c" $flags
echo "ok: a program builds against libsparq-dev"

# The same packages as a later version: what is new is the number.
later() {
	local deb tree=$stage/later.tree
	for deb in "$stage"/debs/*.deb; do
		rm -rf "$tree"
		dpkg-deb -R "$deb" "$tree"
		sed -i -E "s/^(Version: .*)/\1+later/; s/(libsparq0 \(= [^)]*)/\1+later/" \
			"$tree/DEBIAN/control"
		dpkg-deb --root-owner-group -b "$tree" "$stage/later/" >/dev/null
	done
	rm -rf "$tree"
}
mkdir "$stage/debs" "$stage/later"
find "$packages" -name '*.deb' ! -name '*dbgsym*' -exec cp -t "$stage/debs" {} +
later
stage_program tests/system/probe # with the library of the package, not with $stage/lib
cp -r "$source/client/examples/model" "$stage/model"
example sparqd.8 'quick start' >"$stage/quick-start"
for mark in groups limit exposure; do
	example sparq-security.7 "$mark" >"$stage/$mark"
done

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
sysconfdir=/etc
apt() { DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Use-Pty=0 "$@" >/tmp/apt 2>&1 ||
	fail "apt-get $*: $(cat /tmp/apt)"; }
unit() { systemctl show -P "$1" "$2"; }
sockets() { echo "$(unit ActiveState sparqd.socket) $(unit ActiveState sparqd-control.socket)"; }

# Whoever forbids starts by policy-rc.d(8) is heard.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt install /build/debs/*.deb
[ "$(sockets)" = "inactive inactive" ] || fail "policy-rc.d says no, and the sockets are $(sockets)"
apt purge sparqd sparqd-exporter libsparq0
rm /usr/sbin/policy-rc.d
echo "ok: started nothing against policy-rc.d"

apt install /build/debs/*.deb
[ "$(sockets)" = "active active" ] || fail "after the installation the sockets are $(sockets)"
[ "$(unit UnitFileState sparqd.socket)" = enabled ] || fail "the socket is not enabled"
[ "$(show ActiveState)" = inactive ] || fail "the installation started the daemon"
[ "$(stat -c '%a %G' /run/sparqd/sparqd.sock)" = "660 sparq" ] || fail "mode of the socket"
[ "$(stat -c '%a %G' /run/sparqd/control.sock)" = "660 sparq-admin" ] || fail "control socket"
id sparqd >/dev/null || fail "no user sparqd"
systemctl enable --now sparqd.socket || fail "enable --now"
make_users
configure pool_bytes=256M catalogue_bytes=16M
echo "ok: installed; sockets wait, the daemon does not run"

# The first page that anybody reads, to the letter.
useradd -m alice && useradd -m bob
bash -x /build/quick-start >/tmp/said 2>&1 || fail "the quick start of sparqd(8): $(cat /tmp/said)"
as alice sparqctl status >/dev/null || fail "alice may not control it"
echo "ok: the quick start of sparqd(8): $(tail -n 1 /tmp/said)"
for page in groups limit exposure; do
	bash /build/$page >/tmp/said 2>&1 || fail "sparq-security(7), $page: $(cat /tmp/said)"
done
sed -i '/^user_bytes/d' /etc/sparqd/sparqd.conf
echo "ok: the examples of sparq-security(7): $(tail -n 1 /tmp/said)"

# What a new user does: a language model, as a member of sparq and of nothing else.
as user sparq-generate --model /build/model --prompt /build/model/prompt.txt \
	--check /build/model/reference.json --held-out /build/model/text-c.txt --compare --short \
	>/tmp/said 2>&1 || fail "sparq-generate: $(tail -n 20 /tmp/said)"
[ "$(show ActiveState)" = active ] || fail "the daemon is $(show ActiveState)"
echo "ok: a language model as an unprivileged user: $(grep -c . /tmp/said) lines"
as admin sparqctl status >/tmp/said || fail "sparqctl status"
echo "ok: $(head -n 1 /tmp/said)"
as user /build/hello >/tmp/said || fail "the example: $(cat /tmp/said)"
# Figures: nothing is there before somebody asks for it.
exporter=/run/sparqd-exporter/metrics.sock
[ ! -e $exporter ] || fail "the exporter was started by its installation"
systemctl enable --now sparqd-exporter.socket 2>/dev/null
as admin curl -sf --unix-socket $exporter http://localhost/metrics >/tmp/said || fail "no metrics"
grep -q '^sparq_build_info' /tmp/said || fail "metrics: $(head /tmp/said)"
as user curl -sf --unix-socket $exporter http://localhost/metrics >/dev/null && fail "a user reads all figures"
echo "ok: metrics: $(grep -vc '^#' /tmp/said) lines"

whole
begin upgraded
pid=$(show MainPID)
apt install /build/later/*.deb
[[ $(dpkg-query -W -f '${Version}' sparqd) == *+later ]] || fail "not upgraded"
[ "$(show MainPID)" != "$pid" ] || fail "the upgrade left the old daemon running"
[ "$(unit NRestarts sparqd.service)" = 0 ] || fail "it was not restarted in an orderly way"
rest upgraded
[ "$(sockets)" = "active active" ] || fail "after the upgrade the sockets are $(sockets)"
echo "ok: upgraded, with all that was kept"

systemctl stop sparqd.service
apt install --reinstall /build/later/*.deb
[ "$(show ActiveState)" = inactive ] || fail "an upgrade started a daemon that did not run"
systemctl disable --now sparqd.socket sparqd-control.socket
apt install --reinstall /build/later/*.deb
[ "$(unit UnitFileState sparqd.socket)" = disabled ] || fail "an upgrade enabled what was disabled"
systemctl enable --now sparqd.socket
echo "ok: an upgrade starts and enables nothing that was stopped or disabled"

begin removed
[ -d /var/lib/sparqd ] || fail "no state"
touch /var/lib/sparqd/something
pid=$(show MainPID)
apt remove sparqd sparqd-exporter
[ ! -d "/proc/$pid" ] || fail "the removal left the daemon running"
[ ! -e /run/sparqd/sparqd.sock ] || fail "the removal left the socket"
[ -e /var/lib/sparqd/something ] || fail "the removal took the state"
apt purge sparqd sparqd-exporter
[ ! -e /var/lib/sparqd ] || fail "the purge left the state"
[ -z "$(find /etc/systemd -name 'sparqd*')" ] || fail "the purge left: $(find /etc/systemd -name 'sparqd*')"
[ -e /etc/sparqd/sparqd.conf ] || fail "the purge took a file that is the administrator's"
[ -z "$(systemctl list-units --failed --plain --no-legend)" ] || fail "$(systemctl list-units --failed)"
echo "ok: removal stops, purge removes the state"
SCRIPT
machine 200
