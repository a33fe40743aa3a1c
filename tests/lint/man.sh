#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The man pages: well formed, and true as far as a machine can tell.
#
#   man.sh SOURCE-DIRECTORY SPARQCTL SPARQD NAMES HUGEPAGES
#
# NAMES is the program of names.c. Skipped without mandoc.
set -euo pipefail
export LC_ALL=C

usage='usage: man.sh SOURCE-DIRECTORY SPARQCTL SPARQD NAMES HUGEPAGES'
source=${1:?$usage}
sparqctl=$(realpath "${2:?$usage}")
sparqd=$(realpath "${3:?$usage}")
names=$(realpath "${4:?$usage}")
hugepages=$(realpath "${5:?$usage}")
# Pages that others refer to and that are still to be written.
awaited=''

command -v mandoc >/dev/null || { echo "no mandoc: skipped"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$source/man"
pages=(*.[1-8])
[ -e "${pages[0]}" ] || { echo "no pages in $PWD"; exit 1; }
failed=0

complain() {
	echo "$*"
	failed=1
}

exists() {
	[ -e "$1" ] || [[ " $awaited " == *" $1 "* ]] ||
		{ [[ $1 == *.3 ]] && grep -q "'${1%.3}'" meson.build; }
}

well_formed() {
	mandoc -Tlint -Wwarning "${pages[@]}" >"$scratch/lint" || true
	[ ! -s "$scratch/lint" ] || complain "$(cat "$scratch/lint")"
	for page in "${pages[@]}"; do
		grep -q "'$page'" meson.build || complain "$page is not installed"
	done
}

# Each .Xr to a page of ours leads somewhere.
references() {
	local page name section
	for page in "${pages[@]}"; do
		awk '$1 == ".Xr" { print $2, $3 }' "$page" | sort -u | while read -r name section; do
			[[ $name == sparq* || $name == libsparq* ]] || continue
			exists "$name.$section" || echo "$page: $name($section) is no page of ours"
		done
	done >"$scratch/references"
	[ ! -s "$scratch/references" ] || complain "$(cat "$scratch/references")"
}

# The functions of a SYNOPSIS as declarations, which must agree with those of sparq.h.
declarations() {
	awk '
	/^\.Sh/ { synopsis = $2 == "SYNOPSIS"; next }
	!synopsis { next }
	function quoted(text, from) { # the rest of a macro line as "a" "b" -> a, b
		sub(/^[^ ]+ +/, "", text)
		gsub(/" +"/, ", ", text)
		gsub(/"/, "", text)
		return text
	}
	$1 == ".Ft" { type = quoted($0) }
	$1 == ".Fn" { name = $2; rest = quoted(substr($0, 5)); print type, name "(" rest ");" }
	$1 == ".Fo" { name = $2; arguments = "" }
	$1 == ".Fa" { arguments = arguments (arguments ? ", " : "") quoted($0) }
	$1 == ".Fc" { print type, name "(" arguments ");" }
	' "$1"
}

synopses_compile() {
	local page n=0
	for page in sparq_*.3; do
		{
			echo '#include <sparq.h>'
			declarations "$page"
		} >"$scratch/synopsis.c"
		n=$((n + $(declarations "$page" | wc -l)))
		# Not quoted: it may be words, "ccache gcc".
		${CC:-cc} -std=c11 -Wall -Werror -Wno-unused-function -I"$source/client" \
			-I"$source/shm" -fsyntax-only "$scratch/synopsis.c" 2>"$scratch/errors" ||
			complain "$page: SYNOPSIS: $(head -n 5 "$scratch/errors")"
	done
	[ "$n" -gt 30 ] || complain "only $n functions found in the synopses"
}

# One command a line, words separated by one blank.
commands() {
	tr -s ' \n' ' ' | sed 's/ *\(sparqctl \)/\n\1/g; s/ *$//' | sed '/^ *$/d; s/ *$//'
}

usage_agrees() {
	"$sparqctl" --help | commands >"$scratch/help"
	mandoc -Tascii sparqctl.1 | sed 's/.\x08//g' |
		awk '/^[A-Z]/ { synopsis = $1 == "SYNOPSIS"; next } synopsis' | commands >"$scratch/page"
	[ -s "$scratch/help" ] || complain "sparqctl --help says nothing"
	diff "$scratch/help" "$scratch/page" >"$scratch/differs" ||
		complain "sparqctl --help (<) and sparqctl(1) (>): $(cat "$scratch/differs")"
}

# Each command of sparqctl and each of its options has its paragraph, and none has one that is not there.
ctl_is_explained() {
	local kind pattern
	grep -o '^sparqctl [a-z][a-z]*' "$scratch/help" | cut -d ' ' -f 2 | sort -u >"$scratch/Cm"
	grep -oE -- '--[a-z-]+' "$scratch/help" | cut -c 2- | sort -u >"$scratch/Fl"
	for kind in Cm Fl; do
		pattern='s/^\.It '$kind' \(-*[a-z-]*\).*/\1/p'
		awk '/^\.Sh/ { on = $2 == "DESCRIPTION" } on' sparqctl.1 | sed -n "$pattern" |
			sort >"$scratch/page"
		diff "$scratch/$kind" "$scratch/page" >"$scratch/differs" ||
			complain "sparqctl --help (<) and paragraphs of sparqctl(1) (>): $(cat "$scratch/differs")"
	done
}

# options_agree PROGRAM PAGE: each option that it helps with has its paragraph, and none has one that
# is not there.
options_agree() {
	"$1" --help | grep -oE '(^| |\[)--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u >"$scratch/help"
	sed -n 's/^\.It Fl \(-[a-z-]*\).*/-\1/p' "$2" | sort >"$scratch/page"
	[ -s "$scratch/help" ] || complain "$1 --help says nothing"
	diff "$scratch/help" "$scratch/page" >"$scratch/differs" ||
		complain "$1 --help (<) and $2 (>): $(cat "$scratch/differs")"
}

# example_is_the_file PAGE FILE: the example of a page is the file that is compiled.
example_is_the_file() {
	awk -v mark=".\\\\\" client/examples/$2" '$0 == mark { found = 1 } /^\.Ed/ { found = block = 0 }
		block; found && /^\.Bd/ { block = 1 }' "$1" |
		sed 's/^\\&//; s/\\e/\\/g' >"$scratch/$2"
	diff "$scratch/$2" "$source/client/examples/$2" >"$scratch/differs" ||
		complain "the example of $1 is not $2: $(head -n 5 "$scratch/differs")"
}

# Every format, policy, parameter and key is a word of the page that explains it.
words_are_explained() {
	"$names" | sort -u >"$scratch/names"
	[ -s "$scratch/names" ] || complain "names says nothing"
	while read -r page word; do
		if [ ! -e "$page" ]; then
			[[ " $awaited " == *" $page "* ]] || complain "there is no $page"
		elif ! grep -qE "^\.(It )?[A-Z][a-z] ([^ ]+ )*$word( |\$)" "$page"; then # marked up
			complain "$page does not explain $word"
		fi
	done <"$scratch/names"
}

well_formed
references
synopses_compile
usage_agrees
ctl_is_explained
options_agree "$sparqd" sparqd.8
options_agree "$hugepages" sparqd-hugepages.8
example_is_the_file libsparq.3 hello.c
example_is_the_file sparq_queue_resume.3 resume.c
words_are_explained
[ "$failed" = 0 ] && echo "${#pages[@]} pages: nothing to say"
exit $failed
