#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What people and scripts rely on in sparq-bench: options that are refused by name and value, help
# that fits a terminal, JSON with the fields that figures are taken from, and a daemon whose answer
# is compared bit for bit.
#
#   test-bench.sh SPARQ-BENCH SPARQD
set -euo pipefail
bench=$1 daemon=$2

fail() {
	echo "FAILED: $*"
	exit 1
}

# refused TEXT OPTION...: exit status 2, and a message that has the text.
refused() {
	local text=$1 said status=0
	shift
	said=$("$bench" "$@" 2>&1 >/dev/null) || status=$?
	[ "$status" = 2 ] || fail "$*: status $status, not 2"
	[[ $said == *"$text"* ]] || fail "$*: said \"$said\", not \"$text\""
}

for command in append attend fork overwrite ring spill; do
	"$bench" --help | grep "^  $command " >/dev/null || fail "no command $command"
	"$bench" "$command" --help >/dev/null || fail "$command --help"
	! "$bench" "$command" --help | grep -E '.{81}' || fail "$command --help is too wide"
done
refused '--bogus' attend --bogus
refused 'takes a value' attend --seqlen
refused 'from 1 to 256' attend --r 999
refused 'thp, 4k, 2m' attend --pages 1g
refused 'multiple of --kv-heads' attend --heads 9 --kv-heads 8
refused 'scalar' attend --isa pentium
refused 'from 1 to 256' ring --depth 0

small=(--kv-heads 2 --heads 8 --head-dim 64 --seconds 0.01 --cold 1 --memory 256 --json)
out=$("$bench" attend "${small[@]}" --seqlen 2000 --threads 1,2 --format f16,hier4,hier4/int8,hier4/U \
	--policy dense,sparq)
for field in median_ms min_ms bytes_read percent_of_roofline ratio_to_dense_f16 sequences; do
	n=$(grep -c "\"$field\":" <<<"$out") || true
	[ "$n" = 16 ] || fail "$n of 16 figures have $field"
done
! grep -E '(nan|inf|Infinity|NaN)' <<<"$out" || fail "a figure is no number"

out=$("$bench" attend "${small[@]}" --seqlen 2000 --format f16,hier4 --policy dense --level 1)
[[ $out == *'"f16"'*'"hier4/U"'* ]] || fail "--level 1 is of formats that have upper planes"

out=$("$bench" attend "${small[@]}" --seqlen 2000 --format hier4 --policy sparq --queries 3 \
	--through-daemon --daemon "$daemon")
grep -q '"daemon_adds_us":' <<<"$out" || fail "nothing went through the daemon"
out=$("$bench" attend "${small[@]}" --seqlen 300 --format f16 --break-even)
grep -q '"break_even_rows":' <<<"$out" || fail "no break-even"
out=$("$bench" append --kv-heads 2 --head-dim 64 --rows 600 --seconds 0.01 --entry 1,7 \
	--format f16,hier4 --through-daemon --daemon "$daemon" --json)
n=$(grep -c '"through_daemon_row_ns":' <<<"$out") || true
[ "$n" = 4 ] || fail "$n of 4 appends went through the daemon"
out=$("$bench" fork --kv-heads 2 --head-dim 64 --layers 3 --rows 700 --rounds 5 --through-daemon \
	--pool 256 --daemon "$daemon" --json)
for field in fork drop truncate_below append_after prefix through_daemon; do
	grep -q "\"${field}_us\":" <<<"$out" || fail "no figure of $field"
done
out=$("$bench" overwrite --kv-heads 2 --head-dim 64 --rows 2000 --rounds 3 --daemon "$daemon" --json)
n=$(grep -cE '"(overwrite|cut_append)_us": *[0-9]*[1-9]' <<<"$out") || true
[ "$n" = 8 ] || fail "$n of 8 figures of overwriting"
out=$("$bench" spill --size 8 --rounds 2 --rows 300 --seconds 0.1 --daemon "$daemon" --json)
for field in spill_gb_s dd_write_gb_s load_gb_s dd_read_gb_s step_alone_us step_alone_p99_us; do
	grep -q "\"$field\": *[0-9]" <<<"$out" || fail "no figure of $field"
done
echo "sparq-bench: ok"
