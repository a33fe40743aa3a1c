#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What CONTRIBUTING.md asks of every file and no compiler sees.
#
#   style.sh [SOURCE-DIRECTORY]
#
# Looks at what git tracks or would; outside a checkout, at every file.
set -euo pipefail
export LC_ALL=C.UTF-8

cd "${1:-$(dirname "$0")/../..}"
failed=0

all_files() {
	if [ -e .git ]; then
		git ls-files --cached --others --exclude-standard
	else
		find . -type f ! -path './build*' -printf '%P\n'
	fi
}

# files REGEX: those whose name ends so, without recorded trees.
files() {
	all_files | grep -E "($1)\$" | grep -v '^tests/unit/fixtures/' | while read -r file; do
		if [ -f "$file" ]; then echo "$file"; fi
	done
}

# refuse RULE COMMAND...: what the command prints is a list of offences.
refuse() {
	local rule=$1 hits
	shift
	hits=$("$@" | head -n 20) || true
	[ -n "$hits" ] || return 0
	printf '%s:\n%s\n' "$rule" "$hits"
	failed=1
}

too_wide() {
	local file
	for file in "$@"; do
		expand "$file" | grep -nE '^.{101}' | sed "s,^,$file:,"
	done
}

too_long() {
	wc -l "$@" | awk '$2 != "total" && $1 > 800 { print $2 ": " $1 }'
}

mapfile -t code < <(files '\.(c|h|cu|sh)')
mapfile -t scripts < <(files '\.sh|tests/[a-z]+/[a-z]+|tests/[a-z]+|\.ci/run' | grep -v '^tests/lint/style')
mapfile -t c < <(files '\.(c|h|cu)') # a line of shell may be one long pattern
meson='(^|/)meson\.build'
other='bt|catalog|def|in|pml|py|service|socket|sysusers|tmpfiles|[1-9]'
mapfile -t signed < <(files "\.(c|h|cu|sh|$other)|$meson")
mapfile -t text < <(files "\.(c|h|cu|sh|md|$other)|$meson")
[ "${#code[@]}" -gt 0 ] || { echo "no source files in $PWD"; exit 1; }

refuse "indented with spaces" grep -nE '^ {8}' /dev/null "${code[@]}"
refuse "space at the end of a line" grep -nE '[[:space:]]+$' /dev/null "${text[@]}"
refuse "no licence line" grep -LE 'SPDX-License-Identifier: Apache-2\.0' "${signed[@]}"
refuse "longer than 100 columns" too_wide "${c[@]}"
refuse "longer than 800 lines" too_long "${code[@]}"
# grep -q ends at the first line that it looks for, and with pipefail the writer's SIGPIPE is a failure.
refuse "a pipe into grep -q: write \"grep ... >/dev/null\"" \
	grep -nE '(^|[^|])\| *grep -[A-Za-z]*q' /dev/null "${scripts[@]}"
refuse "path of one machine" \
	grep -nE '(^|[^A-Za-z0-9_.$}-])/(work|root|Users|home/[a-z]+)/' /dev/null "${text[@]}"
[ "$failed" = 0 ] && echo "${#text[@]} files: nothing to say"
exit $failed
