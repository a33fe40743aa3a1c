/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_axpy over rows of byte codes, or of nibbles in two planes, with VNNI.
 *
 * Rows are taken in blocks. A block's weights (p * scale) of a head become two
 * signed bytes each (dense-avx512.h), one where level 1 is read. Two rounds of
 * byte interleaving put four rows of a channel side by side, so that a step is
 * an integer product of four rows with 16 channels; a pass over the block's rows
 * does 64 channels of two heads. Sums of a block are exact; they are added up in
 * f32, in the order in which interleaving leaves the channels, and come back to
 * theirs at the end.
 *
 * Loads are of 64 bytes whatever the dimension: what lies behind a row is the
 * next one, or the block's parameters, and its sums are dropped.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/axpy.h"

#define DENSE_ROWS 64u
#define DENSE_FEW 16u /* rows: below that rounding weights takes longer than it saves */
#define DENSE_SUMS 8u /* heads of one walk over the rows */

struct dense_axpy {
	const struct kv_block *b;
	const float *p;
	size_t p_stride;
	float *y;
	size_t y_stride;
	uint32_t dim, heads;
	uint32_t groups; /* of 64 channels: 64 bytes of codes, or half of 64 bytes of nibbles */
	unsigned level;
	uint32_t row, n;       /* the block at hand */
	struct ahead ahead[2]; /* of the planes */
	size_t asked, share;   /* bytes of a plane in this block; at each step of four rows */
	struct kv_rows rows;
	vf bias[DENSE_SUMS];
	vf sum[DENSE_SUMS][KV_MAX_DIM / 64][4];
	struct dense_step step[DENSE_SUMS];
	_Alignas(64) int8_t weight[2][DENSE_SUMS][DENSE_ROWS]; /* high, low */
};

/* ---- weights ---------------------------------------------------------------- */

struct dense_params { /* of a block's rows, zeros beyond them */
	vf scale[DENSE_ROWS / VL], min[DENSE_ROWS / VL];
	__mmask16 mask[DENSE_ROWS / VL];
};

KV_FN void dense_row_params(const struct dense_axpy *a, unsigned level, struct dense_params *ret)
{
	KV_EACH (i, DENSE_ROWS / VL) {
		uint32_t left = a->n > i * VL ? a->n - i * VL : 0;
		__mmask16 mask = (__mmask16)(left >= VL ? 0xffff : (1u << left) - 1);
		__m512i x = _mm512_maskz_loadu_epi32(mask, v_pair(a->b, a->row + i * VL));

		ret->mask[i] = mask;
		ret->scale[i] = vf_from_low_f16(x);
		ret->min[i] = vf_from_low_f16(_mm512_srli_epi32(x, 16));
		fmt_v_steps(level, &ret->scale[i], &ret->min[i]);
	}
}

/* What one head's weights are rounded to. False: they cannot be, and are taken for 0. */
KV_FN bool dense_measure_rows(struct dense_axpy *a, const struct dense_params *x, uint32_t h,
			      unsigned parts, vf w[DENSE_ROWS / VL])
{
	const float *p = a->p + h * a->p_stride;
	__m512i top = _mm512_setzero_si512();
	vf bias = a->bias[h];

	KV_EACH (i, DENSE_ROWS / VL) {
		vf weight = _mm512_maskz_loadu_ps(x->mask[i], p + i * VL);

		w[i] = vf_mul(weight, x->scale[i]);
		bias = vf_fma(weight, x->min[i], bias);
		top = dense_larger(top, w[i]);
	}
	if (dense_step(top, parts > 1 ? DENSE_TWO : DENSE_ONE, &a->step[h])) {
		a->bias[h] = bias;
		return true;
	}
	KV_EACH (i, DENSE_ROWS / VL)
		w[i] = vf_set(0);
	return false;
}

KV_FN void dense_weigh(struct dense_axpy *a, uint32_t h, unsigned parts,
		       const vf w[DENSE_ROWS / VL])
{
	vf lost = vf_set(0);

	KV_EACH (i, DENSE_ROWS / 64) {
		__m512i bytes[2];

		dense_round(w + 4 * i, a->step[h], parts, &lost, bytes);
		_mm512_store_si512(&a->weight[0][h][i * 64], bytes[0]);
		_mm512_store_si512(&a->weight[1][h][i * 64], bytes[1]);
	}
	a->bias[h] = vf_fma(lost, vf_set(parts > 1 ? 127.5f : 7.5f), a->bias[h]);
}

/* ---- sums ------------------------------------------------------------------- */

/* Bytes 16 L + 4 q + e of four rows side by side in lane L, element e of ret[q]. */
KV_FN void dense_weave(const uint8_t *const row[4], __m512i ret[4])
{
	__m512i x[4], low[2], high[2];

	KV_EACH (i, 4)
		x[i] = dense_held(_mm512_loadu_si512(row[i]));
	KV_EACH (i, 2) {
		low[i] = _mm512_unpacklo_epi8(x[2 * i], x[2 * i + 1]);
		high[i] = _mm512_unpackhi_epi8(x[2 * i], x[2 * i + 1]);
	}
	ret[0] = _mm512_unpacklo_epi16(low[0], low[1]);
	ret[1] = _mm512_unpackhi_epi16(low[0], low[1]);
	ret[2] = _mm512_unpacklo_epi16(high[0], high[1]);
	ret[3] = _mm512_unpackhi_epi16(high[0], high[1]);
}

/* The same of half of them: of bytes 16 L + 8 half + 4 q + e. */
KV_FN void dense_weave_half(const uint8_t *const row[4], bool half, __m512i ret[2])
{
	__m512i x[4], y[2];

	KV_EACH (i, 4)
		x[i] = _mm512_loadu_si512(row[i]);
	KV_EACH (i, 2)
		y[i] = half ? _mm512_unpackhi_epi8(x[2 * i], x[2 * i + 1])
			    : _mm512_unpacklo_epi8(x[2 * i], x[2 * i + 1]);
	ret[0] = _mm512_unpacklo_epi16(y[0], y[1]);
	ret[1] = _mm512_unpackhi_epi16(y[0], y[1]);
}

/* Of two nibbles in a byte the even channels come before the odd ones. */
KV_FN void dense_nibbles(const uint8_t *const upper[4], const uint8_t *const lower[4], bool half,
			 unsigned level, __m512i ret[4])
{
	const __m512i low = _mm512_set1_epi8(15);
	__m512i u[2], l[2];

	dense_weave_half(upper, half, u);
	if (!level)
		dense_weave_half(lower, half, l);
	KV_EACH (q, 2) {
		__m512i up = _mm512_slli_epi16(u[q], 4), down = _mm512_srli_epi16(u[q], 4);

		if (level) {
			ret[2 * q] = _mm512_and_si512(u[q], low);
			ret[2 * q + 1] = _mm512_and_si512(down, low);
		} else { /* low ? lower : upper */
			down = _mm512_srli_epi16(l[q], 4);
			ret[2 * q] = _mm512_ternarylogic_epi64(low, l[q], up, 0xca);
			ret[2 * q + 1] = _mm512_ternarylogic_epi64(low, down, u[q], 0xca);
		}
	}
}

/* Codes of four rows from `at` on, beyond the block's end of the last one again. */
KV_FN void dense_codes(const struct dense_axpy *a, uint32_t at, uint32_t column, bool half,
		       unsigned level, __m512i ret[4])
{
	const uint8_t *upper[4], *lower[4];

	KV_EACH (i, 4) {
		size_t from = MIN(at + i, a->n - 1) * a->rows.stride + column * 64;

		upper[i] = a->rows.upper + from;
		lower[i] = a->rows.lower + from;
	}
	if (FMT_LEVELS == 1)
		dense_weave(upper, ret);
	else
		dense_nibbles(upper, lower, half, level, ret);
}

KV_FN __m512i dense_four(const int8_t *weight)
{
	int32_t four;

	memcpy(&four, weight, sizeof(four));
	return _mm512_set1_epi32(four);
}

/* A few lines of each plane, far behind this block. */
KV_FN void dense_ask(struct dense_axpy *a, unsigned level)
{
	ahead_ask(&a->ahead[0], a->rows.upper + a->asked, a->share);
	if (FMT_LEVELS > 1 && !level)
		ahead_ask(&a->ahead[1], a->rows.lower + a->asked, a->share);
	a->asked += a->share;
}

/* Those of the block after the next: they are all wanted at once, and at its beginning. */
KV_FN void dense_ask_params(const struct dense_axpy *a)
{
	const struct kv_pair *first = v_pair(a->b, a->row + 2 * DENSE_ROWS);

	for (uint32_t i = 0; i < DENSE_ROWS; i += KV_LINE / sizeof(*first))
		__builtin_prefetch(first + i, 0, 2);
}

/* One group of heads [h, h + heads). */
KV_FN void dense_add_rows(struct dense_axpy *a, uint32_t h, unsigned heads, uint32_t column,
			  bool half, unsigned level)
{
	vf(*sum)[4] = &a->sum[h][FMT_LEVELS == 1 ? column : 2 * column + half];
	dense_ints high[4][4], low[4][4];

	KV_EACH (i, heads * 4)
		high[i / 4][i % 4] = low[i / 4][i % 4] = (dense_ints){ 0 };
	for (uint32_t at = 0; at < a->n; at += 4) {
		__m512i x[4];

		dense_ask(a, level);
		dense_codes(a, at, column, half, level, x);
		KV_EACH (i, heads) {
			__m512i c = dense_four(&a->weight[1][h + i][at]);

			KV_EACH (j, 4)
				low[i][j] = dense_add(low[i][j], x[j], c);
			if (level)
				continue;
			c = dense_four(&a->weight[0][h + i][at]);
			KV_EACH (j, 4)
				high[i][j] = dense_add(high[i][j], x[j], c);
		}
	}
	KV_EACH (i, heads * 4) {
		vf *to = &sum[i / 4 * (KV_MAX_DIM / 64)][i % 4];
		dense_ints all = low[i / 4][i % 4];

		if (!level)
			all += high[i / 4][i % 4] << 8;
		*to = vf_fma(_mm512_cvtepi32_ps((__m512i)all), vf_set(a->step[h + i / 4].step),
			     *to);
	}
}

KV_FN void dense_add_heads(struct dense_axpy *a, uint32_t h, unsigned heads, unsigned level)
{
	const uint32_t columns = FMT_LEVELS == 1 ? a->groups : a->groups / 2;

	for (uint32_t c = 0; c < columns; c++) {
		dense_add_rows(a, h, heads, c, false, level);
		if (FMT_LEVELS > 1)
			dense_add_rows(a, h, heads, c, true, level);
	}
}

KV_FN void dense_add_block(struct dense_axpy *a, unsigned level)
{
	const unsigned parts = level ? 1 : 2;
	vf w[DENSE_SUMS][DENSE_ROWS / VL];
	struct dense_params params;
	uint32_t h = 0;

	a->asked = 0;
	dense_row_params(a, level, &params);
	dense_ask_params(a);
	for (uint32_t i = 0; i < a->heads; i++)
		if (!dense_measure_rows(a, &params, i, parts, w[i]))
			stage_v_axpy(a->b, a->row, a->n, a->p + i * a->p_stride, a->p_stride, 1,
				     a->y + i * a->y_stride, a->y_stride, level);
	for (uint32_t i = 0; i < a->heads; i++)
		dense_weigh(a, i, parts, w[i]);
	for (; level && h + 4 <= a->heads; h += 4)
		dense_add_heads(a, h, 4, level);
	for (; h + 2 <= a->heads; h += 2)
		dense_add_heads(a, h, 2, level);
	if (h < a->heads)
		dense_add_heads(a, h, 1, level);
}

/* ---- results ---------------------------------------------------------------- */

/* A group's channels in their order: ret[L] has 16 of them. */
KV_FN void dense_in_order(const vf sum[4], vf ret[4])
{
	vf x[4];

	if (FMT_LEVELS == 1) {
		dense_lanes(sum, ret);
		return;
	}
	KV_EACH (q, 2) {
		x[2 * q] = _mm512_unpacklo_ps(sum[2 * q], sum[2 * q + 1]);
		x[2 * q + 1] = _mm512_unpackhi_ps(sum[2 * q], sum[2 * q + 1]);
	}
	dense_lanes(x, ret);
}

KV_FN void dense_finish(const struct dense_axpy *a, uint32_t h)
{
	float *y = a->y + h * a->y_stride;
	vf bias = vf_set(vf_sum(a->bias[h]));

	for (uint32_t g = 0; g < a->groups; g++) {
		/* Halves of 128 channels in nibbles: 16 of one, 16 of the other. */
		uint32_t step = FMT_LEVELS == 1 ? 16 : 32;
		uint32_t first = FMT_LEVELS == 1 ? g * 64 : g / 2 * 128 + g % 2 * 16;
		vf lane[4];

		dense_in_order(a->sum[h][g], lane);
		for (unsigned i = 0; i < 4 && first + i * step < a->dim; i++) {
			float *to = y + first + i * step;

			vf_store(to, vf_add(vf_load(to), vf_add(lane[i], bias)));
		}
	}
}

/* Up to DENSE_SUMS heads. */
KV_FN void dense_axpy_heads(struct dense_axpy *a, uint32_t row, uint32_t n, const float *p,
			    unsigned level)
{
	for (uint32_t h = 0; h < a->heads; h++) {
		a->bias[h] = vf_set(0);
		for (uint32_t g = 0; g < a->groups; g++)
			KV_EACH (i, 4)
				a->sum[h][g][i] = vf_set(0);
	}
	for (uint32_t i = 0; i < n; i += DENSE_ROWS) {
		a->row = row + i;
		a->n = MIN(n - i, DENSE_ROWS);
		a->p = p + i;
		a->rows = fmt_v_rows(a->b, a->row);
		dense_add_block(a, level);
	}
	for (uint32_t h = 0; h < a->heads; h++)
		dense_finish(a, h);
}

/* Of the lower plane, if there is one. */
KV_FN struct ahead dense_ahead_lower(const struct kv_block *b)
{
	struct kv_block next = ahead_next(b);
	struct kv_rows first = fmt_v_rows(b, 0), then = fmt_v_rows(&next, 0);

	first.upper = first.lower;
	then.upper = then.lower;
	return ahead_of(b, first, then);
}

/* As many lines a step as make a block in all its passes over the rows. */
KV_FN void dense_ask_evenly(struct dense_axpy *a, unsigned level)
{
	uint32_t passes = a->groups * DIV_UP(a->heads, level ? 4 : 2);

	a->share = ALIGN_UP(DIV_UP(4 * fmt_v_stride(a->dim), passes), KV_LINE);
}

static void dense_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	const uint32_t columns = DIV_UP((uint32_t)fmt_v_stride(b->dim), 64);
	struct dense_axpy a;

	if (n < DENSE_FEW) {
		stage_v_axpy(b, row, n, p, p_stride, heads, y, y_stride, level);
		return;
	}
	a.b = b;
	a.dim = b->dim;
	a.groups = FMT_LEVELS == 1 ? columns : 2 * columns;
	a.ahead[0] = ahead_v(b);
	a.ahead[1] = dense_ahead_lower(b);
	a.p_stride = p_stride;
	a.y_stride = y_stride;
	for (uint32_t h = 0; h < heads; h += DENSE_SUMS) {
		a.heads = MIN(heads - h, DENSE_SUMS);
		dense_ask_evenly(&a, level);
		a.y = y + h * y_stride;
		if (FMT_LEVELS > 1 && level)
			dense_axpy_heads(&a, row, n, p + h * p_stride, 1);
		else
			dense_axpy_heads(&a, row, n, p + h * p_stride, 0);
	}
}

#define FMT_V_AXPY dense_v_axpy
