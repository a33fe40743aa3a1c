#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The kernels and their tests built for 64-bit ARM and run under qemu, on two
# CPUs: one that has all there is, and one of 2012 that has only what every
# such processor has. An instruction beyond those is a failure there.
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
on cortex-a53 golden {checkkern,checkkern-control,exec}-{scalar,neon}
on max golden checkkern-random-neon
