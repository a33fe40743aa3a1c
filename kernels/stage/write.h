/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantising a tile: groups of a channel over the tile's rows (K) and of a row
 * over its channels (V).
 *
 * Parameters are stored as binary16 pairs (scale, min), rounded before anything
 * is quantised with them, and finite, so that no input can make a product of 0
 * and infinity. A group without a range has scale 0, and its codes are those of
 * an infinite scale. The codec says what a step is:
 *
 *   fmt_pair(min, max)          the group's parameters
 *   fmt_code(x, scale, min)     codes from 0 to 255, as floats
 */
#pragma once

#include "kernels/codec.h"

struct kv_pair {
	uint16_t scale, min;
};

/* ---- bytes: the same in every ISA, for the compiler knows vectors of 16 of them ------------- */

typedef uint8_t write_bytes __attribute__((vector_size(16)));

KV_FN write_bytes write_load(const uint8_t *p)
{
	write_bytes x;

	memcpy(&x, p, sizeof(x));
	return x;
}

/* Turns 16 rows of 16 bytes into columns: four times, each half is woven into the other. */
KV_FN void write_turn(write_bytes x[16])
{
	const write_bytes low = { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23 };
	const write_bytes high = { 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
	write_bytes y[16];

	KV_EACH(twice, 2) {
		KV_EACH(i, 8) {
			y[2 * i] = __builtin_shuffle(x[i], x[i + 8], low);
			y[2 * i + 1] = __builtin_shuffle(x[i], x[i + 8], high);
		}
		KV_EACH(i, 8) {
			x[2 * i] = __builtin_shuffle(y[i], y[i + 8], low);
			x[2 * i + 1] = __builtin_shuffle(y[i], y[i + 8], high);
		}
	}
}

/* Codes of n elements to nibbles, the even element in the low half. */
KV_FN void write_nibbles(const uint8_t *restrict codes, uint32_t n, uint8_t *restrict ret_upper,
			 uint8_t *restrict ret_lower)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		uint8_t even = codes[2 * i], odd = codes[2 * i + 1];

		ret_upper[i] = (uint8_t)(even >> 4 | (odd & 0xf0));
		ret_lower[i] = (uint8_t)((even & 15) | odd << 4);
	}
}

/* ---- groups ------------------------------------------------------------------ */

static inline struct kv_pair fmt_pair(float min, float max);
KV_FN vf fmt_code(vf x, vf scale, vf min);

/* One group: the pair that is stored, and its values as fmt_code wants them. */
KV_FN struct kv_pair write_pair(float low, float high, float *ret_scale, float *ret_min)
{
	/* Nothing but NaN: the minimum of nothing is above its maximum. */
	struct kv_pair pair = low <= high ? fmt_pair(low, high) : (struct kv_pair){ 0 };
	float scale = kv_from_f16(pair.scale);

	*ret_scale = scale > 0 ? scale : INFINITY;
	*ret_min = kv_from_f16(pair.min);
	return pair;
}

/* VL channels of a tile from x (`dim` floats from row to row): VL pairs, and codes `stride` bytes
 * from row to row. */
KV_FN void write_columns(const float *x, uint32_t dim, uint32_t rows, uint8_t *ret_codes,
			 size_t stride, struct kv_pair *ret_pair)
{
	vf min = vf_set(INFINITY), max = vf_set(-INFINITY), scale;
	float low[VL], high[VL];

	for (uint32_t i = 0; i < rows; i++) {
		vf v = vf_load(x + (size_t)i * dim);

		min = vf_min(v, min);
		max = vf_max(v, max);
	}
	vf_store(low, min);
	vf_store(high, max);
	for (unsigned i = 0; i < VL; i++)
		ret_pair[i] = write_pair(low[i], high[i], &high[i], &low[i]);
	scale = vf_load(high);
	min = vf_load(low);
	for (uint32_t i = 0; i < rows; i++)
		vf_store_u8(ret_codes + i * stride,
			    fmt_code(vf_load(x + (size_t)i * dim), scale, min));
}

/* One row. */
KV_FN struct kv_pair write_row(const float *x, uint32_t dim, uint8_t *ret_codes)
{
	vf min = vf_set(INFINITY), max = vf_set(-INFINITY);
	struct kv_pair pair;
	float step, low;

	for (uint32_t c = 0; c < dim; c += VL) {
		min = vf_min(vf_load(x + c), min);
		max = vf_max(vf_load(x + c), max);
	}
	low = -vf_top(vf_sub(vf_set(0), min));
	pair = write_pair(low, vf_top(max), &step, &low);
	for (uint32_t c = 0; c < dim; c += VL)
		vf_store_u8(ret_codes + c, fmt_code(vf_load(x + c), vf_set(step), vf_set(low)));
	return pair;
}
