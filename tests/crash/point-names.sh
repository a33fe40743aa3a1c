#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# point-names.sh SPARQD-POINTS SPARQD: the list of points is that of the sources' names, none
# twice; what is no point is refused; the installed daemon has none.
set -eu
export LC_ALL=C.UTF-8

daemon=$(dirname "$0")/../../daemon
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

SPARQD_POINT=list "$1" | sort >"$scratch/have"
grep -ho 'POINT([a-z0-9_]*)' "$daemon"/*.c | sed 's/POINT(\(.*\))/\1/' | sort >"$scratch/want"
cmp "$scratch/have" "$scratch/want" || fail "the list and the sources differ"
[ -s "$scratch/have" ] || fail "no points"
[ -z "$(uniq -d "$scratch/have")" ] || fail "twice: $(uniq -d "$scratch/have")"

status=0
SPARQD_POINT=no_such_point:1 "$1" --version >"$scratch/out" 2>&1 || status=$?
[ "$status" = 2 ] || fail "an unknown point ended with status $status"
SPARQD_POINT=list "$2" --version | grep '^sparqd ' >/dev/null || fail "the installed daemon has points"
echo "$(wc -l <"$scratch/have") points"
