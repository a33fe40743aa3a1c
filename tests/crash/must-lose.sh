#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# must-lose.sh KILL-ROUNDS DAEMON [OPTION]...: the positive control of kill-rounds. With a daemon
# that publishes rows before they are written, or whose memory nobody keeps, it must find a loss;
# a few runs, for it is a matter of chance when a daemon dies.
set -eu
export LC_ALL=C.UTF-8

kill_rounds=$1 daemon=$2
shift 2
for seed in 1 2 3 4 5 6 7 8; do
	out=$("$kill_rounds" --rounds 100 --seed "$seed" --daemon "$daemon" "$@" 2>/dev/null) &&
		status=0 || status=$?
	last=$(printf '%s\n' "$out" | tail -n 1)
	echo "$last"
	case $last in
	# A client that found its cache gone may end before anybody has counted: the next seed.
	"rounds "*" lost 0") ;;
	"rounds "*) [ "$status" = 1 ] && exit 0 || { echo "FAILED: status $status after a loss"; exit 1; } ;;
	*) echo "FAILED: no last line"; exit 1 ;;
	esac
done
echo "FAILED: nothing was found to be lost"
exit 1
