#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparq-generate writes its text while its daemon is killed again and again, under sparqd --keeper:
# the same text, byte for byte, and the same figures as from a run that nobody disturbed. Every
# engine relies on it that a daemon's crash costs it time and nothing else.
# shellcheck source=tests/system/functions.sh
source "$(dirname "$0")/functions.sh"
requires jq pgrep
model=$(cd "$(dirname "$0")/../../client/examples/model" && pwd)
generate=$build/client/examples/sparq-generate
[ -x "$generate" ] || { echo "no OpenBLAS, no sparq-generate: skipped"; exit 77; }
kills=${KILLS:-8}

# generates [OPTION]...: the text, then what of the measured does not depend on time.
generates() {
	"$generate" --socket "$socket" --model "$model" --prompt "$model/prompt.txt" --json "$@" |
		jq -S '.rows[0] | del(.tokens_per_second, .prompt_seconds)'
}

# shellcheck disable=SC2317 # called by eventually
has_child() { [ -n "$(pgrep -P "$daemon_pid" || true)" ]; }

# shellcheck disable=SC2034 # start_daemon takes it
daemon_options=(--keeper)
start_daemon
job=(--tokens 800 --policy sparq --format hier4 --wait 30)
generates "${job[@]}" >"$scratch/whole"
[ "$(jq -r '.text | length' "$scratch/whole")" -gt 700 ] || fail "no text: $(cat "$scratch/whole")"

generates "${job[@]}" >"$scratch/struck" 2>"$scratch/said" &
client=$!
done=0
while kill -0 "$client" 2>/dev/null && [ "$done" -lt "$kills" ]; do
	sleep "0.$((RANDOM % 3 + 1))"
	# The keeper takes up to five seconds when it has to start one too often.
	eventually has_child || eventually has_child || fail "the keeper has no daemon"
	pkill -KILL -P "$daemon_pid"
	done=$((done + 1))
done
wait "$client" || fail "after $done kills: $(tail -n 3 "$scratch/said")"
back=$(grep -c "reconnected to process" "$scratch/said" || true)
[ "$back" -ge 2 ] || fail "$done kills, and it reconnected $back times: $(cat "$scratch/said")"
diff "$scratch/whole" "$scratch/struck" || fail "another text after $done kills"
echo "$done kills, $back reconnections: the same text"
eventually probe burst >/dev/null || fail "no daemon after the last kill"
stop_daemon
