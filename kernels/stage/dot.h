/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p[h][i] = q[h] . K[row + i].
 *
 * Scale and min are folded into the query once per tile (coef = q * scale, one
 * bias per head), so the loop over rows is a load and one FMA a head for every
 * format. Rows and heads are taken in tiles that fit the registers; a row's
 * result does not depend on which rows or heads were asked for with it, unless
 * there are more than KV_DIRECT_HEADS: then rows are decoded once to f32.
 */
#pragma once

#include "kernels/codec.h"
#include "kernels/stage/read.h"
#include "kernels/stage/scan.h"

#define KV_DIRECT_HEADS 8u
#define KV_DOT_AHEAD 16u   /* rows asked for before they are used */
#define KV_DECODE_ROWS 16u /* rows decoded at once for many heads: 16 KiB */

struct dot {
	struct kv_rows rows;
	const float *q; /* or coefficients */
	size_t q_stride;
	const float *bias; /* by head, NULL: none */
	uint32_t dim;
	float *p;
	size_t p_stride;
};

KV_FN vf dot_load(const struct dot *d, uint32_t at, uint32_t c, bool decoded)
{
	const void *rows = d->rows.upper;

	if (decoded)
		return vf_load((const float *)rows + (size_t)at * d->dim + c);
	return fmt_k_load(&d->rows, at, c);
}

KV_FN void dot_tile(const struct dot *d, uint32_t at, uint32_t head, unsigned rows, unsigned heads,
		    bool decoded)
{
	const float *q = d->q + head * d->q_stride;
	vf acc[4][4];

	KV_EACH (h, heads)
		KV_EACH (i, rows)
			acc[h][i] = vf_set(0);
	for (uint32_t c = 0; c < d->dim; c += VL) {
		vf x[4];

		KV_EACH (i, rows)
			x[i] = dot_load(d, at + i, c, decoded);
		KV_EACH (h, heads) {
			vf w = vf_load(q + h * d->q_stride + c);

			KV_EACH (i, rows)
				acc[h][i] = vf_fma(x[i], w, acc[h][i]);
		}
	}
	KV_EACH (h, heads) {
		float *p = d->p + (head + h) * d->p_stride + at;
		float bias = d->bias ? d->bias[head + h] : 0;
		float sum[4];

		if (rows == 4) {
			vf_sum4(sum, acc[h][0], acc[h][1], acc[h][2], acc[h][3]);
		} else {
			KV_EACH (i, rows)
				sum[i] = vf_sum(acc[h][i]);
		}
		KV_EACH (i, rows)
			p[i] = sum[i] + bias;
	}
}

KV_FN void dot_heads(const struct dot *d, uint32_t at, unsigned rows, uint32_t heads, bool decoded)
{
	uint32_t h = 0;

	for (; h + 4 <= heads; h += 4)
		dot_tile(d, at, h, rows, 4, decoded);
	if (heads & 2) {
		dot_tile(d, at, h, rows, 2, decoded);
		h += 2;
	}
	if (heads & 1)
		dot_tile(d, at, h, rows, 1, decoded);
}

/* Long runs of codes: there is little to do for a line, and much to wait for. */
KV_FN void dot_prefetch(const struct dot *d, uint32_t at)
{
	const uint8_t *row = d->rows.upper + at * d->rows.stride;

	for (size_t i = 0; i < KV_DOT_ROWS * d->rows.stride; i += KV_LINE)
		__builtin_prefetch(row + i);
}

KV_FN void dot_rows(const struct dot *d, uint32_t n, uint32_t heads, bool decoded)
{
	uint32_t i = 0;

	for (; i + KV_DOT_ROWS <= n; i += KV_DOT_ROWS) {
		if (!FMT_PLAIN && !decoded && i + KV_DOT_AHEAD < n)
			dot_prefetch(d, i + KV_DOT_AHEAD);
		dot_heads(d, i, KV_DOT_ROWS, heads, decoded);
	}
	for (; i < n; i++)
		dot_heads(d, i, 1, heads, decoded);
}

#if !FMT_PLAIN && !FMT_GROUP
/* coef[h][c] = q[h][c] * scale[c]; bias[h] = sum of q[h][c] * min[c] */
KV_FN void dot_fold(const struct kv_block *b, uint32_t tile, const float *q, size_t q_stride,
		    uint32_t heads, float *coef, float *bias)
{
	vf sum[KV_DIRECT_HEADS];

	for (uint32_t h = 0; h < heads; h++)
		sum[h] = vf_set(0);
	for (uint32_t c = 0; c < b->dim; c += VL) {
		vf scale, min;

		fmt_k_params(b, tile, c, &scale, &min);
		for (uint32_t h = 0; h < heads; h++) {
			vf x = vf_load(q + h * q_stride + c);

			vf_store(coef + h * b->dim + c, vf_mul(x, scale));
			sum[h] = vf_fma(x, min, sum[h]);
		}
	}
	for (uint32_t h = 0; h < heads; h++)
		bias[h] = vf_sum(sum[h]);
}

static void dot_folded(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
		       size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	float coef[KV_DIRECT_HEADS * KV_MAX_DIM], bias[KV_DIRECT_HEADS];

	while (n) {
		uint32_t tile = row / b->tile_rows;
		uint32_t m = MIN(n, (tile + 1) * b->tile_rows - row);
		struct dot d = { fmt_k_rows(b, row), coef, b->dim, bias, b->dim, p, p_stride };

		dot_fold(b, tile, q, q_stride, heads, coef, bias);
		dot_rows(&d, m, heads, false);
		row += m;
		n -= m;
		p += m;
	}
}
#endif

static void dot_decoded(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	float x[KV_DECODE_ROWS * KV_MAX_DIM];

	for (uint32_t i = 0; i < n; i += KV_DECODE_ROWS) {
		uint32_t m = MIN(n - i, KV_DECODE_ROWS);
		struct dot d = {
			{ (const uint8_t *)x, NULL, 0 }, q, q_stride, NULL, b->dim, p + i, p_stride
		};

		stage_k_read(b, row + i, m, x);
		dot_rows(&d, m, heads, true);
	}
}

static void stage_k_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
	if (FMT_LEVELS > 1 && level) {
		scan_all(b, row, n, q, q_stride, heads, p, p_stride);
	} else if (heads > KV_DIRECT_HEADS || FMT_GROUP) {
		dot_decoded(b, row, n, q, q_stride, heads, p, p_stride);
	} else {
#if FMT_PLAIN || FMT_GROUP
		struct dot d = { fmt_k_rows(b, row), q, q_stride, NULL, b->dim, p, p_stride };

		dot_rows(&d, n, heads, false);
#else
		dot_folded(b, row, n, q, q_stride, heads, p, p_stride);
#endif
	}
}
