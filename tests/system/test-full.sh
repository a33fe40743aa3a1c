#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is full says so and works again afterwards: a ring, the pool, a user's quota.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

start_daemon pool_bytes=16M
probe burst || fail "burst"

alone=$(sum_of --seed 3)
short=$(sum_of --seed 3 --tokens 20)
for format in f16 hier4; do
	probe --format "$format" --policy dense fill >"$scratch/fill" ||
		fail "fill: $(cat "$scratch/fill")"
	cat "$scratch/fill"
	grep -q 'full after [1-9][0-9]* rows: No space left on device: the pool' "$scratch/fill" ||
		fail "no rows fitted, or the pool was not named"
	grep -q 'space is back' "$scratch/fill" || fail "the space did not come back"
done
[ "$(sum_of --seed 3)" = "$alone" ] || fail "another result after the pool was full"

# A full pool is one client's trouble: what another has already is not touched.
probe --format f16 --policy dense fill >/dev/null &
filler=$!
[ "$(sum_of --seed 3 --tokens 20)" = "$short" ] || fail "disturbed by a full pool"
wait "$filler" || fail "fill beside another client"
stop_daemon

start_daemon user_bytes=8M pool_bytes=64M
probe --format f16 --policy dense fill >"$scratch/quota" || fail "quota: $(cat "$scratch/quota")"
cat "$scratch/quota"
grep -q 'quota of the user is spent: user_bytes' "$scratch/quota" || fail "the quota was not named"
stop_daemon
