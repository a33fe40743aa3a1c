#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# layout.sh PROGRAM EXPECTED HEADER: the wire is what was agreed on, and PROGRAM lists all of it.
set -eu
listing=$(mktemp)
trap 'rm -f "$listing"' EXIT
"$1" >"$listing" || { echo "a field is missing in layout.c, or there is a hole"; exit 1; }
diff -u "$2" "$listing" || { echo "the wire has changed"; exit 1; }

# Every struct and every constant of the header has a line.
sed -n 's/^struct \(sparq_[a-z_]*\) {.*/\1/p; s/^#define \(SPARQ_[A-Z0-9_]*\) .*/\1/p; s/^\t\(SPARQ_[A-Z0-9_]*\)[ ,].*/\1/p; s/^\t\(SPARQ_[A-Z0-9_]*\)$/\1/p' "$3" |
	while read -r name; do
		grep -qw "$name" "$listing" || { echo "$name is not listed"; exit 1; }
	done
