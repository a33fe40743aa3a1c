#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon dies at every synchronisation point of saving and loading, at the first,
# second and third arrival, and another one takes up what is kept: the sequence that was saved is
# whole, the one that was loaded is there whole or not at all, and no file is there in part.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

# shellcheck disable=SC2034 # used by start_daemon
daemon_program=$build/tests/crash/sparqd-points daemon_options=(--keeper)

ctl() {
	local command=$1
	shift
	"$build/client/sparqctl" "$command" --socket "$socket" "$@"
}

arrivals() { od -An -N8 -tu8 "$scratch/arrivals" | tr -d ' '; }

# sum NAME: of tokens 600 to 700 of a sequence that has 600; it has them again afterwards.
sum() {
	probe --name "$1" --format hier4 --park --attach --tokens 700 --from 600 run >"$scratch/rest" ||
		fail "$1: $(cat "$scratch/rest")"
	grep -q 'attached at row 600$' "$scratch/rest" ||
		fail "$1: rows are missing: $(cat "$scratch/rest")"
	awk '/^rows/ { print $4 }' "$scratch/rest"
}

# one POINT TIMES: until the daemon has died there; a load or save that failed is begun again.
one() {
	local point=$1 times=$2 i
	rm -f "$scratch/arrivals" "$scratch"/*.seq
	export SPARQD_POINT=$point:$times SPARQD_POINT_FILE=$scratch/arrivals
	start_daemon
	unset SPARQD_POINT SPARQD_POINT_FILE
	probe --name s --format hier4 --park --tokens 600 run >/dev/null
	for ((i = 0; i < 6; i++)); do
		eventually ctl save --replace --cache s s "$scratch/s.seq" >"$scratch/out" 2>&1 ||
			fail "$point:$times: save: $(cat "$scratch/out")"
		# What was there already after a load that was not answered: whole, or it would
		# not go on.
		eventually loaded "l$i" || fail "$point:$times: load: $(cat "$scratch/out")"
		[ "$(arrivals)" -lt "$times" ] || break
	done
	[ "$(arrivals)" -ge "$times" ] || fail "$point: reached $(arrivals) times, not $times"
	grep -q 'signal 9' "$daemon_log" || fail "$point:$times: it did not die"
	[ -z "$(find "$scratch" -name '.sparq-*')" ] || fail "$point:$times: a part of a file"
	[ "$(sum s)" = "$want" ] || fail "$point:$times: other results of what was saved"
	[ "$(sum "l$i")" = "$want" ] || fail "$point:$times: other results of what was loaded"
	: >"$daemon_log"
	stop_daemon
}

# shellcheck disable=SC2317 # called by eventually
loaded() {
	ctl load --cache "$1" --name "$1" "$scratch/s.seq" >"$scratch/out" 2>&1 ||
		grep -q "sequence \"$1\" exists" "$scratch/out"
}

want=
start_daemon
probe --name s --format hier4 --park --tokens 600 run >/dev/null
want=$(eventually sum s)
stop_daemon
points=$(SPARQD_POINT=list "$build/tests/crash/sparqd-points" | grep '^save_')
[ -n "$points" ] || fail "no points"
for point in $points; do
	for times in 1 2 3; do
		one "$point" "$times"
	done
	echo "ok: $point"
done
