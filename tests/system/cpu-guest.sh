#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon and the kernels on processors with less than this one has, in
# virtual machines: without AVX, and with AVX2 but no AVX-512. An instruction
# that such a processor lacks kills what meets it.
#
#   GUEST_RUN=/path/to/tool cpu-guest.sh BUILD-DIRECTORY
#
# The tool boots a machine and runs a command in it, the options used here:
#   -C CPU-MODEL  -b DIRECTORY-SHOWN-AS-/build  -- COMMAND
# and returns the command's status. Without one this test is skipped (77).
set -euo pipefail

build=${1:?usage: cpu-guest.sh BUILD-DIRECTORY}
if [ -z "${GUEST_RUN:-}" ]; then
	echo "GUEST_RUN names no tool that boots a machine with another processor: skipped"
	exit 77
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/lib"
cp "$build"/daemon/sparqd "$build"/client/sparqctl "$build"/tests/kernels/{checkkern,test-exec} \
	"$stage/"
for program in "$build"/{daemon/sparqd,client/sparqctl}; do
	# The guest has a bare system: bring what is not part of every system.
	ldd "$program" | awk '$1 !~ /^(linux-vdso|ld-linux|libc|libm)[-.]/ && $3 ~ /^\// { print $3 }' |
		xargs -r cp -t "$stage/lib"
done
cat >"$stage/run" <<'SCRIPT'
#!/bin/sh
# run ISA: what the processor's best is
export LD_LIBRARY_PATH=/build/lib
set -e
say() { echo "$*"; exit 1; }
# Emulated AVX2 does not round as processors do: there it is enough that it runs.
/build/test-exec --shapes 20 >/tmp/out 2>&1 || [ "$1" != scalar ] || { cat /tmp/out; exit 1; }
tail -n 1 /tmp/out
grep -q "^$1: 20 shapes, " /tmp/out || say "not $1"
/build/checkkern --isa scalar --random 1000
/build/sparqd --isa avx512 --socket /tmp/s --control /tmp/c 2>/tmp/out && say "avx512 was taken"
grep 'this CPU does not have it' /tmp/out
/build/sparqd --socket /tmp/s --control /tmp/c --set pool_bytes=64M --set huge_pages=no \
	--set catalogue_bytes=16M --set workers=1 --set max_rows=65536 2>/tmp/log &
for i in $(seq 300); do
	[ -S /tmp/s ] && break
	sleep 0.1
done
/build/sparqctl selftest --socket /tmp/s --seed 7 >/tmp/out || [ "$1" != scalar ] ||
	{ cat /tmp/out /tmp/log; exit 1; }
cat /tmp/out
/build/sparqctl explain --control /tmp/c sparq r=16
/build/sparqctl status --control /tmp/c --json | grep "\"isa\": *\"$1\"" || say "the daemon does not use $1"
SCRIPT
chmod +x "$stage/run"

status=0
for model in Nehalem:scalar Haswell:avx2; do
	echo "== $model"
	"$GUEST_RUN" -C "${model%:*}" -b "$stage" -- /build/run "${model#*:}" || status=1
done
exit $status
