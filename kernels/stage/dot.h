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
#include "kernels/stage/ahead.h"
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
	struct ahead ahead;  /* plain rows as they lie */
	const float *packed; /* q, for tiles of several rows */
};

/* `rows` begin with the row wanted, or the first of a few. */
KV_FN vf dot_load(const struct dot *d, const struct kv_rows *rows, unsigned i, size_t c,
		  bool decoded)
{
	const void *x = rows->upper;

	if (decoded)
		return vf_load((const float *)x + i * (size_t)d->dim + c);
	return fmt_k_load(rows, i, c);
}

KV_FN struct kv_rows dot_rows_at(const struct dot *d, uint32_t at, bool decoded)
{
	struct kv_rows rows = d->rows;

	rows.upper += at * (decoded ? d->dim * sizeof(float) : rows.stride);
	if (!decoded && rows.lower)
		rows.lower += at * rows.stride;
	return rows;
}

/* packed: what the heads of a tile have for the same channels lies side by side. One address and
 * constants reach it; with a register for each head, addresses are spilled. */
KV_FN void dot_tile(const struct dot *d, uint32_t at, uint32_t head, unsigned rows, unsigned heads,
		    bool decoded)
{
	const bool packed = rows > 1 && !decoded;
	const struct kv_rows from = dot_rows_at(d, at, decoded);
	const float *q = packed ? d->packed + head * (size_t)d->dim : d->q + head * d->q_stride;
	const size_t share = KV_DOT_ROWS * fmt_k_stride(VL);
	vf acc[4][KV_DOT_ROWS];

	KV_EACH (h, heads)
		KV_EACH (i, rows)
			acc[h][i] = vf_set(0);
	for (size_t c = 0; c < d->dim; c += VL) {
		vf x[KV_DOT_ROWS];

		KV_EACH (i, rows)
			x[i] = dot_load(d, &from, i, c, decoded);
		KV_EACH (h, heads) {
			vf w = vf_load(packed ? q + h * VL : q + h * d->q_stride + c);

			KV_EACH (i, rows)
				acc[h][i] = vf_fma(x[i], w, acc[h][i]);
		}
		if (packed)
			q += heads * VL;
		if (FMT_PLAIN && packed && head == 0)
			ahead_ask(&d->ahead, from.upper + c / VL * share, share);
	}
	if (rows == KV_DOT_ROWS && heads == 4) {
		vf_sum_tile(d->p + head * d->p_stride + at, d->p_stride, acc,
			    d->bias ? d->bias + head : NULL);
		return;
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

/* By tiles of heads as dot_heads takes them: [dim / VL][heads of the tile][VL]. */
KV_FN void dot_pack(const struct dot *d, uint32_t heads, float *to)
{
	for (uint32_t h = 0, n; h < heads; h += n, to += (size_t)n * d->dim) {
		n = heads - h >= 4 ? 4 : heads - h >= 2 ? 2 : 1;
		for (uint32_t c = 0; c < d->dim; c += VL)
			for (uint32_t i = 0; i < n; i++)
				vf_store(to + (size_t)c * n + i * VL,
					 vf_load(d->q + (h + i) * d->q_stride + c));
	}
}

KV_FN void dot_rows(struct dot *d, uint32_t n, uint32_t heads, bool decoded)
{
	float packed[KV_DIRECT_HEADS * KV_MAX_DIM];
	uint32_t i = 0;

	d->packed = packed;
	if (!decoded && n >= KV_DOT_ROWS)
		dot_pack(d, heads, packed);

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
		struct dot d = { .rows = fmt_k_rows(b, row),
				 .q = coef,
				 .q_stride = b->dim,
				 .bias = bias,
				 .dim = b->dim,
				 .p = p,
				 .p_stride = p_stride };

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
	struct kv_rows rows = fmt_k_rows(b, row);
	struct ahead ahead = ahead_k(b);
	float x[KV_DECODE_ROWS * KV_MAX_DIM];

	for (uint32_t i = 0; i < n; i += KV_DECODE_ROWS) {
		uint32_t m = MIN(n - i, KV_DECODE_ROWS);
		struct dot d = { .rows = { (const uint8_t *)x, NULL, 0 },
				 .q = q,
				 .q_stride = q_stride,
				 .dim = b->dim,
				 .p = p + i,
				 .p_stride = p_stride };

		if (FMT_PLAIN)
			ahead_ask(&ahead, rows.upper + i * rows.stride, m * rows.stride);
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
		struct dot d = { .rows = fmt_k_rows(b, row),
				 .q = q,
				 .q_stride = q_stride,
				 .dim = b->dim,
				 .p = p,
				 .p_stride = p_stride,
				 .ahead = ahead_k(b) };

		dot_rows(&d, n, heads, false);
#else
		dot_folded(b, row, n, q, q_stride, heads, p, p_stride);
#endif
	}
}
