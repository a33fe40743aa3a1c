#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two clients at once, as two processes, get what each would get alone.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

start_daemon
a=$(sum_of --seed 1)
b=$(sum_of --seed 2)
[ -n "$a$b" ] || fail "no sum"
[ "$a" != "$b" ] || fail "different inputs, the same outputs"
[ "$a" = "$(sum_of --seed 1)" ] || fail "the same inputs, other outputs"

for _ in 1 2 3; do
	sum_of --seed 1 >"$scratch/a" &
	first=$!
	sum_of --seed 2 >"$scratch/b" &
	second=$!
	wait "$first" || fail "the first failed beside the second"
	wait "$second" || fail "the second failed beside the first"
	[ "$(cat "$scratch/a")" = "$a" ] || fail "the first was disturbed by the second"
	[ "$(cat "$scratch/b")" = "$b" ] || fail "the second was disturbed by the first"
done
stop_daemon
