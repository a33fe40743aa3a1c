/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of many heads over the same rows: a head is a lane of vectors, a
 * row of K or V is broadcast to all of them. So scores, softmax and output are
 * products and vertical sums; no number crosses lanes, and a head's bits do not
 * depend on which heads run beside it.
 *
 * Heads go in strips of KV_PRODUCT_VECS vectors, what is left in strips of one.
 * A strip's queries [k_dim][lanes], weights [rows][lanes] and output
 * [v_dim][lanes] each lie in one piece, so that a tile walks through lines in
 * their order.
 *
 * The order of sums, on every ISA: a score adds its channels upwards; a block's
 * weights, and its rows of V to what was there, upwards as well. Who includes
 * this has exp_accurate.
 */
#pragma once

#include "kernels/codec.h"
#include "kernels/stage/product.h"

#define LANES_WIDE (KV_PRODUCT_VECS * VL)

_Static_assert(KV_LANES % LANES_WIDE == 0, "the arrays of struct kv_lanes end with a strip");

struct strip {
	uint32_t head, lanes; /* of its first lane; of all */
};

/* The strip that has the head. */
KV_FN struct strip lanes_strip(const struct kv_lanes *l, uint32_t head)
{
	uint32_t wide = ALIGN_UP(l->heads, VL) / LANES_WIDE * LANES_WIDE;
	uint32_t lanes = head < wide ? LANES_WIDE : VL;

	return (struct strip){ head / lanes * lanes, lanes };
}

static void op_lanes_begin(const struct kv_lanes *l)
{
	struct strip last = lanes_strip(l, l->heads - 1);

	memset(l->q + (size_t)last.head * l->k_dim, 0,
	       (size_t)last.lanes * l->k_dim * sizeof(*l->q));
	memset(l->y, 0, (size_t)(last.head + last.lanes) * l->v_dim * sizeof(*l->y));
	for (uint32_t h = 0; h < last.head + last.lanes; h++) {
		l->max[h] = -INFINITY;
		l->sum[h] = 0;
	}
}

static void op_lanes_query(const struct kv_lanes *l, uint32_t head, const float *q)
{
	struct strip s = lanes_strip(l, head);
	float *to = l->q + (size_t)s.head * l->k_dim + (head - s.head);

	for (uint32_t c = 0; c < l->k_dim; c++, to += s.lanes)
		*to = q[c];
}

struct lanes_block {        /* of a strip */
	float *p;           /* [rows][lanes]: logits, then weights */
	const float *limit; /* rows that a lane sees; NULL: all see all */
	uint32_t all, n;    /* rows that all lanes see, that any does */
	uint32_t dim;
	float *max, *sum, *y;
};

/* What a lane does not see weighs 0, and its maximum does not know of it; NaN is none either. */
KV_FN void lanes_top(const struct lanes_block *b, unsigned vecs, vf *top)
{
	KV_EACH (v, vecs)
		top[v] = vf_load(b->max + v * VL);
	for (uint32_t i = 0; i < b->n; i++) {
		float *p = b->p + (size_t)i * vecs * VL;

		KV_EACH (v, vecs) {
			vf x = vf_load(p + v * VL);

			if (i >= b->all) {
				x = vf_if_ge(vf_set((float)i), vf_load(b->limit + v * VL),
					     vf_set(-INFINITY), x);
				vf_store(p + v * VL, x);
			}
			top[v] = vf_max(x, top[v]);
		}
	}
}

/* Where a maximum moved, what was summed so far shrinks: e^0 of the others is exactly 1. */
KV_FN void lanes_rescale(const struct lanes_block *b, unsigned vecs, const vf *top)
{
	vf zero = vf_set(0), old[KV_PRODUCT_VECS];
	bool moved = false;

	KV_EACH (v, vecs) {
		vf max = vf_load(b->max + v * VL);

		moved |= vf_ge(max, top[v]) != (uint32_t)((UINT64_C(1) << VL) - 1);
		old[v] = exp_accurate(vf_sub(max, top[v]));
	}
	if (!moved)
		return;
	KV_EACH (v, vecs) {
		vf_store(b->max + v * VL, top[v]);
		vf_store(b->sum + v * VL, vf_mul(vf_load(b->sum + v * VL), old[v]));
	}
	for (uint32_t c = 0; c < b->dim; c++)
		KV_EACH (v, vecs) {
			float *y = b->y + (c * vecs + v) * VL;
			vf x = vf_mul(vf_load(y), old[v]);

			vf_store(y, vf_if_ge(zero, old[v], zero, x));
		}
}

KV_FN void lanes_softmax(const struct lanes_block *b, unsigned vecs)
{
	vf top[KV_PRODUCT_VECS], sum[KV_PRODUCT_VECS];

	lanes_top(b, vecs, top);
	lanes_rescale(b, vecs, top);
	KV_EACH (v, vecs)
		sum[v] = vf_set(0);
	for (uint32_t i = 0; i < b->n; i++)
		KV_EACH (v, vecs) {
			float *p = b->p + ((size_t)i * vecs + v) * VL;
			vf x = exp_accurate(vf_sub(vf_load(p), top[v]));

			vf_store(p, x);
			sum[v] = vf_add(sum[v], x);
		}
	KV_EACH (v, vecs)
		vf_store(b->sum + v * VL, vf_add(vf_load(b->sum + v * VL), sum[v]));
}

KV_FN void lanes_attend(const struct kv_lanes *l, const struct lanes_block *b, uint32_t head,
			unsigned vecs, const float *k, const float *v)
{
	struct product score = { .a = k, .a_i = l->k_dim, .a_j = 1, .n = l->k_dim, .out = b->p };
	struct product add = { .a = v, .a_i = 1, .a_j = l->v_dim, .n = b->all, .out = b->y };

	score.b = l->q + (size_t)head * l->k_dim;
	product_rows(&score, b->n, vecs, false, false);
	lanes_softmax(b, vecs);
	add.b = b->p;
	product_rows(&add, l->v_dim, vecs, true, false);
	if (b->all == b->n)
		return;
	add.first = b->all;
	add.n = b->n;
	add.limit = b->limit;
	product_rows(&add, l->v_dim, vecs, true, true);
}

static void lanes_attend_wide(const struct kv_lanes *l, const struct lanes_block *b, uint32_t head,
			      const float *k, const float *v)
{
	lanes_attend(l, b, head, KV_PRODUCT_VECS, k, v);
}

static void lanes_attend_one(const struct kv_lanes *l, const struct lanes_block *b, uint32_t head,
			     const float *k, const float *v)
{
	lanes_attend(l, b, head, 1, k, v);
}

static void op_lanes_rows(const struct kv_lanes *l, const float *k, const float *v, uint32_t n,
			  const uint32_t *below)
{
	_Alignas(KV_LINE) float p[KV_LANES_ROWS * LANES_WIDE];
	float limit[LANES_WIDE];
	struct strip s;

	for (uint32_t h = 0; h < l->heads; h += s.lanes) {
		struct lanes_block b = { .p = p, .limit = limit, .all = n, .n = n };

		s = lanes_strip(l, h);
		b.dim = l->v_dim;
		b.max = l->max + h;
		b.sum = l->sum + h;
		b.y = l->y + (size_t)h * l->v_dim;
		for (uint32_t i = 0; i < s.lanes && below; i++)
			limit[i] = (float)below[MIN(h + i, l->heads - 1)];
		if (below) {
			b.all = below[h];
			b.n = below[MIN(h + s.lanes, l->heads) - 1];
		}
		if (b.n && s.lanes == LANES_WIDE)
			lanes_attend_wide(l, &b, h, k, v);
		else if (b.n)
			lanes_attend_one(l, &b, h, k, v);
	}
}

static void op_lanes_end(const struct kv_lanes *l, float *ret_y, float *ret_lse)
{
	for (uint32_t h = 0; h < l->heads; h++, ret_y += l->v_dim) {
		struct strip s = lanes_strip(l, h);
		const float *y = l->y + (size_t)s.head * l->v_dim + (h - s.head);
		float sum = l->sum[h];
		vf inverse = vf_set(sum == 0 ? 1 : 1 / sum);

		for (uint32_t c = 0; c < l->v_dim; c += VL) {
			vf x = vf_gather_f32(y + (size_t)c * s.lanes, s.lanes * sizeof(*y), 0);

			vf_store(ret_y + c, vf_mul(x, inverse));
		}
		ret_lse[h] = sum == 0 ? -INFINITY : l->max[h] + logf(sum);
	}
}
