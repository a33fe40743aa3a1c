/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_dot and v_axpy of formats whose rows have groups of 64 four-bit numbers
 * (FMT_GROUP). A row's scale and min are its own, so they cannot be folded into
 * a query or an output; a group is decoded into registers instead (vg_load),
 * once for up to four heads.
 *
 * A vector of a group holds its numbers in the order in which the ISA unpacks
 * them cheapest. Queries are brought into that order once a call, and outputs
 * out of it at the end. What a last group has beyond the row is read, finite,
 * and multiplied by a zero or dropped: it lies inside the block, for the codes
 * are followed by parameters.
 */
#pragma once

#include "kernels/codec.h"
#include "kernels/stage/axpy.h"
#include "kernels/stage/dot.h"

#if FMT_GROUP
#define GROUP_ROWS 32u /* whose parameters are widened side by side */
#define GROUP_VECS (FMT_GROUP / VL)
#define GROUP_BYTES (FMT_GROUP / 2)
#define MAX_GROUPS (KV_MAX_DIM / FMT_GROUP)

_Static_assert(FMT_GROUP == 64, "vg_load reads 64 numbers");
_Static_assert(KV_MAX_DIM % FMT_GROUP == 0, "rows of permuted numbers");

struct group_rows {
	const uint8_t *codes; /* of the first row */
	size_t stride;
	uint32_t n, groups;
	/* By group; the first row's at [first], for vectors are read where they are aligned. */
	uint32_t first;
	float scale[MAX_GROUPS][GROUP_ROWS + VL], min[MAX_GROUPS][GROUP_ROWS + VL];
};

/* Rows [row, row + n), n at most GROUP_ROWS. */
KV_FN void group_rows(const struct kv_block *b, const struct kv_rows *rows, uint32_t row,
		      uint32_t n, struct group_rows *ret)
{
	ret->codes = rows->upper;
	ret->stride = rows->stride;
	ret->n = n;
	ret->groups = DIV_UP(b->dim, (uint32_t)FMT_GROUP);
	ret->first = row % VL;
	for (uint32_t g = 0; g < ret->groups; g++)
		for (uint32_t i = 0; i < ret->first + n; i += VL) {
			vf scale, min;

			vf_gather_pair(fmt_group_pair(b, row - ret->first + i, g),
				       sizeof(struct kv_pair), &scale, &min);
			vf_store(&ret->scale[g][i], scale);
			vf_store(&ret->min[g][i], min);
		}
}

KV_FN vg group_load(const struct group_rows *r, uint32_t at, uint32_t g)
{
	return vg_load(r->codes + at * r->stride + (size_t)g * GROUP_BYTES,
		       r->scale[g][r->first + at], r->min[g][r->first + at]);
}

/* ---- k_dot ------------------------------------------------------------------ */

/* heads x rows; q and p are those of the first head. */
KV_FN void group_dot_tile(const struct group_rows *r, uint32_t at, const float *q, unsigned rows,
			  unsigned heads, float *p, size_t p_stride)
{
	vf acc[4][4];

	KV_EACH (h, heads)
		KV_EACH (i, rows)
			acc[h][i] = vf_set(0);
	for (uint32_t g = 0; g < r->groups; g++) {
		const float *w = q + (size_t)g * FMT_GROUP;
		vg x[4];

		KV_EACH (i, rows)
			x[i] = group_load(r, at + i, g);
		KV_EACH (k, GROUP_VECS) {
			vf y[4];

			KV_EACH (i, rows)
				y[i] = vg_get(x[i], k);
			KV_EACH (h, heads)
				KV_EACH (i, rows)
					acc[h][i] =
						vf_fma(y[i], vf_load(w + h * KV_MAX_DIM + k * VL),
						       acc[h][i]);
		}
	}
	KV_EACH (h, heads) {
		float sum[4];

		if (rows == 4) {
			vf_sum4(sum, acc[h][0], acc[h][1], acc[h][2], acc[h][3]);
		} else {
			KV_EACH (i, rows)
				sum[i] = vf_sum(acc[h][i]);
		}
		KV_EACH (i, rows)
			p[h * p_stride + at + i] = sum[i];
	}
}

KV_FN void group_dot_heads(const struct group_rows *r, uint32_t at, const float *q, unsigned rows,
			   uint32_t heads, float *p, size_t p_stride)
{
	uint32_t h = 0;

	for (; h + 4 <= heads; h += 4)
		group_dot_tile(r, at, q + h * KV_MAX_DIM, rows, 4, p + h * p_stride, p_stride);
	for (; h + 2 <= heads; h += 2)
		group_dot_tile(r, at, q + h * KV_MAX_DIM, rows, 2, p + h * p_stride, p_stride);
	if (h < heads)
		group_dot_tile(r, at, q + h * KV_MAX_DIM, rows, 1, p + h * p_stride, p_stride);
}

/* One row in the order of vg_get; zeros where its last group has no channel. */
static void group_order(const float *q, uint32_t dim, float *ret)
{
	float last[FMT_GROUP];

	for (uint32_t from = 0; from < dim; from += FMT_GROUP) {
		const float *x = q + from;

		if (dim - from < FMT_GROUP) {
			memset(last, 0, sizeof(last));
			x = memcpy(last, x, (dim - from) * sizeof(*x));
		}
		KV_EACH (k, GROUP_VECS)
			KV_EACH (i, VL)
				ret[from + k * VL + i] = x[vg_channel(k, i)];
	}
}

/* y += a row in that order. */
static void group_add(const float *sum, uint32_t dim, float *y)
{
	float x[FMT_GROUP];

	for (uint32_t from = 0; from < dim; from += FMT_GROUP, y += FMT_GROUP) {
		uint32_t n = MIN(dim - from, (uint32_t)FMT_GROUP);

		KV_EACH (k, GROUP_VECS)
			KV_EACH (i, VL)
				x[vg_channel(k, i)] = sum[from + k * VL + i];
		for (uint32_t c = 0; c < n; c += VL)
			vf_store(y + c, vf_add(vf_load(y + c), vf_load(x + c)));
	}
}

static void group_k_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
	float ordered[KV_DIRECT_HEADS * KV_MAX_DIM];
	struct group_rows r;

	if (heads > KV_DIRECT_HEADS) {
		stage_k_dot(b, row, n, q, q_stride, heads, p, p_stride, level);
		return;
	}
	for (uint32_t h = 0; h < heads; h++)
		group_order(q + h * q_stride, b->dim, ordered + h * KV_MAX_DIM);
	for (uint32_t from = 0; from < n; from += GROUP_ROWS) {
		struct kv_rows rows = fmt_k_rows(b, row + from);
		uint32_t i = 0;

		group_rows(b, &rows, row + from, MIN(n - from, GROUP_ROWS), &r);
		for (; i + KV_DOT_ROWS <= r.n; i += KV_DOT_ROWS)
			group_dot_heads(&r, i, ordered, KV_DOT_ROWS, heads, p + from, p_stride);
		for (; i < r.n; i++)
			group_dot_heads(&r, i, ordered, 1, heads, p + from, p_stride);
	}
}

/* ---- v_axpy ----------------------------------------------------------------- */

/* Vectors [k, k + vecs) of one group, of `heads` outputs in the order of vg_get. */
KV_FN void group_axpy_tile(const struct group_rows *r, uint32_t g, unsigned k, unsigned vecs,
			   unsigned heads, const float *p, size_t p_stride, float *y)
{
	float *to = y + (size_t)g * FMT_GROUP + k * VL;
	vf acc[4][4];

	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			acc[h][v] = vf_load(to + h * KV_MAX_DIM + v * VL);
	for (uint32_t i = 0; i < r->n; i++) {
		vg x = group_load(r, i, g);
		vf part[4];

		KV_EACH (v, vecs)
			part[v] = vg_get(x, k + v);
		KV_EACH (h, heads) {
			vf w = vf_set(p[h * p_stride + i]);

			KV_EACH (v, vecs)
				acc[h][v] = vf_fma(w, part[v], acc[h][v]);
		}
	}
	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			vf_store(to + h * KV_MAX_DIM + v * VL, acc[h][v]);
}

KV_FN void group_axpy_heads(const struct group_rows *r, uint32_t g, unsigned heads, const float *p,
			    size_t p_stride, float *y)
{
	KV_EACH (k, GROUP_VECS / KV_AXPY_VECS)
		group_axpy_tile(r, g, k * KV_AXPY_VECS, KV_AXPY_VECS, heads, p, p_stride, y);
}

static void group_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	float sum[KV_DIRECT_HEADS * KV_MAX_DIM];
	struct group_rows r;

	if (heads > KV_DIRECT_HEADS) {
		stage_v_axpy(b, row, n, p, p_stride, heads, y, y_stride, level);
		return;
	}
	memset(sum, 0, heads * KV_MAX_DIM * sizeof(*sum));
	for (uint32_t from = 0; from < n; from += GROUP_ROWS) {
		struct kv_rows rows = fmt_v_rows(b, row + from);

		group_rows(b, &rows, row + from, MIN(n - from, GROUP_ROWS), &r);
		for (uint32_t g = 0; g < r.groups; g++) {
			uint32_t h = 0;

			for (; h + 4 <= heads; h += 4)
				group_axpy_heads(&r, g, 4, p + h * p_stride + from, p_stride,
						 sum + h * KV_MAX_DIM);
			for (; h < heads; h++)
				group_axpy_heads(&r, g, 1, p + h * p_stride + from, p_stride,
						 sum + h * KV_MAX_DIM);
		}
	}
	for (uint32_t h = 0; h < heads; h++)
		group_add(sum + h * KV_MAX_DIM, b->dim, y + h * y_stride);
}
#endif
