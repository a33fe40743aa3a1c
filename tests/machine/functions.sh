# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests in machines share, outside of them. Each sources it with BUILD-DIRECTORY as its
# first argument.
#
#   $build, $source    the directories; $stage is empty, for what the machine is to see as /build
#   stage_installed    $stage/tree: what "meson install" installs; $stage/lib: libraries of ours and
#                      those that a bare system lacks
#   stage_program NAME...   programs of the build directory
#   example PAGE MARK  prints the example of a man page that stands below the comment "MARK: ..."
#   machine SECONDS    runs $stage/inside in a machine, whose functions are those of inside.sh
#
# $NSPAWN_RUN, where it is set, is used in the place of tests/machine/nspawn: it takes the options
# -t, -b and -r, and returns the status of its command.
set -euo pipefail
export LC_ALL=C.UTF-8

build=$(cd "${1:?usage: $0 BUILD-DIRECTORY}" && pwd)
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
stage=$(mktemp -d "${TMPDIR:-/tmp}/sparq-machine.XXXXXX")
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage" # its users are not root
cp "$source/tests/machine/inside.sh" "$stage/"
mkdir "$stage/lib"

# Libraries that a program needs and the machine may lack, for NSPAWN_RUN names any machine.
stage_libraries() {
	local program
	for program in "$@"; do
		LD_LIBRARY_PATH=$build/client ldd "$program" |
			awk '$1 ~ /^lib(asan|ubsan|tsan|cmocka|uring|numa|json-c|xxhash|sparq|microhttpd|ncurses|tinfo)/ && $3 { print $3 }'
	done | sort -u | xargs -r cp -t "$stage/lib"
}

stage_installed() {
	DESTDIR="$stage/tree" meson install -C "$build" --no-rebuild --quiet
	stage_libraries "$stage"/tree/usr/local/sbin/* "$stage/tree/usr/local/bin/sparqctl"
}

stage_program() {
	local program
	for program in "$@"; do
		cp "$build/$program" "$stage/"
		stage_libraries "$build/$program"
	done
}

example() {
	local text
	text=$(awk -v mark="$2:" 'index($0, ".\\\" " mark) == 1 { found = 1 } /^\.Ed/ { found = block = 0 }
		block; found && /^\.Bd/ { block = 1 }' "$source/man/$1" | sed 's/^\\&//; s/\\e/\\/g')
	[ -n "$text" ] || { echo "$1 has no example \"$2\"" >&2; return 1; }
	printf 'set -e\n%s\n' "$text"
}

machine() {
	[ -e "$stage/inside" ] || { echo "nothing to run"; exit 1; }
	"${NSPAWN_RUN:-$source/tests/machine/nspawn}" -t "$1" -b "$stage" -- bash /build/inside
}
