#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A sequence goes to a file, the daemon ends, another one begins with nothing, and
# the sequence goes on: the same bits, for every format. Files that are not whole are
# refused with the place, and nothing of them stays.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

ctl() {
	local command=$1
	shift
	"$build/client/sparqctl" "$command" --socket "$socket" "$@"
}

used() { probe info | awk '/^charged/ { print $2 }'; }

# go_on NAME FORMAT: the sum of tokens 700 to 900 of a sequence that has 700.
go_on() {
	probe --format "$2" --name "$1" --park --attach --tokens 900 --from 700 run >"$scratch/rest" ||
		fail "attach: $(cat "$scratch/rest")"
	grep -q 'attached at row 700$' "$scratch/rest" || fail "rows are missing: $(cat "$scratch/rest")"
	awk '/^rows/ { print $4 }' "$scratch/rest"
}

formats='f16 hier4 int8 int4,f32:1'
start_daemon
for format in $formats; do
	name=s-${format//[,:]/-}
	probe --format "$format" --name "$name" --park --tokens 700 run >/dev/null
	eventually ctl save --cache "$name" "$name" "$scratch/$name.seq" >"$scratch/out" 2>&1 ||
		fail "save: $(cat "$scratch/out")"
	grep -q "^$name: 700 rows, [0-9]* bytes in" "$scratch/out" || fail "$(cat "$scratch/out")"
done

# There is one of that name: only on demand, and it stays what it was.
file=$scratch/s-f16.seq
before=$(sha256sum <"$file")
! ctl save --cache s-f16 s-f16 "$file" 2>"$scratch/out" || fail "replaced without being asked"
grep -q 'there is such a file' "$scratch/out" || fail "$(cat "$scratch/out")"
[ "$(sha256sum <"$file")" = "$before" ] || fail "the old file changed"
eventually ctl save --replace --json --cache s-f16 s-f16 "$file" >"$scratch/out" ||
	fail "$(cat "$scratch/out")"
grep -q '"rows":700' <(tr -d ' ' <"$scratch/out") || fail "$(cat "$scratch/out")"
! ctl save --cache s-f16 nothing "$scratch/none.seq" 2>/dev/null || fail "saved what is not there"
! ctl save --cache s-f16 s-f16 "$scratch/none/none.seq" 2>/dev/null || fail "saved to nowhere"
[ -z "$(find "$scratch" -name '.sparq-*' -o -name 'none*')" ] || fail "something was left"

# What it would have been without all this.
for format in $formats; do
	name=s-${format//[,:]/-}
	eventually go_on "$name" "$format" >"$scratch/want-$name" || fail "go on"
done
stop_daemon

start_daemon
empty=$(used)
for format in $formats; do
	name=s-${format//[,:]/-}
	ctl load "$scratch/$name.seq" >"$scratch/out" 2>&1 || fail "load: $(cat "$scratch/out")"
	grep -q "700 rows" "$scratch/out" || fail "$(cat "$scratch/out")"
	sum=$(go_on "$name" "$format")
	[ "$sum" = "$(cat "$scratch/want-$name")" ] || fail "$format: other results after the load"
done
# Beside the first, under another name; not under the same.
! ctl load "$file" 2>"$scratch/out" || fail "loaded over the first"
grep -q 'exists' "$scratch/out" || fail "$(cat "$scratch/out")"
ctl load --name again "$file" >/dev/null || fail "no second one"
! ctl load --cache s-hier4 --name other "$file" 2>"$scratch/out" || fail "f16 rows in a hier4 cache"
grep -q 'k_format f16, the cache has hier4' "$scratch/out" || fail "$(cat "$scratch/out")"
stop_daemon

start_daemon
nothing_stays() { [ "$(used)" = "$empty" ]; } # its session ends in its own time
# refused FILE TEXT: and nothing of it stays.
refused() {
	! ctl load --name bad "$1" >"$scratch/out" 2>&1 || fail "loaded: $2"
	grep -q "$2" "$scratch/out" || fail "not \"$2\": $(cat "$scratch/out")"
	eventually nothing_stays || fail "$2: something stays"
}
bytes=$(stat -c %s "$file")
for n in 0 7 100 4096 5000 $((bytes / 2)) $((bytes - 4096)) $((bytes - 1)); do
	head -c "$n" "$file" >"$scratch/bad.seq"
	refused "$scratch/bad.seq" 'cut short\|ends at\|not the file of a sequence'
done
for at in 0 9 40 4096 6200 300000 $((bytes - 4096)) $((bytes - 1)); do
	cp "$file" "$scratch/bad.seq"
	printf '\x5a' | dd of="$scratch/bad.seq" bs=1 seek="$at" conv=notrunc status=none
	refused "$scratch/bad.seq" 'offset [0-9]*: '
done
cat "$file" "$file" >"$scratch/bad.seq"
refused "$scratch/bad.seq" "offset $bytes: the file goes on"
refused /dev/null 'no regular file'
refused "$scratch" 'no regular file'
refused "$scratch/nothing" 'No such file'

# A client that keeps to nothing, and goes away in the middle: nothing of it stays.
hostile images 3 1 || fail "images"
eventually nothing_stays || fail "something of the hostile client stays"

# More than the user may have: told in the middle, and all of it is given back.
stop_daemon
start_daemon user_bytes=3M
empty=$(used)
refused "$file" 'quota of the user'
stop_daemon
