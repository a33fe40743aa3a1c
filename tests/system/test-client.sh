#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The client's programs against a daemon: sparqctl, the example of libsparq(3), and a client of
# release 1 that shares no line of code with either side.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

ctl() { "$build/client/sparqctl" "$@"; }

# says WORDS COMMAND...: its output has them.
says() {
	local words=$1 output
	shift
	output=$("$@" 2>&1) || true
	grep -qF -- "$words" <<<"$output" || fail "$*: no \"$words\" in: $output"
}

# ends STATUS COMMAND...
ends() {
	local wanted=$1 status=0
	shift
	"$@" >"$scratch/output" 2>&1 || status=$?
	[ "$status" = "$wanted" ] || fail "$*: status $status, not $wanted: $(cat "$scratch/output")"
}

# shellcheck disable=SC2317 # called by eventually
nothing_left() { ctl status --json | grep '"sequences": *0,' >/dev/null; }

export SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock

# Without a daemon: a sentence that names the socket, and no hang.
ends 1 ctl selftest
ends 1 ctl status
says "$socket" ctl selftest
says "$SPARQ_CONTROL" ctl status

start_daemon
ends 0 ctl selftest
ends 0 ctl selftest --seed 7
ends 0 "$build/client/sparq-hello"
ends 0 "$build/tests/abi/old-client" "$socket"

says 'serving 0 clients' ctl status
says 'pool bytes' ctl status --all
ends 0 ctl status
says '"sentence":' ctl status --json
says 'score_dims(r=8)' ctl explain sparq r=8 rows=100000
says 'attend(' ctl explain dense heads=7 kv_heads=1
# Half a minute of work, for which the watchdog would end the daemon: its bytes are left out.
says 'attend(' ctl explain dense heads=1024 kv_heads=1 k_dim=256 v_dim=256 rows=32768 n_q=16
ends 1 ctl explain nosuch
ends 1 ctl explain sparq nosuch=1
ends 2 ctl explain rows=many
ends 2 ctl status --seed 3
ends 2 ctl nosuch
ends 2 ctl load one two
ends 2 ctl save turn-17 turn-17.seq
says '--cache name is wanted' ctl save turn-17 turn-17.seq
says 'does not take --seed' ctl status --seed 3
says 'sparqctl selftest' ctl --help
says '--replace' ctl help save
says '--replace' ctl save --help
ends 2 ctl help nosuch

# Nothing is left behind by any of them.
eventually nothing_left || fail "sequences were left behind"

# A daemon that dies in the middle of a check is a check that failed, wherever it happens.
for delay in 0.005 0.01 0.015 0.02 0.025 0.03; do
	ctl selftest >"$scratch/output" 2>&1 &
	sleep "$delay"
	kill_daemon
	status=0
	wait $! || status=$?
	[ "$status" -le 1 ] || fail "selftest ended with status $status: $(tail -n 3 "$scratch/output")"
	start_daemon
done
kill_daemon
ends 1 "$build/tests/abi/old-client" "$socket"
ends 1 ctl selftest
echo "sparqctl, hello and old-client: as their pages say"
