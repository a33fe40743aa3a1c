#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Clients are killed, and a child of each lives on with their socket in its hands. Who restarts a
# worker that crashed relies on getting its context at once, and nobody else on getting it at all.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

start_daemon
chmod 755 "$scratch" # for the other user
chmod 666 "$socket"
"$build/tests/system/orphan" "$socket" "${ROUNDS:-20}" >"$scratch/said" || {
	status=$?
	cat "$scratch/said"
	[ "$status" = 77 ] && exit 77
	fail "status $status"
}
cat "$scratch/said"
# Far more than it takes: that a busy machine does not fail it, and waiting for a hang-up does.
worst=$(sed -n 's/.*at most \([0-9]*\) us$/\1/p' "$scratch/said" | sort -n | tail -n 1)
[ "$worst" -lt 1000000 ] || fail "it took $worst us"
stop_daemon
