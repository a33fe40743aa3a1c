#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Channel tables through the ring: a cache with them answers as one without, through forks and
# cuts; outliers make K with a few wide channels exact; who may load them, when, and what is told.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

start_daemon
before=$(probe info | grep -E '^(used|charged)')
for policy in dense sparq; do
	for dim in 64 112 192; do
		"$build/tests/system/tables" "$socket" "$policy" "$dim" || fail "$policy, $dim"
	done
done
# What a session held is given back after its connection closed.
nothing_held() { [ "$(probe info | grep -E '^(used|charged)')" = "$before" ]; }
eventually nothing_held || fail "something is still held"
stop_daemon
