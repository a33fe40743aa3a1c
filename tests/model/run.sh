#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh kept|lost MODEL [-DNAME...]: searches all states of the model. "kept": no error may exist;
# "lost": a lost wake (an end state that is none) must be found, or the model could not find one in
# the code either. Exits 77 without spin.
set -eu
expect=$1
model=$(realpath "$2")
shift 2
command -v spin >/dev/null || exit 77

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
spin -a "$@" "$model"
${CC:-cc} -O1 -w -DSAFETY -DVECTORSZ=512 -o pan pan.c
./pan -m1000000 >out
grep -E '^pan:|errors:|states, stored' out
# Out of room is out of proof.
if grep -qE 'max search depth too small|out of memory' out; then
	echo "search not complete"
	exit 1
fi
case $expect in
kept) grep -q 'errors: 0$' out ;;
lost) grep -q '^pan:1: invalid end state' out ;;
*) echo "usage: run.sh kept|lost MODEL [-DNAME...]"; exit 2 ;;
esac
