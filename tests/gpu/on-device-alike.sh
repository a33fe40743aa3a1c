#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Caches on the first GPU answer as caches without one do: each format and policy, whatever happens
# to their sequences. A part of on-device.sh.
#
#   tests/gpu/on-device-alike.sh BUILD [TOOL]
#
# With TOOL the daemon runs under compute-sanitizer, whose errors are its end.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/../system/functions.sh"

tool=${2:-} ops=120
if [ -n "$tool" ]; then
	requires compute-sanitizer
	daemon_program=$scratch/sanitized
	ops=20
	cat >"$daemon_program" <<-END
		#!/bin/sh
		exec compute-sanitizer --tool $tool --error-exitcode 9 "$build/daemon/sparqd" "\$@"
	END
	chmod +x "$daemon_program"
fi

start_daemon "cuda_module=$build/kernels/cuda/sparq-cuda.so"
seed=0
for format in f32 f16 bf16 int8 int4 hier4; do
	for policy in sparq dense window; do
		timeout 300 "$build/tests/gpu/pair" "$socket" run --format "$format" --policy "$policy" \
			--ops "$ops" --bound 1e-4 --head-dim 128 --seed $((seed += 1)) >"$scratch/out" 2>&1 ||
			fail "$format, $policy: $(cat "$scratch/out")"
		echo "$format, $policy: alike"
	done
done
grep -F 'cuda:0 is open' "$daemon_log" || fail "no device was used"
! grep -F 'is lost' "$daemon_log" || fail "the device was lost"
stop_daemon
