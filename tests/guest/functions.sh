# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests in virtual machines share, outside of them. Each sources it with BUILD-DIRECTORY as
# its first argument. It has what tests/machine/functions.sh has, and
#
#   guest OPTION... -- PART ARGUMENT... [+ PART ARGUMENT...]...
#
# which boots one machine with these options of tests/machine/qemu and runs the tests of this
# directory in it that are named (PART.sh, with inside.sh), each although one before it failed:
# starting a machine takes longer than most of them. And
#
#   beside MIB ARGUMENT-OF-guest...   the same while the script goes on, where this machine has that
#                                     much memory left, else at once
#   finish                            waits for those, prints what each said, in their order, and keeps
#                                     it in $stage/said; false if one failed, ends with 77 if one was skipped
#
# $GUEST_RUN, where it is set, is used in the place of tests/machine/qemu: it takes its options and
# returns the status of its command.
# shellcheck source=tests/machine/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../machine/functions.sh"
guests=$(mktemp -d "${TMPDIR:-/tmp}/sparq-guests.XXXXXX") n_guests=0
started=()
# shellcheck disable=SC2317 # called by trap
end_guests() {
	[ "${#started[@]}" = 0 ] || kill "${started[@]}" 2>/dev/null || true
	wait
	rm -rf "$stage" "$guests"
}
trap end_guests EXIT
trap 'exit 143' INT TERM HUP

guest() {
	local options=() word part='' shown
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	shown=$(mktemp -d "$guests/shown.XXXXXX")
	cp -al "$stage/." "$source/tests/guest/inside.sh" "$shown/"
	echo 'status=0' >"$shown/parts"
	set -- "$@" +
	for word in "$@"; do
		if [ "$word" = + ]; then
			printf ' || { echo "FAILED: %s"; status=1; }\n' "$part" >>"$shown/parts"
			# shellcheck disable=SC2016 # that machine's
			printf 'echo "== %s: $SECONDS s"; SECONDS=0\n' "$part" >>"$shown/parts"
			part=
		elif [ -z "$part" ]; then
			part=$word
			cp "$source/tests/guest/$part.sh" "$shown/"
			printf 'echo "== %s"; bash /build/%s.sh' "$part" "$part" >>"$shown/parts"
		else
			printf ' %q' "$word" >>"$shown/parts"
		fi
	done
	# shellcheck disable=SC2016 # that machine's
	echo 'exit $status' >>"$shown/parts"
	set -- "${GUEST_RUN:-$source/tests/machine/qemu}" "${options[@]}" -b "$shown" -- bash /build/parts
	# In the place of a shell that is for nothing else: who ends it ends the machine.
	[ "$BASHPID" = $$ ] || exec "$@"
	"$@"
}

beside() {
	local left mib=$1
	shift
	# Emulated processors that wait for one another spin: more machines than processors only wait longer.
	while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
		wait -n || true
	done
	left=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	guest "$@" >"$guests/said.$n_guests" 2>&1 &
	started+=($!)
	n_guests=$((n_guests + 1))
	# A machine touches its memory later than the next one looks.
	[ "$left" -ge "$((mib * 2))" ] || wait "${started[-1]}" || true
}

finish() {
	local i got status=0
	for ((i = 0; i < n_guests; i++)); do
		got=0
		wait "${started[i]}" || got=$?
		cat "$guests/said.$i"
		cat "$guests/said.$i" >>"$stage/said"
		[ "$got" != 77 ] || exit 77
		[ "$got" = 0 ] || status=1
	done
	started=()
	return $status
}
