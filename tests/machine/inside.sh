# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests in machines share, inside of them: "$stage/inside" sources it as /build/inside.sh.
#
#   install_tree        what stage_installed staged, with its users, as "meson install" leaves it
#   configure KEY=VALUE...   the configuration, of those alone
#   fail TEXT           ends the test, with the last of the journal
#   eventually COMMAND...   true within 10 s
#   as USER COMMAND...  with the groups that USER has
#   show PROPERTY       of sparqd.service; stored is the number of descriptors in its store
#   logged REGEX        whether sparqd's journal has it
#   probe ARGUMENT...   tests/system/probe as "user", a member of sparq and of nothing else
#   whole, begin NAME, rest NAME: a run of the probe in one piece, sets $whole; its first half, by a
#                       client that dies; its second half, which must give what the whole one gave
set -euo pipefail
export LC_ALL=C.UTF-8
sysconfdir=/usr/local/etc

fail() {
	echo "FAILED: $*"
	journalctl -u 'sparqd*' --no-pager | tail -n 30
	exit 1
}

eventually() {
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" && return 0
		sleep 0.1
	done
	return 1
}

install_tree() {
	cp -r /build/tree/. /
	cp /build/lib/* /usr/local/lib/
	ldconfig
	systemd-sysusers 2>/dev/null
	systemd-tmpfiles --create
	systemctl daemon-reload
}

# One user for each of the rights there are.
make_users() {
	useradd -m -G sparq user
	useradd -m -G sparq-admin admin
	useradd -m stranger
}

configure() {
	mkdir -p "$sysconfdir/sparqd"
	printf '%s\n' "$@" | sed 's/=/ = /' >"$sysconfdir/sparqd/sparqd.conf"
}

as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
show() { systemctl show -P "$1" sparqd.service; }
stored() { show NFileDescriptorStore; }
# Not grep -q: journalctl would die of the closed pipe, and pipefail make that a "no".
logged() { journalctl -u sparqd --no-pager | grep -E "$1" >/dev/null; }
restarts_pass() { [ "$(show NRestarts)" -gt "$1" ]; }

probe() { as user /build/probe --socket /run/sparqd/sparqd.sock "$@"; }
whole() { whole=$(probe --tokens 400 --from 320 run | awk '/^rows/ { print $4 }'); }
begin() {
	local got=0
	probe --name "$1" --park --tokens 400 --die-at 200 run >/dev/null 2>&1 || got=$?
	[ "$got" = 137 ] || fail "$1: the client ended with $got"
}
rest() {
	local out
	out=$(probe --name "$1" --park --attach --tokens 400 --from 320 run) || fail "$1: $out"
	[ "$(awk '/^rows/ { print $4 }' <<<"$out")" = "$whole" ] || fail "$1: other results: $out"
}
