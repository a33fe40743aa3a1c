/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dense-axpy-avx512.h multiplies rows with: weights of a block of them, with
 * its parameters folded in, as signed bytes.
 *
 * They are made while the block before it is computed, a part between two passes
 * over its rows: what rounding waits for is hidden behind the products.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/axpy.h"

#define DENSE_ROWS 64u
#define DENSE_SUMS 8u /* heads of one walk over the rows */

struct dense_params { /* of a block's rows, zeros beyond them; the min at the middle of its codes */
	vf scale[DENSE_ROWS / VL], min[DENSE_ROWS / VL];
	__mmask16 mask[DENSE_ROWS / VL];
};

struct dense_block {
	uint32_t row, n;
	vf step[DENSE_SUMS];
	_Alignas(64) int8_t weight[2][DENSE_SUMS][DENSE_ROWS]; /* high, low */
	uint8_t rest[2][4 * KV_MAX_DIM + KV_LINE]; /* of both planes up to three rows, as four */
	/* While weights are made: of some of the heads. */
	struct dense_params params;
	vf w[DENSE_HEADS][DENSE_ROWS / VL], biases[DENSE_HEADS];
	__m512i top[DENSE_HEADS];
	struct dense_steps steps;
	__mmask16 bad;
};

struct dense_axpy {
	const struct kv_block *b;
	const float *p; /* of `row` */
	size_t p_stride;
	float *y;
	size_t y_stride;
	uint32_t row, n, dim, heads;
	uint32_t groups; /* of 64 channels: 64 bytes of codes, or half of 64 bytes of nibbles */
	unsigned level;
	struct ahead ahead[2];  /* of the planes */
	const uint8_t *next[2]; /* what is asked for while the block at hand is computed */
	size_t share;           /* bytes of a plane at each step of four rows */
	unsigned passes;        /* over a block */
	vf bias[DENSE_SUMS];
	vf sum[DENSE_SUMS][KV_MAX_DIM / 64][4];
};

KV_FN float dense_middle(unsigned level)
{
	return level ? 7.5f : 127.5f;
}

KV_FN void dense_row_params(const struct dense_axpy *a, const struct dense_block *d, unsigned level,
			    struct dense_params *ret)
{
	KV_EACH (i, DENSE_ROWS / VL) {
		uint32_t left = d->n > i * VL ? d->n - i * VL : 0;
		__mmask16 mask = (__mmask16)(left >= VL ? 0xffff : (1u << left) - 1);
		__m512i x = _mm512_maskz_loadu_epi32(mask, v_pair(a->b, d->row + i * VL));

		ret->mask[i] = mask;
		dense_apart(x, &ret->scale[i], &ret->min[i]);
		fmt_v_steps(level, &ret->scale[i], &ret->min[i]);
		ret->min[i] = vf_fma(ret->scale[i], vf_set(dense_middle(level)), ret->min[i]);
	}
}

/* One head's weights; the largest of them, and the bias of codes from their middle. */
KV_FN void dense_measure_rows(const struct dense_params *x, const float *p, vf w[DENSE_ROWS / VL],
			      __m512i *ret_top, vf *ret_bias)
{
	__m512i top = _mm512_setzero_si512();
	vf bias = vf_set(0);

	KV_EACH (i, DENSE_ROWS / VL) {
		vf weight = _mm512_maskz_loadu_ps(x->mask[i], p + i * VL);

		w[i] = vf_mul(weight, x->scale[i]);
		bias = vf_fma(weight, x->min[i], bias);
		top = dense_larger(top, w[i]);
	}
	*ret_top = top;
	*ret_bias = bias;
}

/* Some of the heads, four where there are as many. */
struct dense_some {
	uint32_t h, heads;
};

KV_FN struct dense_some dense_some(const struct dense_axpy *a, unsigned i)
{
	uint32_t fours = a->heads / 4;

	return i < fours ? (struct dense_some){ 4 * i, 4 }
			 : (struct dense_some){ 3 * fours + i, 1 };
}

KV_FN void dense_measure_some(const struct dense_axpy *a, struct dense_block *d,
			      struct dense_some x)
{
	const float *p = a->p + x.h * a->p_stride + (d->row - a->row);

	for (uint32_t i = 0; i < x.heads; i++)
		dense_measure_rows(&d->params, p + i * a->p_stride, d->w[i], &d->top[i],
				   &d->biases[i]);
	for (uint32_t i = x.heads; i < DENSE_HEADS; i++)
		d->top[i] = _mm512_setzero_si512();
}

/* Head h, i of those that were measured. What cannot be rounded counts for nothing. */
KV_FN void dense_weigh(struct dense_axpy *a, struct dense_block *d, uint32_t h, unsigned i,
		       unsigned level)
{
	vf step = dense_of_head(d->steps.step, i), per = dense_of_head(d->steps.per, i), bias;
	__mmask16 counts = d->bad >> 4 * i & 1 ? 0 : 0xffff;
	__m512i sum = _mm512_setzero_si512(), bytes[2];

	dense_round(d->w[i], per, level ? 1 : 2, &sum, bytes);
	_mm512_store_si512(d->weight[0][h], dense_in_order_of(bytes[0]));
	_mm512_store_si512(d->weight[1][h], dense_in_order_of(bytes[1]));
	bias = dense_from_middle(d->biases[i], sum, step, dense_middle(level));
	a->bias[h] = _mm512_mask_add_ps(a->bias[h], counts, a->bias[h], bias);
	d->step[h] = step;
}

/* The rows of what cannot be rounded are added one by one. */
static void dense_add_exactly(const struct dense_axpy *a, const struct dense_block *d, uint32_t h)
{
	for (unsigned bad = d->bad; bad; bad >>= 4, h++)
		if (bad & 1)
			stage_v_axpy(a->b, d->row, d->n, a->p + h * a->p_stride + (d->row - a->row),
				     a->p_stride, 1, a->y + h * a->y_stride, a->y_stride, a->level);
}

static void dense_copy_rest(const struct dense_axpy *a, struct dense_block *d)
{
	struct kv_rows rows = fmt_v_rows(a->b, d->row + d->n / 4 * 4);
	size_t n = d->n % 4 * rows.stride;

	memset(d->rest, 0, sizeof(d->rest));
	memcpy(d->rest[0], rows.upper, n);
	if (FMT_LEVELS > 1)
		memcpy(d->rest[1], rows.lower, n);
}

/* Weights are made in parts, which what they wait for is hidden between. */
static unsigned dense_parts(const struct dense_axpy *a)
{
	return 1 + 3 * (a->heads / 4 + a->heads % 4);
}

static void dense_weigh_part(struct dense_axpy *a, struct dense_block *d, unsigned part)
{
	struct dense_some x = dense_some(a, (part - 1) / 3);

	if (part == 0) {
		if (d->n % 4)
			dense_copy_rest(a, d);
		dense_row_params(a, d, a->level, &d->params);
	} else if (part % 3 == 1) {
		dense_measure_some(a, d, x);
	} else if (part % 3 == 2) {
		d->bad = dense_steps(d->top, a->level ? DENSE_ONE : DENSE_TWO, &d->steps);
		if (d->bad)
			dense_add_exactly(a, d, x.h);
	} else if (a->level) {
		for (uint32_t i = 0; i < x.heads; i++)
			dense_weigh(a, d, x.h + i, i, 1);
	} else {
		for (uint32_t i = 0; i < x.heads; i++)
			dense_weigh(a, d, x.h + i, i, 0);
	}
}
