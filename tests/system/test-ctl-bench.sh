#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqctl bench: its bytes are those of the formats, it works for whoever may open a session, and
# leaves nothing behind.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq
export SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock
ctl() { "$build/client/sparqctl" "$@"; }

start_daemon
ctl bench --rows 4096 --seconds 0.3 --json >"$scratch/result" || fail "bench: $(cat "$scratch/result")"
# A row of f16 takes 8 heads x 256 channels x 2 bytes; fewer than two tiles are still as sent, in f32.
jq -e '.rows as $n | .policies[0] as $d | .policies[1] as $s
	| $d.policy == "dense" and $s.policy == "sparq"
	and $d.bytes_per_step >= $n * 4096 and $d.bytes_per_step <= ($n + 256) * 4096
	and ($d.bytes_per_step | . == floor) # every step reads the same
	and $s.bytes_per_step < $d.bytes_per_step and $s.bytes_per_step > 0
	and ([$d, $s] | all(.steps > 0 and .median_ms > 0 and .median_ms <= .slow_ms
		and (.read_bytes_per_s / .steps_per_s / .bytes_per_step - 1 | fabs) < 1e-9))
	and ($d | has("roofline_bytes_per_s") | not)' "$scratch/result" >/dev/null ||
	fail "$(cat "$scratch/result")"
echo "ok: bytes of the formats"

left() { ctl status --json | jq -e '.sequences == 0 and .pool_used_bytes == 0' >/dev/null; }
eventually left || fail "something is left: $(ctl status)"
status=0
ctl bench --rows 4000000 --seconds 0.1 >"$scratch/result" 2>&1 || status=$?
[ "$status" = 1 ] || fail "4 million rows fit in 128 MiB"
grep -q 'the pool of the daemon is full.*a smaller --rows' "$scratch/result" || fail "$(cat "$scratch/result")"
eventually left || fail "something is left: $(ctl status)"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	# A program of another place on the disk may not be for everybody.
	cp "$build/client/sparqctl" "$build"/client/libsparq.so.0 "$scratch"
	chmod 755 "$scratch" "$scratch/sparqctl" "$scratch/libsparq.so.0"
	chgrp nogroup "$socket"
	LD_LIBRARY_PATH=$scratch setpriv --reuid nobody --regid nogroup --clear-groups \
		"$scratch/sparqctl" bench --rows 1024 --seconds 0.1 >"$scratch/result" 2>&1 ||
		fail "not for a member of the group: $(cat "$scratch/result")"
	grep -q '^no roofline: .*' "$scratch/result" || fail "no reason: $(cat "$scratch/result")"
	echo "ok: for a member of the group: $(grep '^no roofline' "$scratch/result")"
fi
stop_daemon
