#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The kernels and their tests built for 64-bit ARM and run under qemu, on three
# CPUs: one of 2012 that has only what every such processor has, one that can
# multiply bytes besides, and one that has all there is. An instruction that a
# CPU lacks is a failure there; which of them an object may have, isa.sh checks.
#
#   neon.sh SOURCE-DIRECTORY BUILD-DIRECTORY
#
# BUILD-DIRECTORY is made where it is not there. Without a cross compiler or
# qemu this test is skipped (77).
set -euo pipefail

usage='usage: neon.sh SOURCE-DIRECTORY BUILD-DIRECTORY'
source=$(cd "${1:?$usage}" && pwd)
build=${2:?$usage}

for tool in aarch64-linux-gnu-gcc qemu-aarch64-static meson ninja; do
	command -v "$tool" >/dev/null || {
		echo "SKIPPED: there is no $tool: NOTHING OF THE ARM KERNELS IS TESTED"
		echo "(tests/deps.sh installs it)"
		exit 77
	}
done

if [ ! -e "$build/build.ninja" ]; then
	meson setup "$build" "$source" --cross-file "$source/tests/kernels/aarch64.ini" \
		-Dkernels_only=true
fi
ninja -C "$build"

# on CPU TEST...
on() {
	echo "== $1"
	QEMU_CPU=$1 meson test -C "$build" --no-rebuild --print-errorlogs "${@:2}"
}
# chosen CPU ISA: what the kernels take on it, and refuse of what is left.
chosen() {
	local out status=0
	out=$(QEMU_CPU=$1 qemu-aarch64-static "$build/tests/kernels/test-exec" --shapes 3)
	[[ ${out##*$'\n'} == "$2: 3 shapes, 0 failed" ]] || {
		echo "FAILED: not $2 on $1: $out"
		exit 1
	}
	[ "$2" = dotprod ] && return
	out=$(QEMU_CPU=$1 qemu-aarch64-static "$build/tests/kernels/test-exec" --isa dotprod) ||
		status=$?
	[ "$status" = 77 ] && [ "$out" = 'this CPU lacks dotprod' ] || {
		echo "FAILED: dotprod on $1: status $status: $out"
		exit 1
	}
}
on cortex-a53 golden {checkkern,exec}-{scalar,neon} checkkern-control-neon
on neoverse-n1 golden {checkkern,checkkern-control,exec}-dotprod
on max golden checkkern-random-{neon,dotprod}
chosen cortex-a53 neon
chosen neoverse-n1 dotprod
chosen max dotprod
"$source/tests/lint/isa.sh" "$build" aarch64-linux-gnu-objdump
