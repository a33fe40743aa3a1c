#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Formats by layer: a layer of a mixed cache computes, to the bit, what it does in a cache of its
# format alone, through the ring and with both workers; what is wrong is told in a sentence.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

list=hier4,f16:0-1,int4:3
of_layer=(f16 f16 hier4 int4)

# refused WORDS LIST: by creation, and by an explanation in the same words.
refused() {
	local words=$1 output
	output=$(probe --layers 4 --tokens 1 --format "$2" run) && fail "$2: taken"
	grep -qF -- "$words" <<<"$output" || fail "$2: no \"$words\" in: $output"
	output=$("$build/client/sparqctl" explain --control "$scratch/control.sock" \
		layers=4 "k_format=$2" 2>&1) && fail "$2: explained"
	grep -qF -- "$words" <<<"$output" || fail "$2: no \"$words\" in: $output"
}

# row_bytes LAYER LIST: what one row of a layer takes.
row_bytes() {
	"$build/client/sparqctl" explain --json --control "$scratch/control.sock" \
		layers=4 layer="$1" "k_format=$2" | grep -oE '"row_bytes": *[0-9]+' | grep -oE '[0-9]+$'
}

start_daemon
for policy in dense sparq; do
	for layer in "${!of_layer[@]}"; do
		# Behind two sealed tiles.
		arguments=(--policy "$policy" --layers 4 --tokens 340 --from 300 --layer "$layer")
		mixed=$(sum_of "${arguments[@]}" --format "$list")
		alone=$(sum_of "${arguments[@]}" --format "${of_layer[layer]}")
		[ -n "$mixed" ] || fail "no sum"
		[ "$mixed" = "$alone" ] || fail "$policy, layer $layer: not as ${of_layer[layer]} alone"
	done
	# Sums that would not tell formats apart would prove nothing.
	[ "$mixed" != "$(sum_of "${arguments[@]}" --format bf16)" ] || fail "bf16 gives the same"
done
for layer in "${!of_layer[@]}"; do
	[ "$(row_bytes "$layer" "$list")" = "$(row_bytes 0 "${of_layer[layer]}")" ] ||
		fail "layer $layer: rows are not as large as those of ${of_layer[layer]}"
done
refused 'k_format "f17:0": formats are f32, f16' hier4,f17:0
refused 'k_format "f16:4": layers are 0 to 3' hier4,f16:4
refused 'k_format "f16:2-1": the first layer is above the last' hier4,f16:2-1
refused 'k_format "f16:1": layer 1 is named before' hier4,int4:0-1,f16:1
refused 'k_format "": after the first word' hier4,
stop_daemon
