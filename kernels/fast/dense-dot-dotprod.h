/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_dot over rows of byte codes with SDOT.
 *
 * A tile's coefficients of a head (q * scale) become two signed bytes each
 * (dense-dotprod.h). Of 16 channels of four rows a transpose makes vectors with
 * the rows side by side, four channels each, so a sum has four rows and nothing
 * is left to add up. Eight rows of up to four heads are held at once.
 */
#pragma once

#include "kernels/fast/dense-dotprod.h"
#include "kernels/stage/dot.h"

#define SDENSE_HEADS 4u

struct sdense_dot {
	struct kv_rows rows;
	uint32_t n, dim;
	struct sdense_step step[SDENSE_HEADS];
	float bias[SDENSE_HEADS];
	vf scale[KV_MAX_DIM / VL], min[KV_MAX_DIM / VL]; /* of the tile */
	struct sdense_four coef[SDENSE_HEADS / 2][KV_MAX_DIM / 4];
};

KV_FN void sdense_channels(struct sdense_dot *d, const struct kv_block *b, uint32_t tile)
{
	for (uint32_t i = 0; i * VL < d->dim; i++) {
		fmt_k_params(b, tile, i * VL, &d->scale[i], &d->min[i]);
		d->min[i] = vf_fma(d->scale[i], vf_set(SDENSE_SIGNED), d->min[i]);
	}
}

/* What one head's coefficients are rounded to, and its bias. False: they cannot be. */
KV_FN bool sdense_measure(struct sdense_dot *d, const float *q, unsigned h)
{
	uint32x4_t top = vdupq_n_u32(0);
	vf bias = vf_set(0);

	for (uint32_t i = 0; i * VL < d->dim; i++) {
		vf x = vf_load(q + i * VL);

		top = sdense_larger(top, vf_mul(x, d->scale[i]));
		bias = vf_fma(x, d->min[i], bias);
	}
	d->bias[h] = vf_sum(bias);
	return sdense_step(top, SDENSE_TWO, &d->step[h]);
}

/* Rounds those of head h and, of two, the next one's. */
KV_FN void sdense_fold(struct sdense_dot *d, const float *q, size_t q_stride, unsigned h,
		       unsigned heads)
{
	vf lost[2] = { vf_set(0), vf_set(0) };

	for (uint32_t c = 0; c < d->dim; c += 16) {
		int32x4x4_t four = { { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0),
				       vdupq_n_s32(0) } };

		KV_EACH (j, heads) {
			const float *x = q + (h + j) * q_stride + c;
			vf w[4];

			KV_EACH (i, 4)
				w[i] = vf_mul(vf_load(x + i * VL), d->scale[c / VL + i]);
			sdense_round(w, d->step[h + j], 2, &lost[j], &four.val[2 * j]);
		}
		vst4q_s32(d->coef[h / 2][c / 4].of, four);
	}
	KV_EACH (j, heads)
		d->bias[h + j] -= 0.5f * vf_sum(lost[j]);
}

/* Four rows' dwords side by side, of signed codes. */
KV_FN void sdense_turn(const uint8_t *const row[4], size_t at, int8x16_t ret[4])
{
	uint32x4_t x[4], y[4];

	KV_EACH (i, 4)
		x[i] = vreinterpretq_u32_u8(veorq_u8(vld1q_u8(row[i] + at), vdupq_n_u8(0x80)));
	y[0] = vzip1q_u32(x[0], x[2]);
	y[1] = vzip2q_u32(x[0], x[2]);
	y[2] = vzip1q_u32(x[1], x[3]);
	y[3] = vzip2q_u32(x[1], x[3]);
	KV_EACH (i, 2) {
		ret[2 * i] = vreinterpretq_s8_u32(vzip1q_u32(y[i], y[2 + i]));
		ret[2 * i + 1] = vreinterpretq_s8_u32(vzip2q_u32(y[i], y[2 + i]));
	}
}

/* `fours` times four rows, beyond n the last one again. */
KV_FN void sdense_products(const struct sdense_dot *d, uint32_t at, unsigned heads, unsigned fours,
			   int32x4_t sum[2][2][4])
{
	const uint8_t *row[2][4];

	KV_EACH (i, fours * 4)
		row[i / 4][i % 4] = d->rows.upper + MIN(at + i, d->n - 1) * d->rows.stride;
	KV_EACH (i, 16)
		sum[i / 8][i / 4 % 2][i % 4] = vdupq_n_s32(0);
	for (uint32_t c = 0; c < d->dim; c += 16)
		KV_EACH (g, fours) {
			int8x16_t x[4];

			sdense_turn(row[g], c, x);
			KV_EACH (k, 4) {
				sdense_add(x[k], &d->coef[0][c / 4 + k], heads > 1 ? 4 : 2,
					   sum[g][0]);
				if (heads > 2)
					sdense_add(x[k], &d->coef[1][c / 4 + k], 4, sum[g][1]);
			}
		}
}

/* Four rows of a head, of which n are wanted. */
KV_FN void sdense_store(int32x4_t high, int32x4_t low, float step, float bias, uint32_t n, float *p)
{
	int32x4_t sum = vaddq_s32(vshlq_n_s32(high, 8), low);
	vf x = vf_fma(vcvtq_f32_s32(sum), vf_set(step), vf_set(bias));
	float all[VL];

	if (n >= VL) {
		vf_store(p, x);
		return;
	}
	vf_store(all, x);
	for (uint32_t i = 0; i < n; i++)
		p[i] = all[i];
}

KV_FN void sdense_dot_rows(const struct sdense_dot *d, uint32_t at, unsigned heads, unsigned fours,
			   float *p, size_t p_stride)
{
	int32x4_t sum[2][2][4];

	sdense_products(d, at, heads, fours, sum);
	KV_EACH (h, heads)
		KV_EACH (g, fours) {
			const int32x4_t *part = &sum[g][h / 2][h % 2 * 2];

			sdense_store(part[0], part[1], d->step[h].step, d->bias[h],
				     d->n - at - g * 4, p + h * p_stride + at + g * 4);
		}
}

/* Heads [h, h + heads) of one tile. */
KV_FN void sdense_dot_some(struct sdense_dot *d, const struct kv_block *b, uint32_t row,
			   const float *q, size_t q_stride, unsigned heads, float *p,
			   size_t p_stride)
{
	bool rounds[SDENSE_HEADS];
	uint32_t at = 0;

	for (uint32_t h = 0; h < heads; h++)
		rounds[h] = sdense_measure(d, q + h * q_stride, h);
	KV_EACH (i, (heads + 1) / 2)
		sdense_fold(d, q, q_stride, 2 * i, heads > 1 ? 2 : 1);
	for (; at + 4 < d->n; at += 8)
		sdense_dot_rows(d, at, heads, 2, p, p_stride);
	if (at < d->n)
		sdense_dot_rows(d, at, heads, 1, p, p_stride);
	for (uint32_t h = 0; h < heads; h++)
		if (!rounds[h])
			stage_k_dot(b, row, d->n, q + h * q_stride, q_stride, 1, p + h * p_stride,
				    p_stride, 0);
}

static void sdense_dot_tile(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			    size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	struct sdense_dot d;
	uint32_t h = 0;

	d.rows = fmt_k_rows(b, row);
	d.n = n;
	d.dim = b->dim;
	sdense_channels(&d, b, row / b->tile_rows);
	for (; h + 4 <= heads; h += 4)
		sdense_dot_some(&d, b, row, q + h * q_stride, q_stride, 4, p + h * p_stride,
				p_stride);
	if (heads & 2) {
		sdense_dot_some(&d, b, row, q + h * q_stride, q_stride, 2, p + h * p_stride,
				p_stride);
		h += 2;
	}
	if (heads & 1)
		sdense_dot_some(&d, b, row, q + h * q_stride, q_stride, 1, p + h * p_stride,
				p_stride);
}

#if FMT_LEVELS > 1
KV_FN bool sdense_is_finite(const float *q, uint32_t dim)
{
	uint32x4_t top = vdupq_n_u32(0);

	for (uint32_t c = 0; c < dim; c += VL)
		top = sdense_larger(top, vf_load(q + c));
	return vmaxvq_u32(top) < 0x7f800000;
}

/* Every channel of the scoring plane. */
static void sdense_scan(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	uint16_t channel[KV_MAX_DIM];

	for (uint32_t c = 0; c < b->dim; c++)
		channel[c] = (uint16_t)c;
	FMT_SCORE_DIMS(b, row, n, q, q_stride, channel, b->dim, heads, p, p_stride);
	for (uint32_t h = 0; h < heads; h++)
		if (!sdense_is_finite(q + h * q_stride, b->dim))
			stage_k_dot(b, row, n, q + h * q_stride, q_stride, 1, p + h * p_stride,
				    p_stride, 1);
}
#endif

static void sdense_k_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			 size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
#if FMT_LEVELS > 1
	if (level) {
		sdense_scan(b, row, n, q, q_stride, heads, p, p_stride);
		return;
	}
#endif
	while (n) {
		uint32_t m = MIN(n, b->tile_rows - row % b->tile_rows);

		sdense_dot_tile(b, row, m, q, q_stride, heads, p, p_stride);
		row += m;
		n -= m;
		p += m;
	}
}

#define FMT_K_DOT sdense_k_dot
