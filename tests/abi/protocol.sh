#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# protocol.sh PAGE LISTING: every offset, size and number that sparq-protocol(7) gives is in the
# listing, and every message, operation and reason of the listing is in the page.
set -eu
page=$1
listing=$2
failed=0

# expect WHAT PATTERN FILE
expect() {
	grep -Eq -- "$2" "$3" || { echo "$1: not in ${3##*/}"; failed=1; }
}

# Rows of the tables of messages: ".It AT[:SIZE] Ta Va NAME[COUNT] Ta MEANING"
fields=$(sed -n 's/^\.It \([0-9]*\)\(:[0-9]*\)\{0,1\} Ta Va \([a-z_]*\).*/\1\2 \3/p' "$page")
[ "$(echo "$fields" | wc -l)" -ge 40 ] || { echo "no fields found in the page"; exit 1; }
while read -r place name; do
	at=${place%%:*}
	size=4
	case $place in *:*) size=${place#*:} ;; esac
	case $name in
	ring) size=1536 ;; # 64 places of the 24 bytes that the page says
	n_rows | n_q) continue ;;
	esac
	expect "$name at $at, $size bytes" "^ +$at +$size  $name\$" "$listing"
done <<END
$fields
END

for bytes in $(sed -n 's/.*[Rr]e\(quest\|ply\)[^0-9]*\([0-9]*\) bytes.*/\2/p' "$page"); do
	expect "a message of $bytes bytes" "^ +$bytes  struct sparq_msg" "$listing"
done

# numbers PREFIX FORMAT: each "0x.. SPARQ_PREFIX_NAME" is in the page as FORMAT with number and name.
numbers() {
	sed -n "s/^ *\(0x[0-9a-f]*\|0\)  SPARQ_$1_\([A-Z_]*\)\$/\1 \2/p" "$listing" |
		while read -r number name; do
			[ "$name" != REPLY ] && [ "$name" != COUNT ] || continue
			# shellcheck disable=SC2059 # the format is an argument
			pattern=$(printf "$2" "$((number))" "$name")
			expect "SPARQ_$1_$name" "$pattern" "$page"
			[ $failed -eq 0 ] || exit 1
		done || failed=1
}
numbers REASON '^\.It %d Ta %s Ta'
numbers OP '(^| )%d %s'
sed -n 's/^ *\(0x[0-9a-f]*\)  SPARQ_MSG_\([A-Z_]*\)$/\1 \2/p' "$listing" | while read -r number name; do
	[ "$name" = REPLY ] || grep -q "^\.Ss .*$name ($((number)))" "$page" || {
		echo "$name ($((number))) is no section of the page"
		exit 1
	}
done || failed=1
exit $failed
