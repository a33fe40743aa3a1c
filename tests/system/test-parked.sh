#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A client dies in a step; another goes on with its sequence and gets the bits
# that the first would have got.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

start_daemon
for format in f16 hier4; do
	# 400 rows: dead in the tail, behind one sealed tile, behind two.
	whole=$(sum_of --format "$format" --tokens 400 --from 320)
	[ -n "$whole" ] || fail "no sum"
	for dead_at in 50 200 310; do
		name=$format-$dead_at
		status=0
		probe --format "$format" --name "$name" --park --tokens 400 --die-at "$dead_at" run \
			>/dev/null || status=$?
		[ "$status" = 137 ] || fail "it ended with $status"
		eventually probe --format "$format" --name "$name" --park --attach --tokens 400 \
			--from 320 run >"$scratch/rest" || fail "attach: $(cat "$scratch/rest")"
		grep -qE "attached at row ($dead_at|$((dead_at + 1)))$" "$scratch/rest" ||
			fail "acknowledged rows are missing: $(cat "$scratch/rest")"
		[ "$(awk '/^rows/ { print $4 }' "$scratch/rest")" = "$whole" ] ||
			fail "$format, dead at $dead_at: other results"
	done
done
stop_daemon
