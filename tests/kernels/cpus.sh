#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# On processors with less than this one has (qemu's emulation of programs), the
# kernels choose what is there, refuse what is not, and run.
#
#   cpus.sh BUILD-DIRECTORY
#
# An instruction that the processor lacks kills the program. Skipped (77)
# without qemu-x86_64-static.
set -euo pipefail

build=$(cd "${1:?usage: cpus.sh BUILD-DIRECTORY}" && pwd)
command -v qemu-x86_64-static >/dev/null || {
	echo "SKIPPED: there is no qemu-x86_64-static (tests/deps.sh installs it)"
	exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
	echo "FAILED: $*"
	exit 1
}

# on CPU PROGRAM ARGUMENT...: under qemu, whose remarks on features it lacks are not the program's.
on() {
	local status=0
	qemu-x86_64-static -cpu "$1" "$build/$2" "${@:3}" >"$scratch/out" 2>&1 </dev/null || status=$?
	grep -v '^qemu-x86_64-static: warning' "$scratch/out" || true
	return "$status"
}

# says TEXT STATUS CPU PROGRAM ARGUMENT...: STATUS is a pattern.
says() {
	local text=$1 status=$2 got=0 out
	out=$(on "${@:3}") || got=$?
	echo "$3: ${out##*$'\n'}"
	# shellcheck disable=SC2053 # a pattern
	[[ $got == $status ]] || fail "status $got, not $status: ${*:3}: $out"
	[[ $out == *"$text"* ]] || fail "\"$text\" is expected from ${*:3}, which said: $out"
}

# Neither AVX nor SSE3: what every processor of the family has.
says ' 0 failed' 0 qemu64 tests/kernels/checkkern --random 1000
says 'scalar: 5 shapes, 0 failed' 0 qemu64 tests/kernels/test-exec --shapes 5 --seed 3
# AVX2 without AVX-512: that it runs. qemu 7.2 computes some of it otherwise than processors do
# (binary16 below 2^-14 becomes zero where the mode for f32 says so), so results are not looked at.
says 'avx2: 5 shapes' '[01]' Haswell tests/kernels/test-exec --shapes 5 --seed 3

# What is not there is refused, by whatever way it is asked for.
says 'this CPU has no avx2' 77 qemu64 tests/kernels/checkkern --isa avx2
says 'this CPU lacks avx512' 77 Haswell tests/kernels/test-exec --isa avx512
nowhere=(--socket "$scratch/s" --control "$scratch/c")
says 'isa = avx2: this CPU does not have it; it can be scalar' 1 \
	qemu64 daemon/sparqd --isa avx2 "${nowhere[@]}"
SPARQD_ISA=avx512 says 'isa = avx512: this CPU does not have it; it can be scalar, avx2' 1 \
	Haswell daemon/sparqd "${nowhere[@]}"
says 'isa = avx512: this CPU does not have it' 1 \
	qemu64 daemon/sparqd --set isa=avx512 "${nowhere[@]}"
says 'sparqd ' 0 qemu64 daemon/sparqd --version
says 'isa =' 0 qemu64 daemon/sparqd --dump-config
