#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The man pages as a set: those that must be there are, each is found from sparqd(8) by SEE ALSO alone,
# and each option that a program's --help has is explained in its page, and no other.
#
#   pages.sh SOURCE-DIRECTORY PAGE=PROGRAM...
#
# What is in a page, man.sh looks at.
set -euo pipefail
export LC_ALL=C

cd "${1:?usage: pages.sh SOURCE-DIRECTORY PAGE=PROGRAM...}/man"
shift
# What an administrator and a programmer are promised, besides a page for each group of functions.
promised='sparqctl.1 sparqd.8 sparqd-exporter.8 sparqd-hugepages.8 sparqd-bandwidth.8 sparqd-resctrl.8 sparqd.conf.5
	sparq-sequence.5 libsparq.3 sparq-protocol.7 sparq-formats.7 sparq-policies.7 sparq-metrics.7
	sparq-numa.7 sparq-security.7 sparq-recovery.7'
# Still to be written: none of them may be there.
awaited=''
failed=0
complain() {
	echo "$*"
	failed=1
}

complete() {
	local page
	for page in $promised; do
		case " $awaited " in
		*" $page "*) [ ! -e "$page" ] || complain "$page is there: awaited in tests/lint/pages.sh" ;;
		*) [ -e "$page" ] || complain "there is no $page" ;;
		esac
	done
}

# The pages of ours that the SEE ALSO of a page names. sparq(3) is another name of libsparq(3).
see_also() {
	awk '/^\.Sh/ { see = /SEE ALSO/ } see && $1 == ".Xr" { print $2 "." $3 }' "$1" |
		sed 's/^sparq\.3$/libsparq.3/' | while read -r page; do
		[ ! -e "$page" ] || echo "$page"
	done
}

reachable() {
	local page next
	local -A found=([sparqd.8]=1)
	local -a ahead=(sparqd.8)
	while [ "${#ahead[@]}" -gt 0 ]; do
		page=${ahead[0]}
		ahead=("${ahead[@]:1}")
		for next in $(see_also "$page"); do
			[ -z "${found[$next]:-}" ] || continue
			found[$next]=1
			ahead+=("$next")
		done
	done
	for page in *.[1-8]; do
		[ -n "${found[$page]:-}" ] || complain "no SEE ALSO leads from sparqd.8 to $page"
	done
}

# options PAGE PROGRAM: what --help names and what has a paragraph are the same.
options() {
	"$2" --help 2>&1 | grep -oE -- '(^|[^a-z-])--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+' |
		sort -u >"$scratch/help"
	awk '$1 == ".It" && $2 == "Fl"' "$1" | sed 's/Fl Fl /Fl -/g' |
		grep -oE 'Fl -[a-z][a-z-]*' | sed 's/Fl /-/' | sort -u >"$scratch/page"
	[ -s "$scratch/help" ] || complain "$2 --help names no option"
	diff "$scratch/help" "$scratch/page" >"$scratch/differs" ||
		complain "$(basename "$2") --help (<) and $1 (>): $(cat "$scratch/differs")"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
complete
reachable
for pair in "$@"; do
	options "${pair%%=*}" "${pair#*=}"
done
[ "$failed" = 0 ] && echo "all pages are there and found"
exit $failed
