#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparq-bench --device: its table and its JSON have every figure or the reason why not, the figures
# fit each other, answers are compared with the processor's, and of a driver that pretends it says so.
#
#   test-bench-device.sh SPARQ-BENCH MODULE
set -euo pipefail
bench=$1 module=$2
export LC_ALL=C
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export FAKE_GPU=$scratch/knobs FAKE_CUDA="memory=536870912"
: >"$FAKE_GPU"

fail() {
	echo "FAILED: $*"
	exit 1
}
command -v jq >/dev/null || { echo "no jq: skipped"; exit 77; }
run() { "$bench" --device cuda:0 --module "$module" --shrink 256 --seconds 0.001 "$@"; }

run --json >"$scratch/json" || fail "$(cat "$scratch/json")"
jq -e '.pretends == true and .copy_bytes_per_second > 0 and .l2_bytes == 1048576 and (.steps | length) == 8
	and (.date | test("^20[0-9-]*$")) and (.driver | length) > 0
	and ([.steps[] | select(.absent)] == [])
	and (.copy_bytes_per_second as $copy | all(.steps[];
		(.bytes_per_second - .bytes_read / .kernel_ms * 1000 | fabs) < 1e-6 * .bytes_per_second
		and (.percent_of_copy - 100 * .bytes_per_second / $copy | fabs) < 1e-6 * .percent_of_copy
		and .relative_error < 1e-3 and .samples >= 3 and .sets_in_turn >= 2
		and .ratio_to_dense_f16 > 0 and .step_ms > 0 and .least_kernel_ms <= .kernel_ms))
	and .steps[7].ratio_to_dense_f16 == 1 and (.steps[0].bytes_read < .steps[1].bytes_read)' "$scratch/json" >/dev/null ||
	fail "$(cat "$scratch/json")"
# Rows of the paper's setting have 32 KV heads; all are read, two bytes a number, by dense f16.
jq -e '.steps[7] | .kv_heads == 32 and .bytes_read >= .rows * .batch * 32 * 512' "$scratch/json" >/dev/null ||
	fail "$(jq .steps[7] "$scratch/json")"

! "$bench" device --device gpu0 --module "$module" 2>"$scratch/said" || fail "a device gpu0"
grep -q '"gpu0": cuda:0 to cuda:15 are allowed' "$scratch/said" || fail "$(cat "$scratch/said")"
! "$bench" device --module "$scratch/none.so" 2>"$scratch/said" || fail "a module that is not there"
grep -q 'no module: .*; --module names another' "$scratch/said" || fail "$(cat "$scratch/said")"

# The table, and what only the back end of tests can do: too little memory, wrong answers, a device that is lost.
# The kernels of the others are emulated, and slow.
case $module in *fake-backend.so) ;; *) exit 0 ;; esac
run >"$scratch/table" || fail "$(cat "$scratch/table")"
grep -q '^THIS DRIVER PRETENDS: ' "$scratch/table" || fail "it pretends, and nothing says so: $(cat "$scratch/table")"
grep -qE '^sparq  hier4 .* [0-9.]+e[-+][0-9]+$' "$scratch/table" || fail "$(cat "$scratch/table")"
[ "$(wc -l <"$scratch/table")" = 11 ] || fail "$(cat "$scratch/table")"

echo full=2 >"$FAKE_GPU"
run --json >"$scratch/json" || fail "no memory is no failure: $(cat "$scratch/json")"
jq -e 'all(.steps[]; .absent == "Cannot allocate memory" and .kernel_ms == null)' "$scratch/json" >/dev/null ||
	fail "$(cat "$scratch/json")"
echo forget=1 >"$FAKE_GPU"
! run >"$scratch/table" 2>"$scratch/said" || fail "rows that never came to the device: $(cat "$scratch/table")"
grep -q 'o is off by' "$scratch/said" || fail "$(cat "$scratch/said")"
echo lost >"$FAKE_GPU"
! run >"$scratch/table" 2>&1 || fail "a lost device: $(cat "$scratch/table")"
grep -q 'it fell off the bus' "$scratch/table" || fail "$(cat "$scratch/table")"
