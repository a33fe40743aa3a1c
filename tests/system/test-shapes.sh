#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every head dimension that is allowed, through the whole daemon: what it computes for each format,
# rows that go to a file and come back, and what an explanation says. Others are refused in a
# sentence that names them.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

allowed=(64 80 96 112 128 192 256)

# explain DIM: what the daemon would do with such a cache.
explain() {
	"$build/client/sparqctl" explain --control "$scratch/control.sock" --json \
		k_dim="$1" v_dim="$1" rows=5000 2>&1
}

# through_file DIM: a sequence that was in a file goes on with the same bits.
through_file() {
	local dim=$1 want got format=hier4,int4:1
	local arguments=(--head-dim "$dim" --format "$format" --park --policy sparq)
	want=$(sum_of "${arguments[@]}" --name "whole-$dim" --tokens 700 --from 500)
	probe "${arguments[@]}" --name "half-$dim" --tokens 500 run >/dev/null
	eventually "$build/client/sparqctl" save --socket "$socket" --cache "half-$dim" \
		"half-$dim" "$scratch/$dim.seq" >"$scratch/out" 2>&1 ||
		fail "save: $(cat "$scratch/out")"
	"$build/client/sparqctl" drop --control "$scratch/control.sock" --cache "half-$dim" \
		"half-$dim" >"$scratch/out" 2>&1 || fail "drop: $(cat "$scratch/out")"
	"$build/client/sparqctl" load --socket "$socket" "$scratch/$dim.seq" >"$scratch/out" 2>&1 ||
		fail "load: $(cat "$scratch/out")"
	got=$(sum_of "${arguments[@]}" --name "half-$dim" --attach --tokens 700 --from 500)
	[ -n "$want" ] || fail "no sum"
	[ "$got" = "$want" ] || fail "head dimension $dim: not the same after a file"
}

start_daemon
for dim in "${allowed[@]}"; do
	"$build/tests/system/shapes" "$socket" "$dim" || fail "head dimension $dim"
	explain "$dim" | grep '"row_bytes"' >/dev/null || fail "explain: $(explain "$dim")"
done
through_file 112
through_file 192
for dim in 48 72 144 272; do
	out=$(explain "$dim") && fail "head dimension $dim: explained"
	grep -q "k_dim" <<<"$out" || fail "$out"
	! probe --head-dim "$dim" --tokens 1 run >"$scratch/out" || fail "head dimension $dim: taken"
done
grep -q 'k_dim=144: allowed are 64, 80, 96, 112, 128, 192, 256' <<<"$(explain 144)" ||
	fail "$(explain 144)"
stop_daemon
