#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The systemd units: nothing to say against them, and little exposed.
#
#   units.sh UNITS-DIRECTORY BUILT-UNITS-DIRECTORY
#
# verify only warns about a misspelt setting and exits 0: any output is a failure.
set -euo pipefail
export LC_ALL=C

usage='usage: units.sh UNITS-DIRECTORY BUILT-UNITS-DIRECTORY'
source=${1:?$usage} built=${2:?$usage}
command -v systemd-analyze >/dev/null || { echo "no systemd-analyze: skipped"; exit 77; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
complain() {
	echo "$*"
	failed=1
}

# All of ours, as they are installed, in a root of their own. ExecStart= must exist to pass.
collect() {
	local unit
	for unit in "$source"/*.socket "$source"/*.service "$built"/*.service; do
		[ ! -e "$unit" ] || sed -E 's,^(Exec[A-Za-z]*=[-+!@:]*)/[^ ]*,\1/bin/true,' "$unit" \
			>"$scratch/$(basename "$unit")"
	done
	units=("$scratch"/*.service "$scratch"/*.socket)
	for unit in "$source"/*.service.in; do
		[ -e "$scratch/$(basename "$unit" .in)" ] || complain "$(basename "$unit") was not built"
	done
}

# verified UNIT...
verified() {
	local unit output status
	for unit in "$@"; do
		status=0
		output=$(cd "$scratch" && systemd-analyze verify --man=no --recursive-errors=no \
			"./${unit##*/}" 2>&1) || status=$?
		if [ -n "$output" ] || [ "$status" != 0 ]; then
			complain "${unit##*/}: status $status: $output"
		fi
	done
}

# Each page that a unit names is ours and is there, and each unit names one.
documented() {
	local unit page
	for unit in "${units[@]}"; do
		grep -q '^Documentation=man:' "$unit" || complain "${unit##*/} names no page"
		while read -r page; do
			[ -e "$source/../man/$page" ] || complain "${unit##*/}: there is no $page"
		done < <(grep -oE 'man:[^ ]+' "$unit" | sed 's/man:\(.*\)(\(.\))/\1.\2/')
	done
}

# exposed UNIT TENTHS [DROP-IN]: at most so many tenths of exposure, and sparq-security(7) says how much.
exposed() {
	local root value entry=".It Pa $1 ${3:+No with Pa ${3##*/} }Pq"
	root=$(mktemp -d "$scratch/root.XXXXXX")
	mkdir -p "$root/etc/systemd/system/$1.d"
	cp "$scratch/$1" "$root/etc/systemd/system/"
	[ -z "${3:-}" ] || cp "$3" "$root/etc/systemd/system/$1.d/"
	if ! systemd-analyze security --root="$root" --offline=true --threshold="$2" --no-pager \
		"$1" >"$scratch/exposure" 2>&1; then
		complain "$(grep -v '✓' "$scratch/exposure")"
	fi
	value=$(awk '/Overall exposure/ { print $(NF - 2) }' "$scratch/exposure")
	grep -qxF "$entry $value" "$source/../man/sparq-security.7" ||
		complain "sparq-security.7 has no \"$entry $value\""
	echo "$(grep 'Overall exposure' "$scratch/exposure") ${3:+with ${3##*/}}"
}

# The calls that the usual filter takes away and the daemon cannot do without.
calls_are_named() {
	local call
	for call in mbind set_mempolicy get_mempolicy move_pages sched_setaffinity \
		io_uring_setup io_uring_enter io_uring_register membarrier; do
		grep -qE "^SystemCallFilter=[^~]*\\b$call\\b" "$scratch/sparqd.service" ||
			complain "sparqd.service: SystemCallFilter= does not name $call"
	done
}

collect
verified "${units[@]}"
mkdir "$scratch/sparqd.service.d"
cp "$source/gpu.conf" "$scratch/sparqd.service.d/"
verified sparqd.service
rm -r "$scratch/sparqd.service.d"
documented
for unit in "$scratch"/*.service; do
	case ${unit##*/} in
	sparqd.service | sparqd-exporter.service) exposed "${unit##*/}" 5 ;;
	*) exposed "${unit##*/}" 10 ;;
	esac
done
exposed sparqd.service 7 "$source/gpu.conf"
calls_are_named
exit $failed
