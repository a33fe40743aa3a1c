#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Caches on a device, over a back end that runs the CPU's kernels in memory of its own: they answer
# as caches without one do, bit by bit, whatever happens to their sequences and to the device.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/../system/functions.sh"

knobs=$scratch/knobs
export FAKE_GPU=$knobs
module=cuda_module=$build/tests/gpu/fake-backend.so
: >"$knobs"

pair() { timeout 60 "$build/tests/gpu/pair" "$socket" "$@"; }
alike() { pair "$@" >"$scratch/out" 2>&1 || fail "$*: $(cat "$scratch/out")"; }
unlike() { ! pair "$@" >"$scratch/out" 2>&1 || fail "$*: $(cat "$scratch/out")"; }
says() { grep -q -- "$1" "$scratch/out" || fail "no \"$1\" in: $(cat "$scratch/out")"; }
logged() { eventually grep -q -- "$1" "$daemon_log" || fail "not in the log: $1"; }

# Nothing is asked of a device before a cache is.
start_daemon "$module"
alike create --device cpu
! grep -q 'is open' "$daemon_log" || fail "a device was opened for nobody"

seed=0
for format in f32 f16 hier4 int8,int4:1; do
	for policy in sparq dense window; do
		alike run --format "$format" --policy "$policy" --ops 150 --seed $((seed += 1))
	done
done
alike run --head-dim 128 --ops 400 --seed 77
logged 'cuda:0 is open: Fake'
[ "$(pair names)" = "$(printf 'cpu\ncuda:0')" ] || fail "names: $(pair names)"

# Newest rows there, older ones here, whatever becomes of them.
for policy in dense window; do
	alike run --device cuda:0,host,rows=300 --policy $policy --ops 200 --bound 1e-5 --seed $((seed += 1))
done
alike run --device cuda:0,host --ops 200 --options 'k=8000 dense_below=0' --bound 1e-5 --seed $((seed += 1))
alike run --device cuda:0,host,rows=700 --ops 200 --options 'k=8000 dense_below=0' --bound 1e-5 \
	--seed $((seed += 1))
unlike create --device cuda:0,hosts
says 'behind which ",host" and ",host,rows=N" leave older rows to the host'

# Several at once are one batch, whoever they are of.
pair run --seed 8 >"$scratch/other" 2>&1 &
other=$!
alike run --seed 9 --policy dense
wait $other || fail "beside another: $(cat "$scratch/other")"

# The comparison sees bytes that were not brought.
echo forget=400 >"$knobs"
unlike run --seed 1
says 'apart\|not a number'
: >"$knobs"

# Late answers are nobody's: the rows that were there are, and the device goes on.
echo slow_us=200000 >"$knobs"
alike until-error --timeout-us 50000
says 'Timer expired, the deadline has passed'
: >"$knobs"
alike run --seed 11 --ops 60

# What it has no kernels for is refused by name, not left to somebody else.
echo refuse >"$knobs"
unlike create
says 'Operation not supported: device "cuda:0": policy sparq: no kernels for it'
unlike create --device cuda:99
says 'device "cuda:99": cpu and cuda:0 to cuda:15 are allowed'
unlike create --device cuda:3
says 'No such device: device "cuda:3": cuda:3: the test has taken it away'
: >"$knobs"

# It is lost in the middle of steps: processors have the same rows.
(sleep 0.5 && echo lost >"$knobs") &
alike run --ops 3000 --seed 12
logged 'cuda:0 is lost: Fake 0000:a0:00.0: it fell off the bus; processors compute'
unlike create
says 'device "cuda:0" is lost until the daemon is restarted'
alike create --device cpu
stop_daemon

# Less memory than the rows take: copies make room for others, again and again.
: >"$knobs"
start_daemon "$module" device_bytes=12M
alike run --ops 200 --seed 21
echo full=5 >"$knobs"
alike run --ops 200 --seed 22
stop_daemon
echo full=0 >"$knobs"
start_daemon "$module"
alike run --ops 100 --seed 24
alike run --ops 100 --seed 25
logged 'cuda:0: rows of a step do not fit into its memory'
[ "$(grep -c 'do not fit into its memory' "$daemon_log")" = 1 ] || fail "it is said more than once"
: >"$knobs"
sleep 1.1
alike run --ops 50 --seed 23
stop_daemon

# Rows on devices have a quota of their own.
start_daemon "$module" user_device_bytes=1M
unlike run --ops 300 --seed 31
says 'No space left on device, the quota of the user'
alike run --ops 100 --device cpu
stop_daemon

# A device that is not there refuses the cache, and is there when it is.
echo absent >"$knobs"
start_daemon "$module"
unlike create
says 'No such device: device "cuda:0": cuda:0: the test has taken it away'
logged 'cuda:0 cannot be used: cuda:0: the test has taken it away'
: >"$knobs"
eventually pair create >"$scratch/out" || fail "it came, and was not found: $(cat "$scratch/out")"
stop_daemon
start_daemon cuda_module="$scratch/none.so"
unlike create
says 'No such device: device "cuda:0": no module: '
alike run --device cpu --ops 20
stop_daemon

# After a crash the rows are there, and the device is brought what it had.
daemon_options=(--keeper)
start_daemon "$module"
alike make --seed 41
for _ in 1 2; do
	child=$(pgrep -P "$daemon_pid") || fail "the keeper has no daemon"
	kill -KILL "$child"
	alike go-on --seed 41
done
[ "$(grep -c 'cuda:0 is open' "$daemon_log")" -ge 3 ] || fail "the device was not opened again"
# A restart without it: the rows are there, and processors compute.
echo absent >"$knobs"
kill -KILL "$(pgrep -P "$daemon_pid")"
alike go-on --seed 41
logged 'cuda:0 cannot be used: cuda:0: the test has taken it away; processors compute'
: >"$knobs"
