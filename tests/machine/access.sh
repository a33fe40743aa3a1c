#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Who may do what, under a real systemd, and what who may not is told: sessions, control, figures;
# limits that a reload changes, and a reload that is refused; what the journal has of it.
#
#   access.sh BUILD-DIRECTORY
#
# shellcheck source=tests/machine/functions.sh
. "$(dirname "$0")/functions.sh"
stage_installed
stage_program tests/system/probe client/sparq-hello

cat >"$stage/inside" <<'SCRIPT'
. /build/inside.sh
# says TEXT COMMAND...: the command fails and says so.
says() {
	local text=$1 said
	shift
	! said=$("$@" 2>&1) || fail "it works: $*"
	[[ $said == *"$text"* ]] || fail "\"$text\" is expected of $*, which said: $said"
}
runs() { "$@" >/tmp/said 2>&1 || fail "$*: $(cat /tmp/said)"; }
# The newest line of an event, as the journal has it; NAME is that of daemon/events.def.
line() { journalctl -u sparqd MESSAGE_ID="$1" -o json --no-pager | tail -n 1; }

install_tree
make_users
configure pool_bytes=128M catalogue_bytes=16M
systemctl enable --now sparqd.socket 2>/dev/null
session=/run/sparqd/sparqd.sock control=/run/sparqd/control.sock

# ---- sessions: group sparq, by libsparq's sentence and by sparqctl's -------------------------
runs as user /build/sparq-hello
[ "$(show ActiveState)" = active ] || fail "the daemon is $(show ActiveState)"
[[ $(show StatusText) == serving* ]] || fail "STATUS= is: $(show StatusText)"
id=$(id -u stranger)
says "$session: Permission denied: it is for group sparq, of which uid $id is no member (usermod -aG sparq" \
	as stranger /build/sparq-hello
says "it is for group sparq, " as admin sparqctl selftest
echo "ok: sessions are for members of sparq, others hear which group"

# ---- control: group sparq-admin, without any right to sessions -------------------------------
runs as admin sparqctl status
runs as admin sparqctl users
says "$control: Permission denied: it is for group sparq-admin, of which uid $(id -u user)" \
	as user sparqctl status
says "it is for group sparq-admin, " as stranger sparqctl reload
echo "ok: control is for members of sparq-admin: $(as admin sparqctl status | head -n 1)"

# ---- figures of all users: not for those whose figures they are -------------------------------
useradd -m -G sparq,sparq-admin both
runs as both sparqctl metrics
grep -q '^sparq_' /tmp/said || fail "no metrics: $(head -n 5 /tmp/said)"
says "may not see the figures of all users" as user sparqctl metrics
echo "ok: the stats page is for administrators"

# ---- a limit that a reload brings, and takes away ---------------------------------------------
configure pool_bytes=128M catalogue_bytes=16M user_sessions=many
says "sparqd.conf:3: user_sessions" as admin sparqctl reload
configure pool_bytes=128M catalogue_bytes=16M user_bytes=8K
runs as admin sparqctl reload
says "of its 8192 bytes" as user /build/sparq-hello
logged 'reloaded /usr/local/etc/sparqd/sparqd.conf' || fail "the journal has no word of the reload"
configure pool_bytes=128M catalogue_bytes=16M
systemctl reload sparqd || fail "systemctl reload"
eventually as user /build/sparq-hello >/dev/null 2>&1 || fail "the limit stayed"
echo "ok: a reload changes what a user may hold"

# ---- a reload that is refused: who asked hears it, and the journal ----------------------------
pid=$(show MainPID)
configure pool_bytes=256M catalogue_bytes=16M user_bytes=8K
says "pool_bytes" as admin sparqctl reload
runs as user /build/sparq-hello # none of the file is in force
refused=$(line 56561758a9f0444388f1f825343276fc)
[[ $(jq -r .MESSAGE <<<"$refused") == "not reloaded: "*pool_bytes* ]] || fail "the journal: $refused"
[ "$(jq -r .PRIORITY <<<"$refused")" -le 4 ] || fail "it is no warning: $refused"
[ "$(jq -r .SYSLOG_IDENTIFIER <<<"$refused")" = sparqd ] || fail "whose line is it: $refused"
[ "$(show MainPID)" = "$pid" ] || fail "another daemon"
configure pool_bytes=128M catalogue_bytes=16M
echo "ok: a refused reload says why: $(jq -r .MESSAGE <<<"$refused")"

# ---- journalctl -x explains it, from the catalogue that is installed ---------------------------
cp /usr/local/lib/systemd/catalog/sparqd.catalog /usr/lib/systemd/catalog/
journalctl --update-catalog
journalctl -u sparqd -x --no-pager >/tmp/said
grep -q 'Subject: The configuration was not taken over' /tmp/said || fail "journalctl -x explains nothing"
echo "ok: the catalogue explains our lines"
SCRIPT
machine 120
