#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The example of sparq_queue_resume(3), whose daemon is killed. A daemon that comes back with
# nothing must be told from one that kept all: in words that name what is lost.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

export SPARQ_SOCKET=$socket
example=$build/client/sparq-resume

start_daemon
whole=$("$example" 3000) || fail "the example fails"
[[ $whole == "3000 tokens, sum of o "* ]] || fail "it says $whole"

"$example" 30000000 >"$scratch/out" 2>"$scratch/said" &
client=$!
sleep 0.3
kill_daemon
sleep 0.2
start_daemon # pools and catalogue of the first one died with it
status=0
timeout 30 tail --pid="$client" -f /dev/null || fail "it hangs"
wait "$client" || status=$?
[ "$status" = 1 ] || fail "status $status: $(cat "$scratch/said")"
grep -q 'sequence 0x[0-9a-f]*: lost when the daemon ended: there is no sequence' "$scratch/said" ||
	fail "it says $(cat "$scratch/said")"
[ ! -s "$scratch/out" ] || fail "a result from half of the rows: $(cat "$scratch/out")"

# And the same program goes on with the new daemon as if there had never been another.
[ "$("$example" 3000)" = "$whole" ] || fail "another result"
stop_daemon
