# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests in virtual machines share, outside of them. Each sources it with BUILD-DIRECTORY as
# its first argument. It has what tests/machine/functions.sh has, and
#
#   guest OPTION... -- PART ARGUMENT... [+ PART ARGUMENT...]...
#
# which boots one machine with these options of tests/machine/qemu and runs the tests of this
# directory in it that are named (PART.sh, with inside.sh), each although one before it failed:
# starting a machine takes longer than most of them.
#
# $GUEST_RUN, where it is set, is used in the place of tests/machine/qemu: it takes its options and
# returns the status of its command.
# shellcheck source=tests/machine/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../machine/functions.sh"

guest() {
	local options=() word part=
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	cp "$source/tests/guest/inside.sh" "$stage/"
	echo 'status=0' >"$stage/parts"
	set -- "$@" +
	for word in "$@"; do
		if [ "$word" = + ]; then
			printf ' || { echo "FAILED: %s"; status=1; }\n' "$part" >>"$stage/parts"
			part=
		elif [ -z "$part" ]; then
			part=$word
			cp "$source/tests/guest/$part.sh" "$stage/"
			printf 'echo "== %s"; bash /build/%s.sh' "$part" "$part" >>"$stage/parts"
		else
			printf ' %q' "$word" >>"$stage/parts"
		fi
	done
	# shellcheck disable=SC2016 # that machine's
	echo 'exit $status' >>"$stage/parts"
	"${GUEST_RUN:-$source/tests/machine/qemu}" "${options[@]}" -b "$stage" -- bash /build/parts
}
