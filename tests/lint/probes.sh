#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The probes of sparqd are those that sparqd(8) lists, with as many arguments, and the examples of
# bpftrace use no other.
#
#   probes.sh SOURCE-DIRECTORY SPARQD
set -euo pipefail
export LC_ALL=C

source=${1:?usage: probes.sh SOURCE-DIRECTORY SPARQD}
sparqd=$(realpath "${2:?usage: probes.sh SOURCE-DIRECTORY SPARQD}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}

command -v readelf >/dev/null || { echo "no readelf: skipped"; exit 77; }
echo '#include <sys/sdt.h>' | ${CC:-cc} -E - >/dev/null 2>&1 ||
	{ echo "no sys/sdt.h (package systemtap-sdt-dev), so no probes: skipped"; exit 77; }

# NAME ARGUMENTS, sorted; a probe that the compiler has copied is one.
readelf --notes "$sparqd" | awk '
	$1 == "Provider:" { ours = $2 == "sparqd" }
	ours && $1 == "Name:" { name = $2 }
	ours && $1 == "Arguments:" { print name, NF - 1; ours = 0 }' | sort -u >"$scratch/elf"
[ -s "$scratch/elf" ] || complain "readelf finds no probe in $sparqd"
awk '/^\.S[sh]/ { probes = $2 == "Probes" }
	probes && $1 == ".It" { print $3, NF - 4 }' "$source/man/sparqd.8" | sort >"$scratch/page"
diff "$scratch/elf" "$scratch/page" >"$scratch/differs" ||
	complain "probes of sparqd (<) and of sparqd(8) (>): $(cat "$scratch/differs")"

for program in "$source"/units/bpftrace/*.bt; do
	sed -n 's/^usdt:[^:]*:sparqd:\([a-z_]*\).*/\1/p' "$program" | sort -u | while read -r name; do
		grep -q "^$name " "$scratch/elf" || echo "$program: there is no probe $name"
	done
done >"$scratch/strangers"
[ ! -s "$scratch/strangers" ] || complain "$(cat "$scratch/strangers")"

# Up to the code for the kernel, and not loaded: that needs a kernel that lets itself be traced.
compiles() {
	sed "s,/usr/sbin/sparqd,$sparqd," "$1" >"$scratch/program.bt"
	bpftrace -d "$scratch/program.bt" >"$scratch/said" 2>&1
}
echo 'BEGIN { exit(); }' >"$scratch/good.bt"
if ! command -v bpftrace >/dev/null; then
	echo "no bpftrace: its examples were not compiled"
elif ! compiles "$scratch/good.bt"; then
	echo "bpftrace compiles nothing here, so not its examples either: $(grep -m 1 . "$scratch/said")"
else
	for program in "$source"/units/bpftrace/*.bt; do
		compiles "$program" || complain "${program##*/}: $(grep ERROR "$scratch/said")"
	done
	sed 's/^usdt:.*evict$/&s/' "$source/units/bpftrace/evictions.bt" >"$scratch/bad.bt"
	! compiles "$scratch/bad.bt" || complain "positive control: a probe that is not there is found"
	echo 'BEGIN { printf("x" }' >"$scratch/bad.bt"
	! compiles "$scratch/bad.bt" || complain "positive control: a wrong program is taken"
fi
[ "$failed" = 0 ] && echo "$(wc -l <"$scratch/elf") probes"
exit $failed
