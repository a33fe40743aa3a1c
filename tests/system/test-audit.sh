#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Audits of a daemon that serves: what they find is in the metrics, the status and the list of caches; a
# cache that names a bound attends to all rows once an audit was beyond it, and the log says so; without
# `audit` there are none.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

far="r=1 k=1 l=0 dense_below=0 tail=select sinks=0 on_disconnect=park"

ctl() { "$build/client/sparqctl" "$1" --control "$scratch/control.sock" "${@:2}"; }
metric() { "$build/client/sparqctl" metrics --socket "$socket" | sed -n "s/^$1 //p"; }
# shellcheck disable=SC2317 # called by eventually
some_audits() { [ "$(metric 'sparq_audit_relative_error_count{policy="sparq"}')" -gt 0 ]; }
# shellcheck disable=SC2317 # called by eventually
is_beyond() { [ "$(metric sparq_audits_beyond_total)" -gt 0 ]; }

start_daemon audit=1
probe --policy sparq --options "$far" --tokens 600 --name far run >/dev/null
eventually some_audits || fail "no step was audited"
above=$(metric 'sparq_audit_most_relative_error{policy="sparq"}')
awk -v e="$above" 'BEGIN { exit !(e > 0.5) }' || fail "one row of 600 is off by $above"
left_out=$(metric 'sparq_audits_left_out_total{reason="busy"}')
[ "$left_out" -gt 0 ] || fail "each of 1200 steps in a row was audited"
is_beyond && fail "no cache has a bound"
ctl status --json | grep '"audit_most_relative_error": *[0-9]' >/dev/null || fail "the status: $(ctl status --json)"
ctl caches --json | grep '"audit_relative_error": *[0-9]' >/dev/null || fail "the caches: $(ctl caches --json)"

# Nothing is off where every row is chosen, but for what is rounded.
probe --policy sparq --options "r=64 k=4096 dense_below=0" --tokens 300 --name all run >/dev/null
probe --policy sparq --options "$far audit_max_error=0.01" --tokens 600 --name bound run >/dev/null
eventually is_beyond || fail "an error of $above is not beyond 0.01"
grep -q 'cache "bound" of uid [0-9]*: layer [01] of a sequence of [0-9]* rows was off by' "$daemon_log" ||
	fail "the log does not say so"
grep -q 'audit_max_error is 0.01: all rows are attended for 60 s' "$daemon_log" ||
	fail "the log does not say what follows"
# From then on it gives what attention over all rows gives.
before=$(metric sparq_audits_beyond_total)
bound=$(sum_of --policy sparq --options "$far audit_max_error=0.01" --tokens 700 --name bound --attach)
dense=$(sum_of --policy dense --options "sinks=0" --tokens 700 --from 600)
[ -n "$bound" ] && [ "$bound" = "$dense" ] || fail "after the audit: $bound, of all rows: $dense"
[ "$(metric sparq_audits_beyond_total)" = "$before" ] || fail "steps that attend to all rows are audited"
stop_daemon

start_daemon audit=0
probe --policy sparq --options "$far" --tokens 600 run >/dev/null
some_audits && fail "a step was audited without being asked for"
stop_daemon
