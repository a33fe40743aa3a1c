#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One attack of hostile.c beside a well-behaved client: the daemon does what it
# must, survives, and the other's results are the same bits as without it.
#
#   [POOL_PARTS=N] test-hostile.sh BUILD-DIRECTORY ATTACK
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
attack=${2:?an attack: see hostile list}
seconds=${HOSTILE_SECONDS:-2} seed=${HOSTILE_SEED:-1}

start_daemon pool_parts="${POOL_PARTS:-1}"
alone=$(sum_of --seed 5 --tokens 500 --pause-us 1000)
[ -n "$alone" ] || fail "no sum"

sum_of --seed 5 --tokens 500 --pause-us 1000 >"$scratch/sum" &
witness=$!
hostile "$attack" "$seconds" "$seed" || fail "$attack (seed $seed)"
wait "$witness" || fail "$attack: the witness failed"
daemon_alive || fail "$attack: the daemon died"
[ "$(cat "$scratch/sum")" = "$alone" ] || fail "$attack: the witness got other results"
[ "$(sum_of --seed 5 --tokens 500)" = "$alone" ] || fail "$attack: other results afterwards"
stop_daemon
