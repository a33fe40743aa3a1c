#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Nothing outside the library of an instruction set is compiled for it, so that
# no CPU meets an instruction that it does not have.
#
#   isa.sh BUILD-DIRECTORY [OBJDUMP]
#
# Looks at the commands of the build, at the instructions of each object, and
# at the names by which the libraries of kernels/ can be reached.
set -euo pipefail
export LC_ALL=C

build=$(cd "${1:?usage: isa.sh BUILD-DIRECTORY [OBJDUMP]}" && pwd)
objdump=${2:-objdump}
nm=${objdump%objdump}nm
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}

# What begins with CPUs newer than every CPU of the family.
case $("$objdump" -f "$build"/kernels/libkernels.a.p/cpu.c.o) in
*x86-64*)
	beyond='%[yz]mm[0-9]|[[:space:]]v[a-z]+[0-9a-z]*[[:space:]]+[^[:space:]]*%[xk]|%k[0-7]'
	beyond+='|[[:space:]](pshufb|palignr|pmaddubsw|pmul?h?rsw|pabs[bwd]|ptest|pblendv?[bw]|pmulld'
	beyond+='|dpp[sd]|round[sp][sd]|pcmp[ei]str[im]|crc32[bwlq]?|popcnt[wlq]?|lzcnt[wlq]?|movbe[wlq]?'
	beyond+='|andn|bextr|shlx|shrx|sarx|rorx|mulx|pdep|pext|bzhi|adcx|adox)[[:space:]]'
	;;
*aarch64*)
	beyond='[[:space:]](sdot|udot|usdot|sudot|[su]mmla|usmmla|bfdot|bfmmla|fmlal2?|ptrue|whilel[ot])'
	beyond+='[[:space:]]'
	;;
*) echo "not a family of CPUs that this script knows: skipped"; exit 77 ;;
esac

# ---- the commands -----------------------------------------------------------------

# Objects whose command has a flag that allows instructions: name of the library.
python3 - "$build/compile_commands.json" >"$scratch/flagged" <<'SCRIPT'
import json, re, shlex, sys

flag = re.compile(r"-m(arch|cpu|tune|avx|sse[34]|ssse|fma|f16c|bmi|popcnt|lzcnt|movbe|amx)")
entries = json.load(open(sys.argv[1]))
flagged = [e["output"] for e in entries if any(map(flag.match, shlex.split(e["command"])))]
for output in flagged:
    print(output.split("/lib")[-1].split(".a.p")[0])
SCRIPT
sort -u "$scratch/flagged" >"$scratch/libraries"
grep -v '^kernels-' "$scratch/libraries" >"$scratch/others" || true
[ ! -s "$scratch/others" ] || complain "compiled for an instruction set: $(cat "$scratch/others")"
[ -s "$scratch/libraries" ] || complain "no library is compiled for an instruction set: looked at the wrong build?"

# ---- the instructions -------------------------------------------------------------

# uses OBJECT: such instructions, if there are any.
uses() {
	"$objdump" -d --no-show-raw-insn "$1" | grep -E -m 3 -- "$beyond"
}
objects=0
while read -r object; do
	library=$(sed -E 's,.*/lib([^/]*)\.a\.p/.*,\1,' <<<"$object")
	if grep -qxF -- "$library" "$scratch/libraries"; then
		continue
	fi
	objects=$((objects + 1))
	if found=$(uses "$object"); then
		complain "${object#"$build"/}: $found"
	fi
done < <(find "$build" -path "$build/aarch64" -prune -o -name '*.o' -print)
[ "$objects" -ge 10 ] || complain "only $objects objects in $build"

# ---- the names --------------------------------------------------------------------

# A function that two libraries have may be linked from either: they share none but the tables.
while read -r library; do
	"$nm" -g --defined-only "$build/kernels/lib$library.a" 2>/dev/null | awk 'NF == 3 { print $3 }' |
		grep -vE '^kv_(kernels|ops)_' | sed "s/^/$library: /"
done <"$scratch/libraries" >"$scratch/shared" || true
[ ! -s "$scratch/shared" ] || complain "can be linked from elsewhere: $(cat "$scratch/shared")"

# ---- positive control: in those libraries the instructions are found ----------------

while read -r library; do
	object=$build/kernels/lib$library.a.p/format_hier4.c.o
	uses "$object" >/dev/null || complain "positive control: $library has nothing beyond the least CPU"
done <"$scratch/libraries"

[ "$failed" = 0 ] && echo "$objects objects run on every CPU of the family;" \
	"apart from them $(tr '\n' ' ' <"$scratch/libraries")"
exit "$failed"
