# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The daemon and the kernels on a processor with less than most have: an instruction that it lacks
# kills what meets it.
#
#   cpu.sh ISA     the best that this processor has
#
# shellcheck source=tests/guest/inside.sh
. /build/inside.sh
isa=$1
# exactly COMMAND...: its output in $said; it may fail where AVX2 is emulated, which does not round
# as processors do. There it is enough that it runs, but no signal may end it.
exactly() {
	local status=0
	said=$("$@" 2>&1) || status=$?
	[ "$status" -lt 128 ] || fail "$* ended by signal $((status - 128)): $said"
	[ "$status" = 0 ] || [ "$isa" != scalar ] || fail "$*: $said"
}

exactly test-exec --shapes 20
[[ $said == *"$isa: 20 shapes, "* ]] || fail "not $isa: $said"
tail -n 1 <<<"$said"
checkkern --isa scalar --random 1000 || fail "the kernels"

configure pool_bytes=64M huge_pages=no workers=1 max_rows=65536 isa=avx512
! start || fail "avx512 was taken"
logged 'this CPU does not have it' || fail "no word of avx512"
configure pool_bytes=64M huge_pages=no workers=1 max_rows=65536
start || fail "the daemon does not start"
exactly sparqctl selftest --socket "$socket" --seed 7
echo "$said"
sparqctl explain --control "$control" sparq r=16 || fail "explain"
sparqctl status --control "$control" --json | grep "\"isa\": *\"$isa\"" || fail "the daemon does not use $isa"
stop
# Nor did anything that is not looked at meet one.
if dmesg | grep 'invalid opcode'; then fail "an instruction that this processor lacks"; fi
