#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Parked sequences go to spill_dir and come back to who attaches: with the bits that they would
# have had, whoever dies meanwhile, and with a sentence where a disk is full or a file damaged.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires pgrep

dir=$scratch/spill
status() { "$build/client/sparqctl" status --json --control "$scratch/control.sock"; }
# spill_is KEY PATTERN: of the object "spill" of the status.
spill_is() { status | tr -d ' \n' | sed 's/.*"spill":{//; s/}.*//' | grep -E "\"$1\":$2(,|\$)" >/dev/null; }
# begin NAME ARGUMENT...: the first part of a run, by a client that dies with it.
begin() {
	local got=0 name=$1
	shift
	probe --name "$name" --park --tokens 400 --die-at 310 "$@" run >/dev/null 2>&1 || got=$?
	[ "$got" = 137 ] || fail "the client ended with $got"
}
# rest NAME SUM ARGUMENT...: its second part, which must give what an undisturbed run gives.
rest() {
	local name=$1 sum=$2
	shift 2
	eventually probe --name "$name" --park --attach --tokens 400 --from 320 "$@" run \
		>"$scratch/rest" 2>&1 || fail "attach to $name: $(cat "$scratch/rest")"
	[ "$(awk '/^rows/ { print $4 }' "$scratch/rest")" = "$sum" ] || fail "$name: other results"
}
files() { find "$dir" -name '*.seq' | wc -l; }

# ---- every format -----------------------------------------------------------------------

start_daemon spill_dir="$dir" spill_idle_s=1
grep -q "spill_dir = $dir: .* of buffers" "$daemon_log" || fail "not said how files are written"
n=0
for format in f32 f16 int8 hier4; do
	sum=$(sum_of --format "$format" --tokens 400 --from 320)
	[ -n "$sum" ] || fail "no sum"
	begin "$format" --format "$format"
	n=$((n + 1))
	# All that were before are parked and idle again.
	eventually spill_is sequences "$n" || fail "$format is not spilled: $(status)"
	[ "$(files)" = "$n" ] || fail "$(files) files"
	rest "$format" "$sum" --format "$format"
	spill_is loaded_total "$n" || fail "$format was not loaded"
	echo "ok: $format"
done

# ---- damaged ------------------------------------------------------------------------------

sum=$(sum_of --tokens 400 --from 320)
begin damaged
begin sound
eventually spill_is sequences 6 || fail "not spilled: $(status)"
status | grep -E 'sentence.*sequences \([0-9.]+ GiB\) spilled' >/dev/null || fail "no word of it in the sentence"
for file in "$dir"/*.seq; do
	cp "$file" "$scratch/${file##*/}.kept"
	printf '\377' | dd of="$file" bs=1 seek=70000 conv=notrunc status=none
done
probe --name damaged --park --attach --tokens 400 run >"$scratch/said" 2>&1 && fail "damaged rows were taken"
grep -q 'seq in spill_dir: offset 4096: .* do not have their checksum' "$scratch/said" ||
	fail "it says: $(cat "$scratch/said")"
for file in "$dir"/*.seq; do
	cp "$scratch/${file##*/}.kept" "$file"
done
rest damaged "$sum"
rest sound "$sum"
echo "ok: damaged"
stop_daemon

# ---- full -----------------------------------------------------------------------------------

start_daemon spill_dir="$dir" spill_idle_s=1 spill_bytes=64K
[ "$(files)" = 0 ] || fail "files of the last daemon are still there"
begin full
sleep 2.5
spill_is sequences 0 || fail "more than spill_bytes: $(status)"
rest full "$sum"
stop_daemon
echo "ok: full"

# ---- where it cannot be -----------------------------------------------------------------------

mkdir -m 0777 "$scratch/open"
chmod 0777 "$scratch/open"
start_daemon spill_dir="$scratch/open"
grep -q 'others may write to it: chmod go-w' "$daemon_log" || fail "an open directory is taken"
stop_daemon
start_daemon spill_dir="$scratch/no/such"
grep -q "spill_dir = $scratch/no/such cannot be made" "$daemon_log" || fail "no word of it"
stop_daemon
echo "ok: where it cannot be"

# ---- killed at every point, and at any moment ---------------------------------------------------

daemon_options=(--keeper)
for point in spill_written spill_recorded spill_emptied spill_loaded spill_forgotten; do
	daemon_program=$build/tests/crash/sparqd-points
	export SPARQD_POINT=$point:1 SPARQD_POINT_FILE=$scratch/arrivals-$point
	start_daemon spill_dir="$dir" spill_idle_s=1 keeper_watchdog_s=0
	begin "$point"
	eventually spill_is sequences '[1-9]' || eventually grep -q 'signal 9' "$daemon_log" ||
		fail "$point: neither spilled nor dead: $(status)"
	rest "$point" "$sum"
	[ "$(grep -c 'was ended by signal 9' "$daemon_log")" -ge 1 ] || fail "$point was not reached"
	: >"$daemon_log"
	unset SPARQD_POINT SPARQD_POINT_FILE
	stop_daemon
	echo "ok: $point"
done
daemon_program=

start_daemon spill_dir="$dir" spill_idle_s=1 keeper_watchdog_s=0
for round in 1 2 3; do
	begin "round$round"
	sleep "1.$((round * 1543 % 1000))"
	kill -KILL "$(pgrep -P "$daemon_pid")"
	rest "round$round" "$sum"
	# While it comes back.
	begin "back$round"
	eventually spill_is sequences '[1-9]' || fail "back$round is not spilled"
	probe --name "back$round" --park --attach --tokens 312 run >/dev/null 2>&1 &
	victim=$!
	kill -KILL "$(pgrep -P "$daemon_pid")"
	kill -KILL "$victim" 2>/dev/null || true
	wait "$victim" 2>/dev/null || true
	rest "back$round" "$sum"
done
stop_daemon
echo "ok: any moment"
