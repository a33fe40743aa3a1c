#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the first person with a GPU runs: do the kernels keep the rules there, do they compute what
# processors do, and how fast are they. One report, of everything that was asked and answered.
#
#   tests/gpu/on-device.sh BUILD [REPORT]
#
# BUILD was configured with the CUDA toolkit. Exit: 0 all is well, 1 something is not (the report
# says what), 77 there is no GPU.
set -uo pipefail
usage() { sed -n '6,9s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; '') usage >&2; exit 64 ;; esac
here=$(dirname "$0") build=$1 report=${2:-on-device.txt} failed=0
module=$build/kernels/cuda/sparq-cuda.so

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null; then
	echo "no GPU that a driver knows: nothing was tried"
	exit 77
fi
if ! [ -e "$module" ]; then
	echo "$module: not built; install the CUDA toolkit and configure with -Dcuda=enabled" >&2
	exit 1
fi

# try WHAT COMMAND...: into the report, with its end.
try() {
	local what=$1 r
	shift
	printf '\n==== %s\n$ %s\n' "$what" "$*" >>"$report"
	timeout 1800 "$@" >>"$report" 2>&1
	r=$?
	printf '==== %s: exit %d\n' "$what" "$r" | tee -a "$report"
	[ $r -eq 0 ] || failed=1
}
bench() { try "$1" "$build/sparq-bench" --device cuda:0 --module "$module" "${@:2}"; }
alike() { try "$1" "$here/on-device-alike.sh" "$build" "${@:2}"; }

{
	date -u +%FT%TZ
	git -C "$here" describe --always --dirty
	uname -srm
	nvidia-smi
} >"$report" 2>&1
# First whether it keeps the rules of memory and barriers, then whether it is right, then how fast.
if command -v compute-sanitizer >/dev/null; then
	for tool in memcheck racecheck synccheck; do
		alike "$tool" "$tool"
	done
else
	echo "==== compute-sanitizer: not installed (the toolkit has it); NOT tried" | tee -a "$report"
	failed=1
fi
alike "as processors do"
bench "bench, small" --shrink 8
bench "bench"
echo "report: $report"
exit $failed
