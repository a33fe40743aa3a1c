/* SPDX-License-Identifier: Apache-2.0 */
/*
 * y[h] += sum over i of p[h][i] * V[row + i].
 *
 * A row's scale goes into its weight (w = p * scale), its min into one number
 * per head that is added to all channels at the end of a block of rows. The
 * output stays in registers over a block; channels are taken in strips.
 */
#pragma once

#include "kernels/codec.h"
#include "kernels/stage/dot.h"
#include "kernels/stage/read.h"

#define KV_AXPY_ROWS 32u /* of a block: its lines stay in L1 from strip to strip */

struct axpy {
	struct kv_rows rows;
	const float *w;
	size_t w_stride;
	const float *bias; /* by head, NULL: none */
	uint32_t dim, n;
	unsigned level;
	const struct ahead *ahead; /* plain rows as they lie, else NULL */
	bool follows;              /* the next block is as long: its rows are asked for */
	float *y;
	size_t y_stride;
};

KV_FN vf axpy_load(const struct axpy *a, uint32_t at, uint32_t c, bool decoded)
{
	const void *rows = a->rows.upper;

	if (decoded)
		return vf_load((const float *)rows + (size_t)at * a->dim + c);
	return fmt_v_load(&a->rows, at, c, a->level);
}

/* Bytes [from, end) of a row. */
KV_FN void axpy_prefetch(const struct axpy *a, uint32_t at, size_t from, size_t end)
{
	size_t row = at * a->rows.stride;

	for (; from < end; from += KV_LINE) {
		__builtin_prefetch(a->rows.upper + row + from);
		if (a->rows.lower)
			__builtin_prefetch(a->rows.lower + row + from);
	}
}

KV_FN void axpy_tile(const struct axpy *a, uint32_t c, uint32_t head, unsigned vecs, unsigned heads,
		     bool decoded)
{
	const float *w = a->w + head * a->w_stride;
	float *y = a->y + head * a->y_stride + c;
	size_t from = c * a->rows.stride / a->dim, end = (c + vecs * VL) * a->rows.stride / a->dim;
	vf acc[4][8];

	KV_EACH (h, heads)
		KV_EACH (v, vecs) {
			acc[h][v] = vf_load(y + h * a->y_stride + v * VL);
			if (a->bias)
				acc[h][v] = vf_add(acc[h][v], vf_set(a->bias[head + h]));
		}
	for (uint32_t i = 0; i < a->n; i++) {
		vf x[8];

		if (a->ahead && head == 0)
			ahead_ask(a->ahead, a->rows.upper + i * a->rows.stride + from, end - from);
		if (a->follows && head == 0)
			axpy_prefetch(a, a->n + i, from, end);

		KV_EACH (v, vecs)
			x[v] = axpy_load(a, i, c + v * VL, decoded);
		KV_EACH (h, heads) {
			vf weight = vf_set(w[h * a->w_stride + i]);

			KV_EACH (v, vecs)
				acc[h][v] = vf_fma(weight, x[v], acc[h][v]);
		}
	}
	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			vf_store(y + h * a->y_stride + v * VL, acc[h][v]);
}

KV_FN void axpy_strip(const struct axpy *a, uint32_t c, unsigned vecs, uint32_t heads, bool decoded)
{
	uint32_t h = 0;

	for (; h + 4 <= heads; h += 4)
		axpy_tile(a, c, h, vecs, 4, decoded);
	if (heads & 2) {
		axpy_tile(a, c, h, vecs, 2, decoded);
		h += 2;
	}
	if (heads & 1)
		axpy_tile(a, c, h, vecs, 1, decoded);
}

KV_FN void axpy_rows(const struct axpy *a, uint32_t heads, bool decoded)
{
	uint32_t c = 0;

	if (heads <= 2) /* the registers hold twice as many channels */
		for (; c + 2 * KV_AXPY_VECS * VL <= a->dim; c += 2 * KV_AXPY_VECS * VL)
			axpy_strip(a, c, 2 * KV_AXPY_VECS, heads, decoded);
	for (; c + KV_AXPY_VECS * VL <= a->dim; c += KV_AXPY_VECS * VL)
		axpy_strip(a, c, KV_AXPY_VECS, heads, decoded);
	for (; c < a->dim; c += VL)
		axpy_strip(a, c, 1, heads, decoded);
}

#if !FMT_PLAIN && !FMT_GROUP
KV_FN void axpy_fold(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
		     size_t p_stride, uint32_t heads, unsigned level, float *w, float *bias)
{
	float scale[KV_AXPY_ROWS], min[KV_AXPY_ROWS];

	for (uint32_t i = 0; i < n; i++)
		fmt_v_params(b, row + i, level, &scale[i], &min[i]);
	for (uint32_t h = 0; h < heads; h++) {
		const float *from = p + h * p_stride;
		float sum = 0;

		for (uint32_t i = 0; i < n; i++) {
			w[h * KV_AXPY_ROWS + i] = from[i] * scale[i];
			sum += from[i] * min[i];
		}
		bias[h] = sum;
	}
}
#endif

KV_FN void axpy_direct(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
		       size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	struct ahead ahead = ahead_v(b);

	for (uint32_t i = 0; i < n; i += KV_AXPY_ROWS) {
		struct axpy a = { .rows = fmt_v_rows(b, row + i),
				  .w = p + i,
				  .w_stride = p_stride,
				  .dim = b->dim,
				  .n = MIN(n - i, KV_AXPY_ROWS),
				  .level = level,
				  .ahead = FMT_PLAIN ? &ahead : NULL,
				  .follows = !FMT_PLAIN && i + 2 * KV_AXPY_ROWS <= n,
				  .y = y,
				  .y_stride = y_stride };
#if !FMT_PLAIN && !FMT_GROUP
		float w[KV_DIRECT_HEADS * KV_AXPY_ROWS], bias[KV_DIRECT_HEADS];

		axpy_fold(b, row + i, a.n, a.w, p_stride, heads, level, w, bias);
		a.w = w;
		a.w_stride = KV_AXPY_ROWS;
		a.bias = bias;
#endif
		axpy_rows(&a, heads, false);
	}
}

static void axpy_decoded(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	struct kv_rows rows = fmt_v_rows(b, row);
	struct ahead ahead = ahead_v(b);
	float x[KV_DECODE_ROWS * KV_MAX_DIM];

	for (uint32_t i = 0; i < n; i += KV_DECODE_ROWS) {
		uint32_t m = MIN(n - i, KV_DECODE_ROWS);
		struct axpy a = { .rows = { (const uint8_t *)x, NULL, 0 },
				  .w = p + i,
				  .w_stride = p_stride,
				  .dim = b->dim,
				  .n = m,
				  .y = y,
				  .y_stride = y_stride };

		if (FMT_PLAIN)
			ahead_ask(&ahead, rows.upper + i * rows.stride, m * rows.stride);
		read_v(b, row + i, m, level, x);
		axpy_rows(&a, heads, true);
	}
}

static inline void stage_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
				size_t p_stride, uint32_t heads, float *y, size_t y_stride,
				unsigned level)
{
	if (heads > KV_DIRECT_HEADS || FMT_GROUP)
		axpy_decoded(b, row, n, p, p_stride, heads, y, y_stride, level);
	else if (FMT_LEVELS > 1 && level)
		axpy_direct(b, row, n, p, p_stride, heads, y, y_stride, 1);
	else
		axpy_direct(b, row, n, p, p_stride, heads, y, y_stride, 0);
}
