/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scratch of one KV head: the same walk counts its bytes and, given
 * memory, places its arrays.
 */
#include "kernels/exec-private.h"
#include "shm/base.h"

struct layout {
	char *base; /* NULL: only count */
	uint64_t used;
};

static void *take(struct layout *l, uint64_t n, size_t bytes)
{
	uint64_t at = l->used;

	l->used += ALIGN_UP(n * bytes, 64);
	return l->base ? l->base + at : NULL;
}

/* Rows of equal scores of two heads must not fall into one cache set. */
static size_t score_stride(uint32_t rows)
{
	size_t stride = ALIGN_UP((size_t)rows, 16);

	return stride % 1024 ? stride : stride + 16;
}

static uint64_t topk_words(uint32_t n, uint32_t k)
{
	return n / 64 + 2 * (uint64_t)k + 64;
}

/* Of the scores that are not kept all: those that will be wanted, most likely. */
static void lay_out_aside(struct state *s, struct layout *l)
{
	uint32_t groups = s->keeps ? 0 : s->shares * SHARE_ASIDE;

	s->a_stride = score_stride(s->visible);
	s->a = take(l, s->heads * (uint64_t)s->a_stride, sizeof(*s->a));
	s->aside_group = take(l, groups, sizeof(*s->aside_group));
	s->aside_n = take(l, s->keeps ? 0 : s->shares, sizeof(*s->aside_n));
	s->aside = take(l, (uint64_t)groups * s->heads, KV_GROUP_ROWS * sizeof(*s->aside));
	s->low_stride = s->high_stride = s->a_stride;
	s->low = s->a;
	s->high = l->base ? s->a + s->high_first : NULL;
	if (s->keeps)
		return;
	s->low_stride = ALIGN_UP(s->low_end, 16);
	s->low = take(l, s->heads * (uint64_t)s->low_stride, sizeof(*s->low));
	s->high_stride = ALIGN_UP(s->visible - s->high_first, 16);
	s->high = take(l, s->heads * (uint64_t)s->high_stride, sizeof(*s->high));
}

/* What is small and used first comes first: a step begins with a cold scratch, and every page of it
 * costs a walk through the tables. */
static void lay_out_score(struct state *s, const struct kv_plan *p, struct layout *l)
{
	uint32_t k = s->r, n; /* the channels are a topk of their own */

	for (unsigned i = 0; i < p->n_ops; i++)
		if (p->op[i].kind == KV_OP_TOPK)
			k = MAX(k, MIN(p->op[i].n[0], s->visible));
	n = MAX(s->visible, s->blocks * BLOCK_GROUPS);
	s->buffer_floats = (s->keeps ? 1 : s->heads + 1) * (size_t)BLOCK_STRIDE;
	s->channel = take(l, s->r, sizeof(*s->channel));
	s->coef = take(l, (uint64_t)s->heads * s->r, sizeof(*s->coef));
	s->score_lse = take(l, s->heads, sizeof(*s->score_lse));
	s->sum = take(l, s->heads, sizeof(*s->sum));
	s->topk = take(l, topk_words(MAX(n, KV_MAX_DIM), k), sizeof(uint32_t));
	s->index = take(l, k, sizeof(*s->index));
	s->block_ref = take(l, (uint64_t)s->blocks * s->heads, sizeof(*s->block_ref));
	s->block_sum = take(l, (uint64_t)s->blocks * s->heads, sizeof(*s->block_sum));
	s->group_max = take(l, (uint64_t)s->blocks * BLOCK_GROUPS, sizeof(*s->group_max));
	s->weights = take(l, s->blocks, sizeof(*s->weights));
	s->near = take(l, (uint64_t)s->blocks * BLOCK_GROUPS, sizeof(*s->near));
	s->c = take(l, n, sizeof(*s->c));
	if (s->buffer_floats > BUFFER_LOCAL)
		s->buffer = take(l, s->shares * (uint64_t)s->buffer_floats, sizeof(*s->buffer));
	lay_out_aside(s, l);
	s->gathered = take(l, s->visible, sizeof(*s->gathered));
}

static struct work take_work(const struct state *s, struct layout *l, uint32_t rows)
{
	const struct kv_space *x = s->map.space;
	struct work w = { 0 };

	w.p = take(l, (uint64_t)rows * P_STRIDE, sizeof(*w.p));
	for (unsigned i = 0; i < 2; i++)
		w.piece[i] = take(l, BLOCK_PIECES, sizeof(*w.piece[i]));
	if (s->mode == KV_EXEC_SCORE) {
		w.k = take(l, (uint64_t)WIDE_ROWS * x->k_dim, sizeof(*w.k));
		w.v = take(l, (uint64_t)WIDE_ROWS * x->v_dim, sizeof(*w.v));
	}
	return w;
}

static void lay_out_parts(struct state *s, struct layout *l)
{
	uint32_t rows = s->heads + s->sums;

	for (uint32_t i = 0; i < s->ranges; i++) {
		float *y = take(l, (uint64_t)rows * s->map.space->v_dim, sizeof(*y));
		float *lse = take(l, s->heads, sizeof(*lse));
		float *sum = take(l, s->heads, sizeof(*sum));

		if (l->base)
			s->part[i] = (struct part){ y, lse, sum };
	}
}

static void lay_out_works(struct state *s, struct layout *l, uint32_t n)
{
	uint32_t q = s->mode == KV_EXEC_SCORE ? s->n_q : s->block_q;

	for (uint32_t i = 0; i < n; i++) {
		struct work work = take_work(s, l, q * s->group + s->sums);

		if (l->base)
			s->work[i] = work;
	}
}

uint64_t exec_lay_out(struct state *s, const struct kv_plan *p, char *base)
{
	uint32_t works = s->many ? 0 : s->mode == KV_EXEC_SCORE ? 1 : s->shares;
	bool queries = s->mode == KV_EXEC_SCORE || !s->many;
	struct layout l = { .base = base };

	take(&l, 1, sizeof(*s));
	s->part = take(&l, s->ranges, sizeof(*s->part));
	s->work = take(&l, works, sizeof(*s->work));
	if (queries)
		s->q = take(&l, (uint64_t)s->heads * s->map.space->k_dim, sizeof(*s->q));
	s->alpha = take(&l, s->heads, sizeof(*s->alpha));
	for (unsigned i = 0; i < p->n_ops; i++)
		s->sel[i].run = take(&l, exec_select_bound(s, p, i), sizeof(struct run));
	lay_out_parts(s, &l);
	if (s->mode == KV_EXEC_SCORE)
		lay_out_score(s, p, &l);
	lay_out_works(s, &l, works);
	return l.used;
}
