#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What Tab makes of a line of sparqctl, in the shells themselves.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires python3
here=$(dirname "$0")
PATH=$build/client:$PATH

# becomes LINE WORD...: what the shell makes of it.
becomes() {
	local line=$1 got
	shift
	got=$("$here/complete.py" "$shell" "$file" "$line") || fail "$shell: $line: $got"
	[ "$got" = "$(printf '%s\n' "$@")" ] || fail "$shell: \"$line\" becomes: $got"
}

try() {
	becomes 'sparqctl expl' sparqctl explain
	becomes 'sparqctl save --rep' sparqctl save --replace
	becomes 'sparqctl load --rep' sparqctl load --rep # it does not take that
	becomes 'sparqctl help selft' sparqctl help selftest
	becomes "sparqctl load $scratch/mu" sparqctl load "$scratch/much text.seq"
	becomes "sparqctl load --socket=$scratch/mu" sparqctl load "--socket=$scratch/much text.seq"
	# What the daemon knows, by the socket on the line.
	becomes "sparqctl drop --control $control --cache cha" \
		sparqctl drop --control "$control" --cache chat
	becomes "sparqctl drop --control $control --cache chat s" \
		sparqctl drop --control "$control" --cache chat s0
	becomes 'sparqctl drop --cache chat s' sparqctl drop --cache chat s # nobody answers
	echo "ok: $shell"
}

start_daemon
control=$scratch/control.sock
export SPARQ_CONTROL=$scratch/nosuch.sock
"$build/tests/system/crowd" "$socket" chat 1 8 0 </dev/null >/dev/null || fail "no sequence"
touch "$scratch/much text.seq"
shell=bash file=$build/client/completion/sparqctl
try
command -v zsh >/dev/null || { echo "no zsh: its completion was not tried"; exit 0; }
shell=zsh file=$build/client/completion/_sparqctl
try
