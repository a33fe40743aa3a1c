#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# must-lose-at.sh POINTS DAEMON NAME...: a positive control of points. With a daemon that makes rows
# valid before they are written it must find a loss where it dies between the two.
set -eu
export LC_ALL=C.UTF-8

points=$1 daemon=$2
shift 2
out=$("$points" --daemon "$daemon" "$@" 2>/dev/null) && status=0 || status=$?
last=$(printf '%s\n' "$out" | tail -n 1)
echo "$last"
case $last in
"points "*" lost 0") echo "FAILED: nothing was found to be lost"; exit 1 ;;
"points "*) [ "$status" = 1 ] || { echo "FAILED: status $status after a loss"; exit 1; } ;;
*) echo "FAILED: no last line"; exit 1 ;;
esac
