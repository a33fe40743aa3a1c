/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step in two parts: see kernels/gpu.h.
 *
 * A part is a step of its own, over a view that begins with its first row: rows of the
 * newer part are numbered from 0. What a plan chooses by place it chooses the same of; what it
 * ranks, each part ranks among its own rows, of which it takes as many as the plan says. So the
 * rows that are chosen of both are at least those that would be chosen of all, where ranks
 * are sums of scores; the newest rows that are taken unseen are the same.
 */
#include "kernels/gpu.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "kernels/plan-private.h"
#include "shm/base.h"

struct cut {
	uint32_t row;     /* the first of the newer part */
	uint32_t visible; /* rows of all that the last query sees */
	uint32_t tail_first, sinks;
};

/* ---- rows ------------------------------------------------------------------------------ */

static void split_view(const struct kv_view *v, uint32_t cut, struct kv_extent *extent,
		       struct kv_half *older, struct kv_half *newer)
{
	uint32_t n = 0;

	while (n < v->n_extents && v->extent[n].first_row < cut)
		n++;
	older->view = *v;
	older->view.rows = older->view.tail_first = cut;
	older->view.tail_rows = 0;
	older->view.n_extents = n;
	newer->view = *v;
	newer->view.rows -= cut;
	newer->view.tail_first -= cut;
	newer->view.n_sinks = 0;
	newer->view.sinks = NULL;
	newer->view.n_extents = v->n_extents - n;
	newer->view.extent = extent;
	for (uint32_t i = n; i < v->n_extents; i++) {
		extent[i - n] = v->extent[i];
		extent[i - n].first_row -= cut;
	}
}

/* ---- what is chosen of them -------------------------------------------------------------- */

static void split_range(const struct kv_op *op, const struct cut *c, struct kv_op *older,
			struct kv_op *newer)
{
	uint64_t first = op->n[0], end = first + op->n[1];

	older->n[0] = (uint32_t)MIN(first, c->row);
	older->n[1] = (uint32_t)MIN(end, c->row) - older->n[0];
	newer->n[0] = (uint32_t)(MAX(first, c->row) - c->row);
	newer->n[1] = (uint32_t)(MAX(end, c->row) - c->row) - newer->n[0];
}

static void split_window(const struct kv_op *op, const struct cut *c, struct kv_op *older,
			 struct kv_op *newer)
{
	uint32_t there = c->visible - c->row;

	/* Those of the step are what each part has of them: all sinks are older, the tail newer. */
	if (op->n[0] != KV_WINDOW_STEP) {
		older->n[0] = MIN(op->n[0], c->row);
		newer->n[0] = op->n[0] - older->n[0];
	}
	if (op->n[1] != KV_WINDOW_STEP) {
		newer->n[1] = MIN(op->n[1], there);
		older->n[1] = op->n[1] - newer->n[1];
	}
}

/* k of each; the newest of the candidates are so of all. */
static void split_topk(const struct kv_op *op, const struct cut *c, struct kv_op *older,
		       struct kv_op *newer)
{
	uint32_t end = op->n[3] ? MIN(c->tail_first, c->visible) : c->visible;
	uint32_t there = end > c->row ? end - c->row : 0, recent = MIN(op->n[1], op->n[0]);

	newer->n[1] = MIN(recent, there);
	older->n[1] = recent - newer->n[1];
}

static int split_op(const struct kv_op *op, const struct cut *c, struct kv_op *older,
		    struct kv_op *newer)
{
	*older = *newer = *op;
	switch (op->kind) {
	case KV_OP_RANGE:
		split_range(op, c, older, newer);
		return 0;
	case KV_OP_WINDOW:
		split_window(op, c, older, newer);
		return 0;
	case KV_OP_TOPK:
		split_topk(op, c, older, newer);
		return 0;
	case KV_OP_ALL:
	case KV_OP_SCORE:
	case KV_OP_SCORE_DIMS:
	case KV_OP_UNION:
	case KV_OP_ATTEND:
	case KV_OP_OUTPUT:
		return 0;
	case KV_OP_MEAN_REST:
		/* Which part the mass of the others is in, nobody says head by head. */
		return op->n[0] == KV_MEAN_OFF ? 0 : -EOPNOTSUPP;
	default:
		return -EOPNOTSUPP;
	}
}

static int split_plan(const struct kv_plan *p, const struct cut *c, struct kv_plan *older,
		      struct kv_plan *newer)
{
	int r = 0;

	*older = *newer = *p;
	for (unsigned i = 0; r == 0 && i < p->n_ops; i++)
		r = split_op(&p->op[i], c, &older->op[i], &newer->op[i]);
	return r;
}

int kv_split(const struct kv_gpu_item *whole, uint32_t cut, struct kv_extent *extent,
	     struct kv_half *ret_older, struct kv_half *ret_newer)
{
	const struct kv_view *v = whole->view;
	const struct kv_query *q = whole->query;
	uint64_t limit = q->full ? v->rows : MIN(v->rows, (uint64_t)q->first_limit + q->n_q - 1);
	const struct cut c = { cut, (uint32_t)limit, v->tail_first, v->n_sinks };
	struct kv_half older, newer;

	/* Both have rows, of each query. */
	if (cut <= v->n_sinks || cut >= (q->full ? v->rows : MIN(v->rows, q->first_limit)))
		return -EINVAL;
	if (split_plan(whole->plan, &c, &older.plan, &newer.plan) < 0)
		return -EOPNOTSUPP;
	split_view(v, cut, extent, &older, &newer);
	older.query = newer.query = *q;
	newer.query.first_limit -= q->full ? MIN(cut, q->first_limit) : cut;
	*ret_older = older;
	*ret_newer = newer;
	return 0;
}

int kv_splits(const struct kv_space *s, char *why)
{
	const struct kv_step step = { .rows = 1u << 20,
				      .sealed = 1u << 20,
				      .n_q = 1,
				      .layers = 1,
				      .group = s->group,
				      .k_dim = s->k_dim,
				      .v_dim = s->v_dim };
	const struct cut c = { .row = 1u << 19, .visible = 1u << 20, .tail_first = 1u << 20 };
	struct kv_plan plan, older, newer;

	kv_plan_init(&plan);
	s->policy->plan(&plan, &step, s->args);
	for (unsigned i = 0; i < plan.n_ops; i++) {
		if (split_op(&plan.op[i], &c, &older.op[0], &newer.op[0]) == 0)
			continue;
		snprintf(why, KV_ERROR_TEXT,
			 plan.op[i].kind == KV_OP_MEAN_REST
				 ? "policy %s gives the mass of other rows to a mean of V, which "
				   "parts cannot: mean=off is allowed"
				 : "policy %s has an operation that has no parts",
			 s->policy->name);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* ---- what they give ------------------------------------------------------------------------ */

/* methods of sequence-sharded heads: the larger of both leads, an empty part has no weight. */
static float merge_row(float *to, float to_lse, const float *from, float from_lse, uint32_t dim)
{
	float top = MAX(to_lse, from_lse), a, b;

	if (top == -INFINITY)
		return top;
	a = expf(to_lse - top);
	b = expf(from_lse - top);
	for (uint32_t c = 0; c < dim; c++)
		to[c] = (a * to[c] + b * from[c]) / (a + b);
	return top + logf(a + b);
}

void kv_merge(const struct kv_space *s, uint32_t n_q, struct kv_result *to,
	      const struct kv_result *from)
{
	for (uint32_t h = 0; h < n_q * s->group; h++)
		to->lse[h] = merge_row(to->y + (size_t)h * s->v_dim, to->lse[h],
				       from->y + (size_t)h * s->v_dim, from->lse[h], s->v_dim);
	to->n_selected += from->n_selected;
	to->n_scored += from->n_scored;
	to->alpha_min = MIN(to->alpha_min, from->alpha_min);
	to->alpha_sum = MIN(to->alpha_sum, from->alpha_sum);
}
