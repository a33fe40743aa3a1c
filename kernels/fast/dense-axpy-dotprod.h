/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_axpy over rows of byte codes, or of nibbles in two planes, with SDOT.
 *
 * Rows are taken in blocks. A block's weights (p * scale) of a head become two
 * signed bytes each (dense-dotprod.h), one where level 1 is read. Two rounds of
 * byte interleaving put four rows of a channel side by side, so a step is four
 * rows with 16 channels of two heads, of four at level 1. Sums of a block are
 * exact; they are added to the output in f32.
 */
#pragma once

#include "kernels/fast/dense-dotprod.h"
#include "kernels/stage/axpy.h"

#define SDENSE_ROWS 64u
#define SDENSE_AXPY_FEW 16u /* rows: below that rounding weights takes longer than it saves */

struct sdense_axpy {
	const struct kv_block *b;
	float *y[4];     /* of the heads at hand */
	uint32_t row, n; /* the block of rows */
	struct kv_rows rows;
	vf scale[SDENSE_ROWS / VL], min[SDENSE_ROWS / VL]; /* zeros beyond them */
	struct sdense_step step[4];
	struct sdense_four weight[SDENSE_ROWS / 4];
};

/* ---- weights ---------------------------------------------------------------- */

KV_FN void sdense_params(struct sdense_axpy *a, unsigned level)
{
	KV_EACH (i, SDENSE_ROWS / VL) {
		uint32_t left = a->n > i * VL ? MIN(a->n - i * VL, VL) : 0;
		struct kv_pair pair[VL] = { { 0 } };
		uint16x4x2_t x;

		memcpy(pair, v_pair(a->b, a->row + i * VL), left * sizeof(*pair));
		x = vld2_u16((const uint16_t *)(const void *)pair);
		a->scale[i] = vf_from_halves(x.val[0]);
		a->min[i] = vf_from_halves(x.val[1]);
		fmt_v_steps(level, &a->scale[i], &a->min[i]);
		if (!level)
			a->min[i] = vf_fma(a->scale[i], vf_set(SDENSE_SIGNED), a->min[i]);
	}
}

/* Weights of four rows, zeros beyond the block. */
KV_FN vf sdense_four_weights(const struct sdense_axpy *a, const float *p, uint32_t i)
{
	float rest[VL] = { 0 };

	if (i + VL <= a->n)
		return vf_load(p + i);
	if (i < a->n)
		memcpy(rest, p + i, (a->n - i) * sizeof(*p));
	return vf_load(rest);
}

/* One head's weights, the h-th of those at hand; its bias is added to *bias. False: they cannot be
 * rounded, and are taken for 0. */
KV_FN bool sdense_weigh(struct sdense_axpy *a, const float *p, unsigned h, unsigned parts,
			vf w[SDENSE_ROWS / VL], vf *bias)
{
	uint32x4_t top = vdupq_n_u32(0);
	vf sum = *bias;

	KV_EACH (i, SDENSE_ROWS / VL) {
		vf weight = sdense_four_weights(a, p, i * VL);

		w[i] = vf_mul(weight, a->scale[i]);
		sum = vf_fma(weight, a->min[i], sum);
		top = sdense_larger(top, w[i]);
	}
	if (sdense_step(top, parts > 1 ? SDENSE_TWO : SDENSE_ONE, &a->step[h])) {
		*bias = sum;
		return true;
	}
	KV_EACH (i, SDENSE_ROWS / VL)
		w[i] = vf_set(0);
	return false;
}

/* Rounds the weights of `heads` heads side by side. */
KV_FN void sdense_pack(struct sdense_axpy *a, unsigned heads, unsigned parts,
		       vf w[4][SDENSE_ROWS / VL], vf bias[4])
{
	vf lost[4];

	KV_EACH (h, heads)
		lost[h] = vf_set(0);
	KV_EACH (i, SDENSE_ROWS / 16) {
		int32x4x4_t four = { { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0),
				       vdupq_n_s32(0) } };

		KV_EACH (h, heads)
			sdense_round(w[h] + 4 * i, a->step[h], parts, &lost[h],
				     &four.val[parts * h]);
		vst4q_s32(a->weight[4 * i].of, four);
	}
	KV_EACH (h, heads)
		bias[h] = vf_fma(lost[h], vf_set(parts > 1 ? -0.5f : 7.5f), bias[h]);
}

/* ---- sums ------------------------------------------------------------------- */

KV_FN void sdense_weave(uint8x16_t x0, uint8x16_t x1, uint8x16_t x2, uint8x16_t x3, bool high,
			uint8x16_t ret[2])
{
	uint16x8_t a = vreinterpretq_u16_u8(high ? vzip2q_u8(x0, x1) : vzip1q_u8(x0, x1));
	uint16x8_t b = vreinterpretq_u16_u8(high ? vzip2q_u8(x2, x3) : vzip1q_u8(x2, x3));

	ret[0] = vreinterpretq_u8_u16(vzip1q_u16(a, b));
	ret[1] = vreinterpretq_u8_u16(vzip2q_u16(a, b));
}

#if FMT_LEVELS == 1
/* 16 channels of four rows, in order. */
KV_FN void sdense_codes(const uint8_t *const upper[4], const uint8_t *const lower[4],
			unsigned level, int8x16_t ret[4])
{
	uint8x16_t x[4], y[4];

	KV_EACH (i, 4)
		x[i] = veorq_u8(vld1q_u8(upper[i]), vdupq_n_u8(0x80));
	sdense_weave(x[0], x[1], x[2], x[3], false, y);
	sdense_weave(x[0], x[1], x[2], x[3], true, y + 2);
	KV_EACH (i, 4)
		ret[i] = vreinterpretq_s8_u8(y[i]);
}
#else
KV_FN void sdense_eight(const uint8_t *const row[4], uint8x16_t ret[2])
{
	uint8x16_t x[4];

	KV_EACH (i, 4)
		x[i] = vcombine_u8(vld1_u8(row[i]), vdup_n_u8(0));
	sdense_weave(x[0], x[1], x[2], x[3], false, ret);
}

/* 16 channels of four rows: four even ones, four odd ones, and so again. */
KV_FN void sdense_codes(const uint8_t *const upper[4], const uint8_t *const lower[4],
			unsigned level, int8x16_t ret[4])
{
	uint8x16_t u[2], l[2];

	sdense_eight(upper, u);
	if (!level)
		sdense_eight(lower, l);
	KV_EACH (i, 2) {
		if (level) {
			ret[2 * i] = vreinterpretq_s8_u8(vandq_u8(u[i], vdupq_n_u8(15)));
			ret[2 * i + 1] = vreinterpretq_s8_u8(vshrq_n_u8(u[i], 4));
			continue;
		}
		u[i] = veorq_u8(u[i], vdupq_n_u8(0x88)); /* signed, in both */
		ret[2 * i] = vreinterpretq_s8_u8(vsliq_n_u8(l[i], u[i], 4));
		ret[2 * i + 1] = vreinterpretq_s8_u8(vsriq_n_u8(u[i], l[i], 4));
	}
}
#endif

/* One head's 16 channels, as sdense_codes leaves them. */
KV_FN void sdense_add_to(int32x4_t x[4], float step, float *y)
{
	int32x4_t w[4] = { x[0], x[1], x[2], x[3] };

	if (FMT_LEVELS > 1)
		KV_EACH (i, 2) {
			w[2 * i] = vzip1q_s32(x[2 * i], x[2 * i + 1]);
			w[2 * i + 1] = vzip2q_s32(x[2 * i], x[2 * i + 1]);
		}
	KV_EACH (i, 4)
		vf_store(y + 4 * i, vf_fma(vcvtq_f32_s32(w[i]), vf_set(step), vf_load(y + 4 * i)));
}

/* `n` products of four rows, 16 channels; behind the last that there is, it again: it weighs 0. */
KV_FN void sdense_add_four(const struct kv_rows *first, uint32_t last,
			   const struct sdense_four *weight, unsigned n, unsigned level,
			   int32x4_t sum[4][4])
{
	const uint8_t *upper[4], *lower[4];
	int8x16_t x[4];

	KV_EACH (i, 4) {
		upper[i] = first->upper + MIN(i, last) * first->stride;
		lower[i] = first->lower + MIN(i, last) * first->stride;
	}
	sdense_codes(upper, lower, level, x);
	KV_EACH (i, 4)
		sdense_add(x[i], weight, n, sum[i]);
}

/* `n` products of the block, 16 channels from c on: n heads, or n / 2 of two parts. */
KV_FN void sdense_add_rows(struct sdense_axpy *a, uint32_t c, unsigned n, unsigned level)
{
	const unsigned heads = level ? n : n / 2;
	const struct sdense_four *weight = a->weight;
	struct kv_rows rows = a->rows;
	int32x4_t sum[4][4]; /* by channels, by product */
	uint32_t left = a->n;

	rows.upper += FMT_LEVELS == 1 ? c : c / 2;
	rows.lower += FMT_LEVELS == 1 ? 0 : c / 2;
	KV_EACH (i, 16)
		sum[i / 4][i % 4] = vdupq_n_s32(0);
	for (; left >= 4; left -= 4, weight++) {
		sdense_add_four(&rows, 3, weight, n, level, sum);
		rows.upper += 4 * rows.stride;
		rows.lower += FMT_LEVELS == 1 ? 0 : 4 * rows.stride;
	}
	if (left)
		sdense_add_four(&rows, left - 1, weight, n, level, sum);
	KV_EACH (h, heads) {
		int32x4_t all[4];

		KV_EACH (i, 4)
			all[i] =
				level ? sum[i][h]
				      : vaddq_s32(vshlq_n_s32(sum[i][2 * h], 8), sum[i][2 * h + 1]);
		sdense_add_to(all, a->step[h].step, a->y[h] + c);
	}
}

/* A block of up to 4 heads at level 1, 2 at level 0. */
KV_FN void sdense_add_block(struct sdense_axpy *a, const float *p, size_t p_stride, unsigned heads,
			    unsigned level, vf bias[4])
{
	const unsigned parts = level ? 1 : 2;
	vf w[4][SDENSE_ROWS / VL];

	for (unsigned h = 0; h < heads; h++)
		if (!sdense_weigh(a, p + h * p_stride, h, parts, w[h], &bias[h]))
			stage_v_axpy(a->b, a->row, a->n, p + h * p_stride, p_stride, 1, a->y[h],
				     a->b->dim, level);
	sdense_pack(a, heads, parts, w, bias);
	for (uint32_t c = 0; c < a->b->dim; c += 16)
		sdense_add_rows(a, c, heads * parts, level);
}

/* Heads [0, heads) over all rows. */
KV_FN void sdense_axpy_some(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			    size_t p_stride, unsigned heads, float *y, size_t y_stride,
			    unsigned level)
{
	vf bias[4] = { vf_set(0), vf_set(0), vf_set(0), vf_set(0) };
	struct sdense_axpy a;

	a.b = b;
	for (unsigned h = 0; h < heads; h++)
		a.y[h] = y + h * y_stride;
	for (uint32_t i = 0; i < n; i += SDENSE_ROWS) {
		a.row = row + i;
		a.n = MIN(n - i, SDENSE_ROWS);
		a.rows = fmt_v_rows(b, a.row);
		sdense_params(&a, level);
		sdense_add_block(&a, p + i, p_stride, heads, level, bias);
	}
	for (unsigned h = 0; h < heads; h++) {
		vf all = vf_set(vf_sum(bias[h]));

		for (uint32_t c = 0; c < b->dim; c += VL)
			vf_store(a.y[h] + c, vf_add(vf_load(a.y[h] + c), all));
	}
}

static void sdense_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			  size_t p_stride, uint32_t heads, float *y, size_t y_stride,
			  unsigned level)
{
	uint32_t h = 0;

	if (n < SDENSE_AXPY_FEW) {
		stage_v_axpy(b, row, n, p, p_stride, heads, y, y_stride, level);
		return;
	}
	for (; FMT_LEVELS > 1 && level && h + 4 <= heads; h += 4)
		sdense_axpy_some(b, row, n, p + h * p_stride, p_stride, 4, y + h * y_stride,
				 y_stride, 1);
	for (; h + 2 <= heads; h += 2)
		if (FMT_LEVELS > 1 && level)
			sdense_axpy_some(b, row, n, p + h * p_stride, p_stride, 2, y + h * y_stride,
					 y_stride, 1);
		else
			sdense_axpy_some(b, row, n, p + h * p_stride, p_stride, 2, y + h * y_stride,
					 y_stride, 0);
	if (h < heads && FMT_LEVELS > 1 && level)
		sdense_axpy_some(b, row, n, p + h * p_stride, p_stride, 1, y + h * y_stride,
				 y_stride, 1);
	else if (h < heads)
		sdense_axpy_some(b, row, n, p + h * p_stride, p_stride, 1, y + h * y_stride,
				 y_stride, 0);
}

#define FMT_V_AXPY sdense_v_axpy
