#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Caches on a device, through the CUDA back end, a driver that only pretends and the device's kernels
# on the host: they answer as caches without one do, as closely as their sums can. Slow, so only a
# little of each; test-device.sh has the rest.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/../system/functions.sh"

module=cuda_module=$build/kernels/cuda/sparq-cuda.so
pair() { timeout 100 "$build/tests/gpu/pair" "$socket" "$@"; }
alike() { pair "$@" >"$scratch/out" 2>&1 || fail "$*: $(cat "$scratch/out")"; }
unlike() { ! pair "$@" >"$scratch/out" 2>&1 || fail "$*: $(cat "$scratch/out")"; }
says() { grep -q -- "$1" "$scratch/out" || fail "no \"$1\" in: $(cat "$scratch/out")"; }
logged() { eventually grep -q -- "$1" "$daemon_log" || fail "not in the log: $1"; }

export LD_LIBRARY_PATH=$build/tests/gpu
export FAKE_CUDA="memory=268435456 lost_file=$scratch/lost"
start_daemon "$module"
seed=0
for format in f16 hier4 int8; do
	for policy in sparq dense; do
		alike run --format "$format" --policy "$policy" --ops 40 --bound 1e-4 \
			--seed $((seed += 1))
	done
done
logged 'cuda:0 is open: Fake 0 (0000:a0:00.0), 0.2 of 0.2 GiB'
unlike create --policy no-such
: >"$scratch/lost"
alike run --ops 20 --bound 1e-4
logged 'cuda:0 is lost: Fake 0 0000:a0:00.0: .*: CUDA_ERROR_LAUNCH_FAILED'
alike create --device cpu
stop_daemon

rm "$scratch/lost"
FAKE_CUDA="memory=167772160"
start_daemon "$module"
alike run --ops 20 --bound 1e-4
stop_daemon
FAKE_CUDA="graphs=0"
start_daemon "$module"
alike run --ops 20 --bound 1e-4
logged 'for copies of rows; kernels are launched one by one: cuGraphCreate: CUDA_ERROR_NOT_SUPPORTED'
stop_daemon
FAKE_CUDA="version=11080"
start_daemon "$module"
unlike create
says 'device "cuda:0": the driver supports CUDA 11.8'
logged 'cuda:0 cannot be used: the driver supports CUDA 11.8'
alike run --device cpu --ops 20
