#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What administrators see of devices: sparqctl status, top and metrics, the control socket. Figures are
# what the device counted, what is not known is absent with its reason, and asking opens no device.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/../system/functions.sh"
requires jq

knobs=$scratch/knobs
export FAKE_GPU=$knobs SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock
module=cuda_module=$build/tests/gpu/fake-backend.so
: >"$knobs"

pair() { timeout 60 "$build/tests/gpu/pair" "$socket" "$@" >"$scratch/pair" 2>&1; }
ctl() { timeout 60 "$build/client/sparqctl" "$@"; }
# device FILTER: of the first one, as Status tells it.
device() { ctl status --json | jq -r ".devices[0]$1"; }
shown() { ctl metrics | grep -- "$1" || true; }
has() { shown "$1" | grep . >/dev/null || fail "no $1 in: $(shown '^sparq_device')"; }
value() { shown "$1" | awk '{ print $NF }'; }
settle() { sleep 0.15; } # the page is brought up to date ten times a second at most

# Who only looks opens nothing.
start_daemon "$module"
[ "$(ctl status --json | jq -c .devices)" = '[]' ] || fail "devices: $(ctl status --json)"
[ "$(ctl status | wc -l)" = 1 ] || fail "more than a sentence: $(ctl status)"
[ "$(value '^sparq_devices{state="open"}')" = 0 ] || fail "$(shown '^sparq_devices')"
ctl top --once --interval 0.1 --json | jq -e '.devices == []' >/dev/null || fail "top shows a device"
check() { ctl doctor --json | jq -r --arg n "$1" '[.checks[] | select(.name == $n)][0].'"$2"' // empty'; }
[ "$(check cuda verdict) $(check cuda text)" = 'ok the driver supports Fake 1.0' ] || fail "$(ctl doctor)"
[ -z "$(check device verdict)" ] || fail "$(ctl doctor)"
! grep -q 'cuda:0' "$daemon_log" || fail "a look has opened a device"
[ -z "$(shown '{device=')" ] || fail "$(shown '{device=')"

# One that failed says why, and has no figures.
echo absent >"$knobs"
! pair create || fail "a device that is not there"
settle
[ "$(device .state) $(device .reason)" = 'failed cuda:0: the test has taken it away' ] ||
	fail "failed: $(device '')"
[ "$(device .steps)" = null ] || fail "figures of nothing: $(device '')"
has '^sparq_device_info{device="cuda:0",.*state="failed",reason="cuda:0: the test has taken it away"} 1'
! shown '^sparq_device_[a-z_]*{device="cuda:0"' | grep -v '_beside_.* 0$' | grep -v _info >/dev/null || fail "$(shown '^sparq_device')"
[ "$(check device verdict) $(check device text)" = \
	'warning cuda:0 cannot be used: cuda:0: the test has taken it away' ] || fail "$(ctl doctor)"
# A driver that is missing or too old is a warning from then on, with what mends it.
for word in old none; do
	echo $word >"$knobs"
	[ "$(check cuda verdict)" = warning ] || fail "$word: $(ctl doctor)"
	[[ $(check cuda text) == *'the test has taken it away: caches with device=cuda:N are refused' ]] ||
		[[ $(check cuda text) == 'the driver supports Fake 0.0, and the kernels need 1.0: '* ]] ||
		fail "$word: $(ctl doctor)"
	[ ! -e /etc/debian_version ] || [[ $(check cuda remedy) == *apt-get*libcuda1* ]] || fail "$(ctl doctor)"
done
echo absent >"$knobs"
ctl status | grep '^cuda:0 failed: cuda:0: the test has taken it away$' >/dev/null || fail "$(ctl status)"
ctl status | grep '; cuda:0 cannot be used' >/dev/null || fail "the sentence: $(ctl status)"
ctl top --once --interval 0.1 | grep '^cuda:0  failed: cuda:0: the test' >/dev/null || fail "top: $(ctl top --once)"
: >"$knobs"

# An open one: what it counted is the same everywhere, and what others have counted is told apart.
sleep 1.1 # a failure is the answer for a second
pair run --ops 120 --seed 3 || fail "run: $(cat "$scratch/pair")"
settle
ctl status --json | jq '.devices[0]' >"$scratch/device"
jq -e '.device == "cuda:0" and .state == "open" and .product == "Fake" and .bus == "0000:a0:00.0"
	and .driver == "0.0" and .steps > 0 and .failed_steps == 0 and .batches > 0
	and .busy_microseconds == .batches * 1000 and .copied_bytes > 0 and .evicted_bytes == 0
	and .memory_bytes == 8589934592 and .copies_limit_bytes == 6442450944
	and .copies_bytes > 0 and .copies_bytes % 2097152 == 0
	and ([.read_bytes[]] | add) > 0 and .read_bytes.k > 0
	and .memory_busy == null and .memory_busy_reason == "the test has none"' "$scratch/device" >/dev/null ||
	fail "open: $(cat "$scratch/device")"
for of in steps_total.*done:steps batches_total:batches copied_bytes_total:copied_bytes \
	'read_bytes_total.*plane="k"':read_bytes.k 'read_bytes_total.*plane="score"':read_bytes.score \
	'memory_bytes.*state="copies"':copies_bytes; do
	[ "$(value "^sparq_device_${of%:*}")" = "$(jq ".${of##*:}" "$scratch/device")" ] ||
		fail "${of%:*}: $(shown '^sparq_device') and $(cat "$scratch/device")"
done
[ "$(value '^sparq_device_busy_seconds_total')" = \
	"$(jq '.busy_microseconds / 1e6' "$scratch/device")" ] || fail "$(shown '^sparq_device_busy')"
# All that it read is in what steps have read, and none of it in what nodes have.
jq -r '.read_bytes | to_entries[] | "\(.key) \(.value)"' "$scratch/device" |
	while read -r plane bytes; do
		all=$(ctl metrics | awk -v p="plane=\"$plane\"" \
			'/^sparq_operation_read_bytes_total/ && index($0, p) { n += $NF } END { print n + 0 }')
		near=$(ctl metrics | awk -v p="plane=\"$plane\"" \
			'/^sparq_read_bytes_total/ && index($0, p) { n += $NF } END { print n + 0 }')
		[ $((all - near)) = "$bytes" ] || fail "$plane: $all in all, $near of nodes, $bytes of the device"
	done

# How busy it is: as soon as somebody tells, within a second or two of the first who asks.
has '^sparq_device_dram_source_info{device="cuda:0",source="nvml",state="absent",reason="the test has none"} 1'
[ -z "$(shown '^sparq_device_dram_active_ratio{')" ] || fail "a figure that nobody tells"
echo busy=63 >"$knobs"
is_busy() { [ "$(value '^sparq_device_dram_active_ratio{device="cuda:0",source="nvml"}')" = 0.63 ] ||
	[[ $(value '^sparq_device_dram_active_ratio{device="cuda:0"') == 0.6[23]* ]]; }
eventually is_busy || fail "$(shown '^sparq_device_dram')"
ctl status | grep ' of 6.0 GiB in copies, .* free, memory busy 63 %, [0-9]* steps' >/dev/null || fail "$(ctl status)"
copies=$(device .copies_bytes)
[ "$(device .free_bytes)" = $((8589934592 - copies)) ] || fail "free: $(device '')"
[ "$(value '^sparq_device_memory_bytes{device="cuda:0",state="other"}')" = 0 ] ||
	fail "$(shown '^sparq_device_memory')"

# Rates of a device at work.
timeout 60 "$build/tests/gpu/pair" "$socket" run --ops 3000 --seed 4 >"$scratch/pair" 2>&1 &
working=$!
ctl top --once --json --interval 1 | jq '.devices[0]' >"$scratch/top"
jq -e '.device == "cuda:0" and .steps_per_s > 0 and .read_bytes_per_s > 0 and .busy > 0
	and .memory_busy > 0.62 and .memory_busy < 0.64' "$scratch/top" >/dev/null ||
	fail "top: $(cat "$scratch/top")"
ctl top --once --interval 0.2 | grep -E '^cuda:0 .*\[.*\] +[0-9]+ % busy, memory 63 %  [0-9.]+ MiB of 6.0 GiB' >/dev/null ||
	fail "top: $(ctl top --once)"
kill "$working" 2>/dev/null || true
wait "$working" 2>/dev/null || true

# Lost: the figures stay, what it is doing is not known any more.
echo lost >"$knobs"
pair run --ops 60 --seed 5 || fail "without it: $(cat "$scratch/pair")"
settle
[ "$(device .state) $(device .reason)" = 'lost Fake 0000:a0:00.0: it fell off the bus' ] || fail "$(device '')"
[ "$(value '^sparq_devices{state="lost"}')" = 1 ] || fail "$(shown '^sparq_devices')"
beside=$(device .beside_steps.lost)
[ "$beside" -gt 0 ] && [ "$(value '^sparq_device_beside_steps_total{.*reason="lost"}')" = "$beside" ] ||
	fail "what processors did: $(device '') $(shown '^sparq_device_beside')"
[ "$(device '.beside_read_bytes.recent')" -gt 0 ] || fail "read of nothing: $(device '')"
ctl status | grep "^cuda:0 lost: .*, $beside steps by processors without it" >/dev/null || fail "$(ctl status)"
[ "$(device .failed_steps)" -gt 0 ] || fail "no step failed: $(device '')"
[ "$(device .free_bytes)" = null ] || fail "free memory of a lost device: $(device '')"
[ -z "$(shown '^sparq_device_memory_bytes{')$(shown '^sparq_device_dram_active_ratio{')" ] ||
	fail "what is not known: $(shown '^sparq_device')"
has '^sparq_device_dram_source_info.*state="absent",reason="the device is not open"} 1'
ctl status | grep '; cuda:0 is lost' >/dev/null || fail "the sentence: $(ctl status)"
[ "$(check device verdict)" = wrong ] || fail "$(ctl doctor)"
! ctl doctor >/dev/null || fail "doctor finds nothing wrong with a lost device"
stop_daemon

# Without the module: nothing is wrong until somebody wants a device.
start_daemon cuda_module="$scratch/none.so"
if [ ! -e /proc/driver/nvidia/version ]; then
	[ "$(check cuda verdict)" = ok ] || fail "$(ctl doctor)"
	[[ $(check cuda text) == 'no module: '*'nothing here needs it' ]] || fail "$(ctl doctor)"
fi
! pair create || fail "a device without a module"
[ "$(check cuda verdict)" = warning ] || fail "$(ctl doctor)"
[[ $(check cuda remedy) == *-Dcuda=enabled* ]] || fail "$(ctl doctor)"
stop_daemon
