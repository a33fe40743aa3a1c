#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is parked makes room for what is used: through the ring and by calls, in the order of the
# cache, never what is pinned or in use; the limit is named when nothing can go, and status tells.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq
export SPARQ_CONTROL=$scratch/control.sock

evict() { "$build/tests/system/evict" "$socket" "$1" >"$scratch/out" || fail "$1: $(cat "$scratch/out")"; }
status() { "$build/client/sparqctl" status --json | jq -e "$1"; }

start_daemon
for run in lru wait default stays pinned; do
	evict "$run"
	cat "$scratch/out"
done
status '.evictions | map(.sequences) | add > 4' >/dev/null || fail "status counts no evictions"
status '.evictions[] | select(.limit == "budget") | .sequences >= 1' >/dev/null ||
	fail "no step has waited: $(status .evictions)"
status '(.evictions | map(.bytes) | add) == (.users | map(.evicted_bytes) | add)' >/dev/null || fail "bytes evicted do not add up: $(status .)"
status '[.caches[] | select(.name == "stays") | .pinned, .evict] == [1, "lru"]' >/dev/null ||
	fail "status does not tell of the pin: $(status .caches)"
grep -q 'evicted sequence "b" of cache "lru", uid' "$daemon_log" || fail "the log says nothing"
[ "$(status '.caches | map(.bytes) | add')" = "$(status '.users | map(.charged_bytes) | add')" ] ||
	fail "charges do not add up at rest: $(status .)"
stop_daemon

start_daemon user_bytes=8M pool_bytes=64M
evict quota
cat "$scratch/out"
stop_daemon

# Nothing is lost where there is a directory for it.
start_daemon spill_dir="$scratch/spill"
evict spill
status '.evictions | map(.sequences) | add == 0' >/dev/null || fail "something was dropped"
status '.spill.spilled_total >= 2 and .spill.loaded_total >= 2' >/dev/null || fail "nothing was spilled: $(status .spill)"
stop_daemon
