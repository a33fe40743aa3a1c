#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The example of sparq_queue_resume(3), whose daemon is killed. A daemon that comes back with
# nothing must be told from one that kept all: in words that name what is lost, or by a result that
# is the same to the last digit.
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

# Under a keeper nothing is lost: the same sum, after as many deaths as come in its time.
requires pgrep
daemon_options=(--keeper)
start_daemon
"$example" 4000 >"$scratch/whole" || fail "the example fails"
"$example" 4000 >"$scratch/out" 2>"$scratch/said" &
client=$!
for delay in 0.1 0.3 0.2 0.4; do
	sleep "$delay"
	kill -0 "$client" 2>/dev/null || break
	pkill -KILL -P "$daemon_pid" || true # none: it is about to start one
done
wait "$client" || fail "status $?: $(cat "$scratch/said")"
grep -qE 'the daemon is back, with [1-9][0-9]* rows' "$scratch/said" ||
	fail "it was not struck: $(cat "$scratch/said")"
diff "$scratch/whole" "$scratch/out" || fail "another result"
eventually probe burst >/dev/null || fail "no daemon after the last kill"
stop_daemon
