#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparq-generate against a real daemon. Whoever compares formats or policies with it relies on
# dense attention being exact; whoever gives it a broken model or daemon, on a sentence.
# shellcheck source=tests/system/functions.sh
source "$(dirname "$0")/functions.sh"
model=$(cd "$(dirname "$0")/../../client/examples/model" && pwd)
generate=$build/client/examples/sparq-generate
[ -x "$generate" ] || { echo "no OpenBLAS, no sparq-generate: skipped"; exit 77; }

# refuses TEXT ARGUMENT...: fails, and what it says contains TEXT.
refuses() {
	local text=$1 status=0 said
	shift
	said=$(timeout 60 "$generate" "$@" 2>&1 >/dev/null) || status=$?
	[ "$status" = 1 ] || fail "status $status, not 1: $* says $said"
	[[ $said == *"$text"* ]] || fail "$* says \"$said\", not \"$text\""
}

# field NAME FILE: a number of the first row.
field() { jq -e ".rows[0].$1" "$2"; }

broken=$scratch/broken
mkdir "$broken"
job=(--prompt "$model/prompt.txt" --tokens 4)

# A model that is not whole, or not Llama: before any daemon is asked.
cp "$model/config.json" "$broken"
for bytes in 4 1000 100000 6000000; do
	head -c "$bytes" "$model/model.safetensors" >"$broken/model.safetensors"
	refuses "$([ "$bytes" -lt 10000 ] && echo header || echo tensor)" --model "$broken" "${job[@]}"
done
cp "$model/model.safetensors" "$broken"
sed 's/LlamaForCausalLM/GPT2LMHeadModel/' "$model/config.json" >"$broken/config.json"
refuses "architectures" --model "$broken" "${job[@]}"
sed 's/"intermediate_size": 704/"intermediate_size": 700/' "$model/config.json" \
	>"$broken/config.json"
refuses "model.layers.0.mlp.gate_proj.weight" --model "$broken" "${job[@]}"
grep -v rope_theta "$model/config.json" >"$broken/config.json"
refuses "rope_theta" --model "$broken" "${job[@]}"

refuses "no session with sparqd" --socket "$scratch/none" --model "$model" "${job[@]}"

start_daemon
with=(--socket "$socket" --model "$model")

# Dense over f32 predicts what the reference says.
"$generate" "${with[@]}" --check "$model/reference.json" --windows 1 ||
	fail "dense attention differs from the reference"

# Names that the daemon does not know come back in its words.
refuses "nonsense" "${with[@]}" "${job[@]}" --policy nonsense
refuses "nonsense" "${with[@]}" "${job[@]}" --format nonsense
refuses "layers are 0 to 3" "${with[@]}" "${job[@]}" --format hier4,f16:4
refuses "nonsense" "${with[@]}" "${job[@]}" --options nonsense=1
refuses "r=65" "${with[@]}" "${job[@]}" --r 65

# SparQ with all channels and all rows is dense attention; the window policy with all rows too.
held=(--held-out "$model/text-doc.txt" --windows 1 --context 600 --count 160 --json)
"$generate" "${with[@]}" "${held[@]}" --policy dense --format f32 >"$scratch/dense"
"$generate" "${with[@]}" "${held[@]}" --format f32 --r 64 --k 2048 \
	--options "tail=select sinks=0" >"$scratch/all"
"$generate" "${with[@]}" "${held[@]}" --policy window --format f32 --k 2048 >"$scratch/window"
for other in all window; do
	jq -en --slurpfile a "$scratch/dense" --slurpfile b "$scratch/$other" \
		'($a[0].rows[0].bits_per_byte[] - $b[0].rows[0].bits_per_byte[] | fabs) < 1e-5' \
		>/dev/null || fail "$other rows are not dense attention"
done
[ "$(field dense_steps "$scratch/dense")" = $((160 * 4)) ] || fail "dense ran something else"

# SparQ over hier4 runs in each step, reads less than dense f16 would, and loses little.
"$generate" "${with[@]}" "${held[@]}" >"$scratch/sparq"
[ "$(field dense_steps "$scratch/sparq")" = 0 ] || fail "SparQ was not run"
jq -e '.rows[0].ratio > 2' "$scratch/sparq" >/dev/null || fail "SparQ reads $(field ratio "$scratch/sparq")"
jq -en --slurpfile a "$scratch/dense" --slurpfile b "$scratch/sparq" \
	'$b[0].rows[0].bits_per_byte[] / $a[0].rows[0].bits_per_byte[] < 1.05' >/dev/null ||
	fail "SparQ loses more than 5 %"

# A daemon that dies in the middle of it and is not waited for long: a sentence, not a hang.
"$generate" "${with[@]}" --wait 1 --prompt "$model/prompt.txt" --tokens 800 >/dev/null 2>"$scratch/said" &
client=$!
eventually grep -q "prompt of" "$scratch/said" || fail "no prompt within 5 s"
kill_daemon
status=0
timeout 20 tail --pid="$client" -f /dev/null || fail "sparq-generate hangs on a dead daemon"
wait "$client" || status=$?
[ "$status" = 1 ] || fail "status $status after the daemon's death"
grep -q "the daemon is gone" "$scratch/said" || fail "said: $(tail -n 1 "$scratch/said")"
