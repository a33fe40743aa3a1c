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

/* VL channels of a tile from x (`dim` floats from row to row): codes[rows][VL] and VL pairs. */
KV_FN void write_columns(const float *x, uint32_t dim, uint32_t rows, uint8_t *ret_codes,
			 struct kv_pair *ret_pair)
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
		vf_store_u8(ret_codes + i * VL, fmt_code(vf_load(x + (size_t)i * dim), scale, min));
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
