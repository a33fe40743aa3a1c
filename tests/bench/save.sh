#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How fast a sequence goes to a file and comes back, beside dd with the same bytes on
# the same disk in the same run.
#
#   save.sh BUILD-DIRECTORY [DIRECTORY [TOKENS]]
#
# DIRECTORY: on the disk to measure; default: where it was called. As root the page cache is
# dropped before each reading; else the figures of reading are of memory, and so marked.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/../system/functions.sh"
disk=$(cd "${2:-.}" && pwd)
tokens=${3:-200000}
place=$(mktemp -d "$disk/sparq-save.XXXXXX")
cleanup_fn "rm -rf '$place'"

ctl() {
	local command=$1
	shift
	"$build/client/sparqctl" "$command" --json --socket "$socket" "$@"
}

cold=' (from memory)'
forget() {
	sync
	if [ -w /proc/sys/vm/drop_caches ]; then echo 1 >/proc/sys/vm/drop_caches && cold=; fi
}

# timed COMMAND...: its seconds
timed() {
	local from=$EPOCHREALTIME
	"$@" >"$scratch/out" 2>&1 || fail "$*: $(cat "$scratch/out")"
	awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}

# show WHAT SECONDS
show() { awk -v what="$1" -v s="$2" -v n="$bytes" \
	'BEGIN { printf "%-32s %6.2f s  %5.2f GB/s\n", what, s, n / s / 1e9 }'; }

start_daemon pool_bytes=$((tokens * 5 / 2000 + 64))M catalogue_bytes=32M
probe --format f32 --policy window --name big --park --tokens "$tokens" run >"$scratch/out" ||
	fail "$(cat "$scratch/out")"
# A session that has just gone is still there for a moment.
eventually ctl save --cache big big "$place/first" >/dev/null || fail "save"
bytes=$(stat -c %s "$place/first")
count=$(((bytes + 1048575) / 1048576))
echo "$bytes bytes, $tokens rows of 2 layers"
for round in 1 2 3; do
	sync
	sleep 0.2
	show "$round save" "$(timed ctl save --replace --cache big big "$place/first")"
	show "$round dd conv=fsync" "$(timed dd if=/dev/zero of="$place/dd" bs=1M count=$count \
		conv=fsync)"
	show "$round dd oflag=direct conv=fsync" "$(timed dd if=/dev/zero of="$place/direct" \
		bs=1M count=$count oflag=direct conv=fsync)"
done
for round in 1 2 3; do
	stop_daemon
	start_daemon pool_bytes=$((tokens * 5 / 2000 + 64))M catalogue_bytes=32M
	forget
	seconds=$(timed ctl load "$place/first")
	show "$round load$cold" "$seconds"
	forget
	show "$round dd of=/dev/null$cold" "$(timed dd if="$place/first" of=/dev/null bs=1M)"
	forget
	show "$round dd iflag=direct" "$(timed dd if="$place/first" of=/dev/null bs=1M \
		iflag=direct)"
done
stop_daemon
