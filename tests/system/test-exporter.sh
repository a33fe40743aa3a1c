#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqd-exporter from outside: what it answers, to whom, for how long; that it sleeps in between and
# outlives the daemon.
source "$(dirname "$0")/functions.sh"
requires curl python3
exporter=$build/client/sparqd-exporter
page=$(dirname "$0")/../../man/sparqd-exporter.8
[ -x "$exporter" ] || { echo "sparqd-exporter was not built (libmicrohttpd): skipped"; exit 77; }
at=$scratch/metrics.sock exporter_pid=

get() { curl -s --max-time 20 --unix-socket "$at" "$@"; }
status_of() { get -o /dev/null -w '%{http_code}' "$@"; }
figure() { get http://x/metrics | awk -v name="$1" '$1 == name { print $2 }'; }
start_exporter() { # its options
	rm -f "$at"
	"${as[@]}" "$exporter" "$@" --socket "$socket" 2>>"$scratch/exporter.log" &
	exporter_pid=$!
	eventually [ -S "$at" ] || fail "the exporter does not listen: $(cat "$scratch/exporter.log")"
}
stop_exporter() {
	local status=0
	kill -TERM "$exporter_pid"
	wait "$exporter_pid" || status=$?
	[ "$status" = 0 ] || fail "the exporter ended with $status: $(cat "$scratch/exporter.log")"
}
as=()
cleanup_fn 'kill -KILL $exporter_pid 2>/dev/null'

"$exporter" --help | grep -oE '^ +(-h, )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort >"$scratch/help"
sed -n 's/^\.It Fl \(-[a-z-]*\).*/-\1/p' "$page" | sort >"$scratch/page"
diff "$scratch/help" "$scratch/page" || fail "options of --help (<) and of sparqd-exporter(8) (>)"
for where in 0.0.0.0:0 '[::]:0' 127.0.0.1 'unix:' elsewhere:80; do
	"$exporter" --listen "$where" --socket "$socket" 2>"$scratch/said" && fail "it listens at $where"
	[ -s "$scratch/said" ] || fail "it refuses $where without a word"
done
echo "ok: options and addresses"

start_exporter --listen "unix:$at"
[ "$(stat -c %a "$at")" = 660 ] || fail "mode of its socket"
[ "$(figure sparq_up)" = 0 ] || fail "sparq_up without a daemon"
start_daemon catalogue_bytes=64M max_sequences=16384 user_sequences=16384
probe --tokens 40 run >/dev/null
[ "$(figure sparq_up)" = 1 ] || fail "sparq_up with a daemon"
[ "$(figure 'sparq_step_duration_seconds_count')" -ge 40 ] || fail "no steps: $(get http://x/metrics)"
before=$(figure sparq_generation)
kill_daemon
[ "$(figure sparq_up)" = 0 ] || fail "sparq_up after the daemon was killed"
[ -z "$(figure sparq_generation)" ] || fail "figures of a daemon that is not there"
start_daemon catalogue_bytes=64M max_sequences=16384 user_sequences=16384
[ "$(figure sparq_up)" = 1 ] || fail "sparq_up with the next daemon"
[ "$(figure sparq_generation)" != "$before" ] || fail "it shows the page of the daemon before"
echo "ok: without a daemon, with one, with the next"

# A daemon that does not answer: whoever asks for its figures waits, nobody else does.
kill -STOP "$daemon_pid"
figure sparq_up >"$scratch/hung" &
asking=$!
sleep 0.3
[ "$(get -o /dev/null -w '%{http_code} %{time_total}' http://x/-/healthy | awk '{ print ($1 == 200 && $2 < 1) }')" = 1 ] ||
	fail "/-/healthy waits for a daemon that does not answer"
wait "$asking"
kill -CONT "$daemon_pid"
[ "$(cat "$scratch/hung")" = 0 ] || fail "sparq_up of a daemon that does not answer: $(cat "$scratch/hung")"
[ "$(figure sparq_up)" = 1 ] || fail "sparq_up when it answers again"
echo "ok: a daemon that hangs"

[ "$(status_of http://x/metrics)" = 200 ] || fail "GET"
[ "$(status_of -I http://x/metrics)" = 200 ] || fail "HEAD"
[ "$(status_of http://x/-/healthy)" = 200 ] || fail "/-/healthy"
[ "$(status_of http://x/)" = 404 ] || fail "another path"
[ "$(status_of --path-as-is http://x/../metrics)" = 404 ] || fail "a path around"
[ "$(status_of -X POST -d x http://x/metrics)" = 405 ] || fail "POST"
[ "$(status_of -X DELETE http://x/metrics)" = 405 ] || fail "DELETE"
get -I -X PUT http://x/metrics | grep '^Allow: GET, HEAD' >/dev/null || fail "405 does not say what is allowed"
[ "$(status_of -H "X: $(head -c 100000 /dev/zero | tr '\0' x)" http://x/metrics)" -ge 400 ] ||
	fail "it takes headers of any size"
type_of() { get -o /dev/null -w '%{content_type}' "$@" http://x/metrics; }
[[ $(type_of) == 'text/plain; version=0.0.4'* ]] || fail "the format for anybody"
[[ $(type_of -H 'Accept: application/openmetrics-text; version=1.0.0, text/plain;q=0.5') == \
	'application/openmetrics-text; version=1.0.0'* ]] || fail "the format for Prometheus"
if command -v promtool >/dev/null; then
	get http://x/metrics | promtool check metrics || fail "promtool says no"
fi
echo "ok: requests"

# Silent clients and one that sends a byte at a time, as many as it admits; then one with a question.
cat >"$scratch/occupy" <<'SCRIPT'
import socket, sys, time
def connect():
	s = socket.socket(socket.AF_UNIX)
	s.connect(sys.argv[1])
	return s
silent = [connect() for _ in range(15)]
slow, began = connect(), time.monotonic()
print("occupied", flush=True)
try:
	for _ in range(60):
		slow.send(b"G")
		time.sleep(0.5)
except OSError:
	pass
print(f"{time.monotonic() - began:.0f}")
SCRIPT
python3 "$scratch/occupy" "$at" >"$scratch/occupied" &
occupier=$!
eventually grep -q occupied "$scratch/occupied" || fail "cannot connect sixteen times"
[ "$(status_of http://x/-/healthy)" = 200 ] || fail "sixteen clients keep all others away"
wait "$occupier"
lasted=$(tail -n 1 "$scratch/occupied")
[ "$lasted" -ge 8 ] && [ "$lasted" -le 14 ] || fail "a client that is slow on purpose lasted $lasted s"
echo "ok: a slow client is gone after $lasted s"

work() { awk '{ print $14 + $15 }' "/proc/$exporter_pid/stat"; awk '/ctxt/ { print $2 }' "/proc/$exporter_pid/status"; }
idle=$(work)
sleep 2
[ "$(work)" = "$idle" ] || fail "it works although nobody asks: $idle, then $(work)"
echo "ok: asleep between scrapes"
stop_exporter
[ ! -e "$at" ] || fail "its socket stayed"

# What a scrape takes, with ten thousand sequences; the bound leaves room for a machine at work.
mkfifo "$scratch/hold"
"$build/tests/system/many" "$socket" 10000 <"$scratch/hold" >"$scratch/many" &
exec 9>"$scratch/hold"
for ((i = 0; i < 60; i++)); do grep -q ready "$scratch/many" && break; sleep 0.5; done
grep -q ready "$scratch/many" || fail "no ten thousand sequences"
start_exporter --listen "unix:$at"
[ "$(figure sparq_sequences)" = 10000 ] || fail "$(figure sparq_sequences) sequences"
scrape_ms() { for _ in $(seq 20); do get -o /dev/null -w '%{time_total}\n' http://x/metrics; sleep 0.15; done | sort -g | awk '{ t[NR] = 1000 * $1 } END { printf "%.1f %.1f", t[1], t[int((NR + 1) / 2)] }'; }
plain=$(scrape_ms)
stop_exporter
start_exporter --listen "unix:$at" --sequences
[ "$(get http://x/metrics | grep -c '^sparq_sequence_rows{')" = 10000 ] || fail "series of sequences"
each=$(scrape_ms)
stop_exporter
echo "ok: 10 000 sequences: a scrape takes $plain ms, with a series of each $each ms (least, median)"
[ "${plain%%.*}" -lt 50 ] || fail "a scrape takes $plain ms"
exec 9>&-

if command -v systemd-socket-activate >/dev/null; then
	systemd-socket-activate -l "$at" "$exporter" --socket "$socket" 2>>"$scratch/exporter.log" &
	exporter_pid=$!
	eventually [ -S "$at" ] || fail "systemd-socket-activate does not listen"
	[ "$(figure sparq_up)" = 1 ] || fail "by a socket that is passed in"
	stop_exporter
	timeout 10 systemd-socket-activate -l 0.0.0.0:19841 "$exporter" --socket "$socket" 2>"$scratch/said" &
	activator=$!
	eventually curl -s -o /dev/null --max-time 1 http://127.0.0.1:19841/metrics || true
	wait "$activator" && fail "a public socket that is passed in is taken"
	grep -q 'other machines' "$scratch/said" || fail "it does not say why: $(cat "$scratch/said")"
	echo "ok: sockets passed in"
fi

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$scratch" && chmod 666 "$socket" && install -d -m 777 "$scratch/open"
	at=$scratch/open/metrics.sock as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	cp "$exporter" "$scratch/open/exporter" && exporter=$scratch/open/exporter
	start_exporter --listen "unix:$at"
	[ "$(status_of http://x/metrics)" = 503 ] || fail "it shows a stranger something"
	get http://x/metrics | grep 'does not show' >/dev/null || fail "503 does not say why"
	stop_exporter
	echo "ok: who may not see the figures is told so"
fi
stop_daemon
