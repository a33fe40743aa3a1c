#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqctl top: its figures are what the daemon counted, on a screen, as text and as JSON; it says
# when there is nothing to be seen, and goes on when the daemon is back.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq
# The system's python knows what its packages brought, whichever comes first on the path.
for python in python3 /usr/bin/python3; do
	"$python" -c 'import pyte' 2>/dev/null && break
	python=
done
[ -n "$python" ] || { echo "no python3-pyte: skipped"; exit 77; }
here=$(dirname "$0")
export SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock
ctl() { "$build/client/sparqctl" "$@"; }

refused() {
	local wanted=$1 words=$2 status=0 got
	shift 2
	got=$("$@" 2>&1 </dev/null) || status=$?
	[ "$status" = "$wanted" ] || fail "$*: status $status, not $wanted: $got"
	[[ $got == *"$words"* ]] || fail "$*: no \"$words\" in: $got"
}
begin_crowd() {
	rm -f "$scratch/in" "$scratch/crowd"
	mkfifo "$scratch/in"
	"$build/tests/system/crowd" "$socket" chat 40 100 400 <"$scratch/in" >"$scratch/crowd" &
	crowd=$!
	exec 7>"$scratch/in"
	eventually grep -qs ready "$scratch/crowd" || fail "no crowd: $(cat "$scratch/crowd")"
}

refused 1 "$socket" ctl top --once
refused 2 'is for --once' ctl top --json
refused 2 'seconds' ctl top --interval 0
refused 2 'bytes steps saved' ctl top --once --sort nosuch

start_daemon
begin_crowd
has_screen=yes
! ctl top </dev/null 2>&1 | grep 'without curses' >/dev/null || has_screen=
if [ -n "$has_screen" ]; then
	refused 1 'no terminal; --once' ctl top
	# What one step reads: a first sample says, and the crowd's own count at the end.
	ctl top --once --json --interval 1 >"$scratch/sample"
	per_step=$(jq '.read_bytes_per_s / .steps_per_s' "$scratch/sample")
	"$python" "$here/screen.py" "$build/client/sparqctl" "$per_step" "$(id -un)" ||
		fail "the screen"
	echo "ok: screen"
fi

ctl top --once --json --interval 1 >"$scratch/sample"
ctl top --once --sort name --interval 0.5 >"$scratch/text"
grep -qE '^s0 +[^ ]+ +100 ' "$scratch/text" || fail "the text: $(cat "$scratch/text")"
exec 7>&-
wait "$crowd" || fail "$(cat "$scratch/crowd")"
read -r _ steps _ bytes < <(tail -n 1 "$scratch/crowd")
# What one thread counts in one block agrees exactly; for the rest, a step may come in between.
jq -e --argjson a "$((bytes / steps))" '
	def near($x; $y; $by): ($x - $y | fabs) <= $by;
	(3 / .seconds) as $s |
	.steps_per_s > 0 and near(.read_bytes_per_s; $a * .steps_per_s; 1e-6 * .read_bytes_per_s)
	and near(.nodes[0].read_bytes_per_s; .read_bytes_per_s; $a * $s)
	and near(.users[0].read_bytes_per_s; .read_bytes_per_s; $a * $s)
	and near(.users[0].steps_per_s; .steps_per_s; $s)
	and near([.sequences[].read_bytes_per_s] | add; .read_bytes_per_s; $a * $s)
	and near([.sequences[].steps_per_s] | add; .steps_per_s; $s)
	and (.sequences | length) == 40' "$scratch/sample" >/dev/null ||
	fail "not $((bytes / steps)) bytes a step: $(cat "$scratch/sample")"
echo "ok: a sample is what was counted"

# Another daemon begins at 0: no rate is made of the two, but of two looks at the new one.
began=$SECONDS
ctl top --once --json --interval 8 >"$scratch/sample" &
sample=$!
sleep 2 # the first look
kill_daemon
start_daemon
wait "$sample" || fail "a sample over a restart"
[ $((SECONDS - began)) -ge 15 ] || fail "a rate of looks at two daemons"
jq -e '.steps_per_s == 0 and .seconds < 12' "$scratch/sample" >/dev/null || fail "$(cat "$scratch/sample")"
echo "ok: a restart"

# The screen says that the daemon is away, and goes on with the next.
if [ -n "$has_screen" ]; then
	begin_crowd
	"$python" "$here/screen.py" "$build/client/sparqctl" away >"$scratch/seen" 7>&- &
	screen=$!
	eventually grep -qs up "$scratch/seen" || fail "no figures on the screen"
	kill_daemon
	eventually grep -qs away "$scratch/seen" || fail "the screen does not say that the daemon is away"
	exec 7>&-
	start_daemon
	begin_crowd
	wait "$screen" || fail "the screen does not go on: $(cat "$scratch/seen")"
	exec 7>&-
	wait "$crowd" || fail "$(cat "$scratch/crowd")"
	echo "ok: a restart on the screen"
fi
stop_daemon
