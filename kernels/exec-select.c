/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selections: every one is a sorted list of runs, whatever made it.
 */
#include "kernels/exec-private.h"
#include "kernels/plan-private.h"
#include "shm/base.h"

uint32_t exec_select_below(const struct run_list *rows, uint32_t limit)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < rows->n && rows->run[i].first < limit; i++)
		n += MIN(rows->run[i].n, limit - rows->run[i].first);
	return n;
}

void exec_append(struct run_list *to, uint32_t first, uint32_t n)
{
	struct run *last = to->n ? &to->run[to->n - 1] : NULL;
	uint32_t end = first + n;

	if (!n)
		return;
	if (!last || first > last->first + last->n) {
		to->run[to->n++] = (struct run){ first, n };
		to->rows += n;
	} else if (end > last->first + last->n) {
		to->rows += end - (last->first + last->n);
		last->n = end - last->first;
	}
}

/* ---- by kind --------------------------------------------------------------- */

static uint32_t sealed_end(const struct state *s)
{
	return MIN(s->map.view->rows - s->map.view->tail_rows, s->visible);
}

static void select_range(struct state *s, const struct kv_op *op, struct run_list *ret)
{
	uint32_t first = MIN(op->n[0], s->visible);

	exec_append(ret, first, MIN(op->n[1], s->visible - first));
}

struct edges exec_select_edges(const struct state *s, const struct kv_op *op)
{
	uint32_t tail = s->visible - sealed_end(s);
	uint32_t first = op->n[0] == KV_WINDOW_STEP ? s->map.view->n_sinks : op->n[0];
	uint32_t recent = op->n[1] == KV_WINDOW_STEP ? tail : op->n[1];

	return (struct edges){ MIN(first, s->visible), MIN(recent, s->visible) };
}

static void select_window(struct state *s, const struct kv_op *op, struct run_list *ret)
{
	struct edges x = exec_select_edges(s, op);

	exec_append(ret, 0, x.first);
	exec_append(ret, s->visible - x.recent, x.recent);
}

static void select_union(const struct run_list *a, const struct run_list *b, struct run_list *ret)
{
	uint32_t i = 0, j = 0;

	while (i < a->n || j < b->n) {
		bool from_a = j == b->n || (i < a->n && a->run[i].first <= b->run[j].first);
		const struct run *x = from_a ? &a->run[i++] : &b->run[j++];

		exec_append(ret, x->first, x->n);
	}
}

/* The forced rows are an index range: a constant added to their scores would cost the low bits. */
struct ranked exec_select_ranked(const struct state *s, const struct kv_op *op)
{
	bool sealed = op->n[3];
	uint32_t first = sealed ? MIN(s->map.view->n_sinks, s->visible) : 0;
	uint32_t end = sealed ? sealed_end(s) : s->visible;
	uint32_t n = end > first ? end - first : 0, k = MIN(op->n[0], n), recent = MIN(op->n[1], k);

	return (struct ranked){ first, first + n - recent, k - recent, recent };
}

static void select_topk(struct state *s, const struct kv_op *op, struct run_list *ret)
{
	struct ranked x = exec_select_ranked(s, op);

	if (x.k == x.end - x.first)
		exec_append(ret, x.first, x.k);
	else
		exec_rank(s, x.k, ret);
	exec_append(ret, x.end, x.recent);
}

/* ---- the list of an operation ---------------------------------------------- */

/* The most runs that an operation's selection has. */
uint32_t exec_select_bound(const struct state *s, const struct kv_plan *p, unsigned op)
{
	const struct kv_op *x = &p->op[op];

	switch (x->kind) {
	case KV_OP_ALL:
	case KV_OP_RANGE:
		return 1;
	case KV_OP_WINDOW:
		return 2;
	case KV_OP_TOPK:
		return MIN(x->n[0], s->visible) + 1;
	case KV_OP_UNION:
		return exec_select_bound(s, p, x->a) + exec_select_bound(s, p, x->b);
	default:
		return 0;
	}
}

void exec_select(struct state *s, const struct kv_plan *p, unsigned op)
{
	const struct kv_op *x = &p->op[op];
	struct run_list *ret = &s->sel[op];

	ret->n = ret->rows = 0;
	switch (x->kind) {
	case KV_OP_ALL:
		exec_append(ret, 0, s->visible);
		break;
	case KV_OP_RANGE:
		select_range(s, x, ret);
		break;
	case KV_OP_WINDOW:
		select_window(s, x, ret);
		break;
	case KV_OP_UNION:
		select_union(&s->sel[x->a], &s->sel[x->b], ret);
		break;
	case KV_OP_TOPK:
		select_topk(s, x, ret);
		break;
	default:
		break;
	}
}
