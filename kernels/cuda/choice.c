/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans as the GPU runs them: rows that are chosen whatever their scores, in a few
 * runs, and perhaps the k best of a range of rows by r channels or by all. That is what all
 * plans of the policies for decoding come to; what a union has twice counts once.
 */
#include "kernels/cuda/choice.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "kernels/plan-private.h"
#include "shm/base.h"

struct rows { /* of a selection */
	uint32_t n;
	struct kv_cuda_run run[2 * KV_CUDA_RUNS];
};

static int take(struct rows *s, uint32_t first, uint32_t n)
{
	struct kv_cuda_run *last = s->n ? &s->run[s->n - 1] : NULL;

	if (!n)
		return 0;
	if (last && first <= last->first + last->n) {
		last->n = MAX(last->first + last->n, first + n) - last->first;
		return 0;
	}
	if (s->n == ARRAY_SIZE(s->run))
		return -EOPNOTSUPP;
	s->run[s->n++] = (struct kv_cuda_run){ .first = first, .n = n };
	return 0;
}

static int take_both(const struct rows *a, const struct rows *b, struct rows *ret)
{
	uint32_t i = 0, j = 0;
	int r = 0;

	while (r == 0 && (i < a->n || j < b->n)) {
		bool from_a = j == b->n || (i < a->n && a->run[i].first <= b->run[j].first);
		const struct kv_cuda_run *x = from_a ? &a->run[i++] : &b->run[j++];

		r = take(ret, x->first, x->n);
	}
	return r;
}

static int take_best(const struct state *s, const struct kv_op *op, struct choice *c,
		     struct rows *ret)
{
	struct ranked x = exec_select_ranked(s, op);

	if (x.k == x.end - x.first)
		return take(ret, x.first, x.k + x.recent);
	c->k = x.k;
	c->rank_first = x.first;
	c->rank_end = x.end;
	c->softmax = s->heads > 1 && op->n[2] == KV_GROUP_SOFTMAX;
	return take(ret, x.end, x.recent);
}

static int take_window(const struct state *s, const struct kv_op *op, struct rows *ret)
{
	struct edges x = exec_select_edges(s, op);
	int r = take(ret, 0, x.first);

	return r ? r : take(ret, s->visible - x.recent, x.recent);
}

/* Rows [first, end) of one kind, as many as there are. */
static int take_kind(struct choice *c, uint32_t first, uint32_t end, bool sent)
{
	if (first >= end)
		return 0;
	if (c->n_runs == KV_CUDA_RUNS)
		return -EOPNOTSUPP;
	c->run[c->n_runs++] = (struct kv_cuda_run){
		.first = first,
		.n = end - first,
		.sent = sent,
		.at = sent ? c->fixed_sent : c->fixed - c->fixed_sent,
	};
	c->fixed += end - first;
	c->fixed_sent += sent ? end - first : 0;
	return 0;
}

/* Where sinks end and the tail begins, a run is cut. */
static int take_runs(const struct kv_view *view, const struct rows *s, struct choice *c)
{
	uint32_t sinks = view->n_sinks, tail = view->rows - view->tail_rows;
	int r = 0;

	for (uint32_t i = 0; i < s->n && r == 0; i++) {
		uint32_t first = s->run[i].first, end = first + s->run[i].n;

		r = take_kind(c, first, MIN(end, sinks), true);
		r = r ? r : take_kind(c, MAX(first, sinks), MIN(end, tail), false);
		r = r ? r : take_kind(c, MAX(first, MAX(sinks, tail)), end, true);
	}
	return r;
}

static int run_op(const struct state *s, const struct kv_op *op, struct choice *c,
		  struct rows *made, struct rows *ret)
{
	uint32_t first = MIN(op->n[0], s->visible);

	switch (op->kind) {
	case KV_OP_ALL:
		return take(ret, 0, s->visible);
	case KV_OP_RANGE:
		return take(ret, first, MIN(op->n[1], s->visible - first));
	case KV_OP_WINDOW:
		return take_window(s, op, ret);
	case KV_OP_UNION:
		return take_both(&made[op->a], &made[op->b], ret);
	case KV_OP_TOPK:
		return take_best(s, op, c, ret);
	case KV_OP_SCORE_DIMS:
		c->scored = true;
		c->r = MIN(op->n[0], s->map.space->k_dim);
		return 0;
	case KV_OP_SCORE:
		c->scored = c->exact = true;
		c->r = s->map.space->k_dim;
		return 0;
	case KV_OP_MEAN_REST:
		c->mean = op->n[0];
		return 0;
	case KV_OP_ATTEND:
		return take_runs(s->map.view, &made[op->a], c);
	case KV_OP_OUTPUT:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

int choice_make(const struct kv_gpu_item *item, struct choice *ret, char *why)
{
	struct rows made[KV_PLAN_OPS] = { 0 };
	struct state s = { .query = item->query,
			   .n_q = item->query->n_q,
			   .group = item->space->group,
			   .heads = item->query->n_q * item->space->group,
			   .map = { .space = item->space, .view = item->view } };
	struct choice c = { 0 };

	s.visible = c.visible = exec_limit(&s, s.n_q - 1);
	for (unsigned i = 0; i < item->plan->n_ops; i++) {
		const struct kv_op *op = &item->plan->op[i];

		if (run_op(&s, op, &c, made, &made[i]) == 0)
			continue;
		snprintf(why, KV_GPU_WHY, "operation %u of the plan, %s: there is no kernel for it",
			 i, op->kind < KV_OP_KINDS ? kv_op_info[op->kind].name : "?");
		return -EOPNOTSUPP;
	}
	*ret = c;
	return 0;
}
