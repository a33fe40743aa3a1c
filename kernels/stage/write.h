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

KV_FN float kv_finite_f16(float x)
{
	return x > 65504 ? 65504 : x < -65504 ? -65504 : x == x ? x : 0;
}

static inline struct kv_pair fmt_pair(float min, float max);
KV_FN vf fmt_code(vf x, vf scale, vf min);

/* Of VL groups. The pair that is stored, and its values as fmt_code wants them. */
KV_FN void write_pairs(vf min, vf max, struct kv_pair *ret_pair, vf *ret_scale, vf *ret_min)
{
	float low[VL], high[VL], scale[VL];

	vf_store(low, min);
	vf_store(high, max);
	for (unsigned i = 0; i < VL; i++) {
		/* Nothing but NaN: the minimum of nothing is above its maximum. */
		ret_pair[i] = low[i] <= high[i] ? fmt_pair(low[i], high[i]) : (struct kv_pair){ 0 };
		scale[i] = kv_from_f16(ret_pair[i].scale);
		scale[i] = scale[i] > 0 ? scale[i] : INFINITY;
		low[i] = kv_from_f16(ret_pair[i].min);
	}
	*ret_scale = vf_load(scale);
	*ret_min = vf_load(low);
}

/* VL channels of a tile from x (`dim` floats from row to row): codes[rows][VL] and VL pairs. */
KV_FN void write_columns(const float *x, uint32_t dim, uint32_t rows, uint8_t *ret_codes,
			 struct kv_pair *ret_pair)
{
	vf min = vf_set(INFINITY), max = vf_set(-INFINITY), scale;

	for (uint32_t i = 0; i < rows; i++) {
		vf v = vf_load(x + (size_t)i * dim);

		min = vf_min(v, min);
		max = vf_max(v, max);
	}
	write_pairs(min, max, ret_pair, &scale, &min);
	for (uint32_t i = 0; i < rows; i++)
		vf_store_u8(ret_codes + i * VL, fmt_code(vf_load(x + (size_t)i * dim), scale, min));
}

/* One row. */
KV_FN struct kv_pair write_row(const float *x, uint32_t dim, uint8_t *ret_codes)
{
	vf min = vf_set(INFINITY), max = vf_set(-INFINITY), scale;
	struct kv_pair pair[VL];

	for (uint32_t c = 0; c < dim; c += VL) {
		min = vf_min(vf_load(x + c), min);
		max = vf_max(vf_load(x + c), max);
	}
	min = vf_set(-vf_top(vf_sub(vf_set(0), min)));
	max = vf_set(vf_top(max));
	write_pairs(min, max, pair, &scale, &min);
	for (uint32_t c = 0; c < dim; c += VL)
		vf_store_u8(ret_codes + c, fmt_code(vf_load(x + c), scale, min));
	return pair[0];
}
