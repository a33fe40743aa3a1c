#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What sparq.h declares, the map names and the library exports is the same list, and each of it has
# a man page of its name.
#
#   symbols.sh SOURCE-DIRECTORY LIBRARY
set -euo pipefail
export LC_ALL=C

source=${1:?usage: symbols.sh SOURCE-DIRECTORY LIBRARY}
library=$(realpath "${2:?usage: symbols.sh SOURCE-DIRECTORY LIBRARY}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

# same WHAT FILE WHAT FILE: complains about lines that only one of them has.
same() {
	local only
	only=$(diff "$2" "$4" | grep '^[<>]' | sed "s/^</only in $1:/; s/^>/only in $3:/") || true
	[ -z "$only" ] || { echo "$only"; failed=1; }
}

cd "$scratch"
sed -n 's/^\t\(sparq_[a-z_]*\);$/\1/p' "$source/client/libsparq.map" | sort >map
nm -D --defined-only --format=posix "$library" | sed 's/@.*//; s/ .*//' | grep -v '^SPARQ_' |
	sort >exported
# A declaration begins in the first column and ends in the same or the next line.
grep -v '^static\|^#\|^[ \t/]' "$source/client/sparq.h" |
	sed -n 's/^[a-z].*[ *]\(sparq_[a-z_]*\)(.*/\1/p' | sort >header
grep '^static inline' "$source/client/sparq.h" |
	sed -n 's/.*[ *]\(sparq_[a-z_]*\)(.*/\1/p' | sort >inline
[ -s map ] && [ -s inline ] || { echo "no symbols found in the map or the header"; exit 1; }
same "the map" map "the library" exported
same "the map" map "sparq.h" header

# The names that the pages of section 3 say they explain: .Nm lines of NAME.
for page in "$source"/man/*.3; do
	awk '/^\.Sh/ { name = $2 == "NAME" } name && $1 == ".Nm" { print $2 }' "$page"
done | grep '^sparq_' | sort >named
sort map inline >public
same "sparq.h" public "the NAME sections" named

# Each is found by man(1): a page of this name, or a link to one.
while read -r name; do
	[ -e "$source/man/$name.3" ] || grep -q "'$name'" "$source/man/meson.build" ||
		{ echo "no page is installed as $name(3)"; failed=1; }
done <public

[ "$failed" = 0 ] && echo "$(wc -l <map) symbols and $(wc -l <inline) inline functions, each with a page"
exit $failed
