#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What administrators ask and change: lists of any length, sequences of any user, the log, the
# configuration; by the commands, and by the interface as it describes itself.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq python3
here=$(dirname "$0")
N=600 # more than two pages

export SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock
ctl() { "$build/client/sparqctl" "$@"; }

# is WANTED COMMAND...: what it prints.
is() {
	local wanted=$1 got
	shift
	got=$("$@" 2>&1) || true
	[ "$got" = "$wanted" ] || fail "$*: \"$got\", not \"$wanted\""
}
# refused STATUS WORDS COMMAND...
refused() {
	local wanted=$1 words=$2 status=0 got
	shift 2
	got=$("$@" 2>&1 </dev/null) || status=$?
	[ "$status" = "$wanted" ] || fail "$*: status $status, not $wanted: $got"
	[[ $got == *"$words"* ]] || fail "$*: no \"$words\" in: $got"
}

start_daemon user_sequences=2000 max_sequences=2000
mkfifo "$scratch/in"
"$build/tests/system/crowd" "$socket" chat $N 8 0 <"$scratch/in" >"$scratch/crowd" &
crowd=$!
exec 7>"$scratch/in"
eventually grep -qs ready "$scratch/crowd" || fail "no crowd: $(cat "$scratch/crowd")"

# ---- lists --------------------------------------------------------------------------

ctl sequences --json >"$scratch/all"
is $N jq length "$scratch/all"
is $N jq '[.[].id] | unique | length' "$scratch/all"
is "$(seq -f s%g 0 $((N - 1)) | sort)" sh -c "'$build/client/sparqctl' sequences --cache chat --names | LC_ALL=C sort"
is '["attached"]' jq -c '[.[].state] | unique' "$scratch/all"
is 'no sequences' ctl sequences --parked
is 'no sequences' ctl sequences --cache other
is 'no sequences' ctl sequences --user 4711
refused 2 'no such user' ctl sequences --user nosuch
refused 2 'one of these is expected: id name cache' ctl sequences --sort nosuch
is chat ctl caches --names
is "$(id -un)" ctl users --names
is "$N" jq '.[0].sequences' <(ctl caches --json)
is "$((N * 8))" jq '.[0].rows' <(ctl caches --json)
is "$N" jq '.[0].sequences' <(ctl users --json)

# ---- changes ------------------------------------------------------------------------

refused 1 'is attached to a session: end the program' ctl drop --cache chat s7
exec 7>&-
wait "$crowd"
# The daemon hears of the end of the crowd's session when its control thread gets to it.
# shellcheck disable=SC2317 # called by eventually
all_parked() { [ "$(ctl sequences --parked --json | jq length)" = $N ]; }
eventually all_parked || fail "not all are parked: $(ctl sequences --parked --json | jq length) of $N"
used() { ctl status --json | jq .pool_used_bytes; }
before=$(used)
bytes=$(jq -r '.[] | select(.name == "s7") | .bytes' "$scratch/all")
id=$(jq -r '.[] | select(.name == "s8") | .id' "$scratch/all")
is "$bytes" jq '.[0].bytes' <(ctl drop --json --cache chat s7 </dev/null)
[ "$(used)" -lt "$before" ] || fail "the pool has no more room than before"
is "$id: dropped, 20.2 KiB" ctl drop "$id"
grep -qE "uid $(id -u) dropped sequence $id \"s8\" of cache \"chat\"" "$daemon_log" || fail "no word in the log"
is $((N - 2)) jq length <(ctl sequences --json)
refused 1 'no sequence "s7" in this cache' ctl drop --cache chat s7
refused 1 'there is no cache "other"' ctl drop --cache other s9
refused 1 "there is no sequence $id" ctl drop "$id"
refused 2 'an id such as' ctl drop s9
refused 2 'is wanted' ctl drop
# One that is refused is no reason to leave the next.
refused 1 's10: dropped' ctl drop --cache chat s7 s10

is 's9: pinned' ctl pin --cache chat s9
is '["s9"]' jq -c '[.[] | select(.pinned) | .name]' <(ctl sequences --json)
is 's9: unpinned' ctl unpin --cache chat s9
is '[]' jq -c '[.[] | select(.pinned) | .name]' <(ctl sequences --json)

# On a terminal it asks.
cat >"$scratch/ask.py" <<'PYTHON'
import os, pty, sys
answer, argv, got = sys.argv[1], sys.argv[2:], b""
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
while b"[y/N]" not in got:
    got += os.read(fd, 1024)
os.write(fd, answer.encode() + b"\n")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PYTHON
refused 1 '' python3 "$scratch/ask.py" n "$build/client/sparqctl" drop --cache chat s11
is '["s11"]' jq -c '[.[] | select(.name == "s11") | .name]' <(ctl sequences --json)
refused 0 '' python3 "$scratch/ask.py" y "$build/client/sparqctl" drop --cache chat s11
is '[]' jq -c '[.[] | select(.name == "s11") | .name]' <(ctl sequences --json)
echo "ok: sequences"

is 'debug, it was info' ctl loglevel debug
refused 1 'InvalidParameter' ctl loglevel loud
is 'log_level: info, it was debug' ctl reload
is 'reloaded: nothing has changed' ctl reload
echo 'user_bytes = 512M' >>"$scratch/sparqd.conf"
is 'user_bytes: 512MiB, it was 0' ctl reload
is 536870912 jq '.[0].quota_bytes' <(ctl users --json)
sed -i 's/^pool_bytes.*/pool_bytes = 64M/' "$scratch/sparqd.conf"
refused 1 'pool_bytes runs as "128MiB", the file says "64MiB": this needs a restart' ctl reload
sed -i 's/^pool_bytes.*/pool_bytes = 128M/; s/^user_bytes.*/user_byte = 1/' "$scratch/sparqd.conf"
refused 1 '"user_byte" is not a key' ctl reload
is 536870912 jq '.[0].quota_bytes' <(ctl users --json)
echo "ok: log level, reload"

# ---- the interface --------------------------------------------------------------------

mapfile -t ids < <(ctl sequences --names)
"$here/varlink.py" "$SPARQ_CONTROL" ListSequences='{"limit": 3}' ListCaches='{"limit": 1}' \
	ListUsers='{"limit": 1}' Pin="{\"id\": \"${ids[0]}\"}" \
	Drop="{\"id\": \"${ids[1]}\"}" \
	SetLogLevel='{"level": "info"}' Status='{}' Explain='{}' SelfTest='{}' GetConfig='{}' \
	>"$scratch/interface" || fail "$(cat "$scratch/interface")"
[ "$(grep -c 'as described' "$scratch/interface")" -ge 13 ] || fail "$(cat "$scratch/interface")"
echo "ok: $(grep -c 'as described' "$scratch/interface") methods are as described"
stop_daemon
