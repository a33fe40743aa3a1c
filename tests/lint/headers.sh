#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# headers.sh ROOT BUILD: each header compiles alone; the installed ones by any compiler of a user.
# Passed over: stages and fast paths, which are templates over a codec that a format file defines
# before it includes them, and whatever has no "#pragma once", which is included for its text.
set -eu
root=$1
build=$2
# Words, "ccache gcc" for one: not quoted below.
cc=${CC:-cc}
cxx=${CXX:-c++}
# Where the headers of libraries lie; one that is not there is not included either.
libraries=$(for library in json-c libsystemd libmicrohttpd liburing libxxhash; do
	pkg-config --cflags "$library" 2>/dev/null || true
done)
cuda=$(for at in "$(dirname "$(command -v nvcc)")/.." /usr/local/cuda; do
	[ -e "$at/include/cuda.h" ] && echo "-isystem$at/include" && break
done || true)
failed=0

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# compiles HEADER COMPILER FLAGS...
compiles() {
	header=$1
	shift
	unit=$dir/unit.c
	case "$*" in *c++*) unit=$dir/unit.cc ;; esac
	# Twice: the guard works.
	printf '#include "%s"\n#include "%s"\nextern int not_empty;\n' "$header" "$header" >"$unit"
	"$@" -Wall -Wextra -Werror -fsyntax-only "$unit"
}

check() {
	compiles "$@" || { echo "does not compile alone: $*"; failed=1; }
}

installed='sparq-abi.h sparq.h'
for header in $installed; do
	for std in c99 c11 c17; do
		check "$header" $cc "-std=$std" -pedantic "-I$root/shm" "-I$root/client"
	done
	if command -v $cxx >/dev/null; then
		for std in c++11 c++17; do
			check "$header" $cxx "-std=$std" -pedantic "-I$root/shm" "-I$root/client"
		done
	fi
done

private=$(cd "$root" && find shm numa kernels daemon client tests -name '*.h' \
	! -path client/sparq.h ! -path shm/sparq-abi.h | sort)
[ "$(echo "$private" | wc -l)" -ge 10 ] || { echo "headers not found under $root"; exit 1; }
for header in $private; do
	case $header in kernels/stage/* | kernels/fast/* | kernels/stamp.h) continue ;; esac
	case $header:$($cc -dumpmachine) in # vocabularies of other processors
	kernels/vec/neon.h:aarch64* | kernels/vec/dotprod.h:aarch64* | kernels/vec/avx*:x86_64*) ;;
	kernels/vec/neon.h:* | kernels/vec/dotprod.h:* | kernels/vec/avx*) continue ;;
	esac
	grep -q '^#pragma once' "$root/$header" || continue
	# Those of the CUDA toolkit, which need not be there.
	case $header in kernels/cuda/* | tests/gpu/*) [ -n "$cuda" ] || continue ;; esac
	# shellcheck disable=SC2086 # words they shall be
	check "$header" $cc -std=gnu17 -D_GNU_SOURCE -DKV_ISA=scalar \
		'-DKV_VEC="kernels/vec/scalar.h"' \
		-Wno-unused-parameter -Wno-unused-function -Wno-psabi "-I$root" "-I$build" "-I$root/shm" $libraries $cuda
done

# A lint that finds nothing may be one that cannot.
echo 'size_t forgot_its_include(void);' >"$dir/bad.h"
if compiles bad.h $cc -std=gnu17 "-I$dir" 2>/dev/null; then
	echo "positive control: a bad header compiles"
	exit 1
fi
exit $failed
