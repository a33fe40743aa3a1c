/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building and checking plans.
 *
 * A value is named by the index of the operation that makes it, so operands
 * always point backwards and a plan cannot loop. Builder errors stick to the
 * plan and come out of kv_plan_check: a policy needs no error path.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/plan-private.h"
#include "shm/base.h"

#define NOWHERE UINT8_MAX /* operand after a builder error */

const struct kv_op_info kv_op_info[KV_OP_KINDS] = {
	[KV_OP_ALL] = { "all", 's', { 0 } },
	[KV_OP_RANGE] = { "range", 's', { 0 } },
	[KV_OP_WINDOW] = { "window", 's', { 0 } },
	[KV_OP_SCORE] = { "score", 'v', { 0 } },
	[KV_OP_SCORE_DIMS] = { "score_dims", 'v', { 0 } },
	[KV_OP_LOAD] = { "load", 'v', { 0 } },
	[KV_OP_TOPK] = { "topk", 's', { 'v' } },
	[KV_OP_UNION] = { "union", 's', { 's', 's' } },
	[KV_OP_LOAD_SEL] = { "load_sel", 's', { 0 } },
	[KV_OP_STORE_SEL] = { "store_sel", 0, { 's' } },
	[KV_OP_ATTEND] = { "attend", 'p', { 's' } },
	[KV_OP_WEIGHTS] = { "weights", 'v', { 'p' } },
	[KV_OP_MEAN_REST] = { "mean_rest", 'p', { 'p', 'v' } },
	[KV_OP_MERGE] = { "merge", 'p', { 'p', 'p' } },
	[KV_OP_OUTPUT] = { "output", 0, { 'p' } },
	[KV_OP_ACCUM] = { "accum", 0, { 'v' } },
	[KV_OP_KEEP] = { "keep", 0, { 's' } },
};

void kv_plan_init(struct kv_plan *p)
{
	*p = (struct kv_plan){ 0 };
}

static uint8_t append(struct kv_plan *p, struct kv_op op)
{
	if (p->n_ops == KV_PLAN_OPS && !p->error)
		p->error = -E2BIG;
	if (p->error)
		return NOWHERE;
	p->op[p->n_ops] = op;
	return p->n_ops++;
}

/* ---- candidates ------------------------------------------------------------ */

kv_sel kv_plan_all(struct kv_plan *p)
{
	return (kv_sel){ append(p, (struct kv_op){ .kind = KV_OP_ALL }) };
}

kv_sel kv_plan_range(struct kv_plan *p, uint32_t first, uint32_t n)
{
	return (kv_sel){ append(p, (struct kv_op){ .kind = KV_OP_RANGE, .n = { first, n } }) };
}

kv_sel kv_plan_window(struct kv_plan *p, uint32_t sinks, uint32_t recent)
{
	return (kv_sel){ append(p,
				(struct kv_op){ .kind = KV_OP_WINDOW, .n = { sinks, recent } }) };
}

kv_sel kv_plan_recent(struct kv_plan *p)
{
	return (kv_sel){ append(p, (struct kv_op){ .kind = KV_OP_WINDOW,
						   .n = { KV_WINDOW_STEP, KV_WINDOW_STEP } }) };
}

/* ---- scoring --------------------------------------------------------------- */

kv_val kv_plan_score(struct kv_plan *p)
{
	return (kv_val){ append(p, (struct kv_op){ .kind = KV_OP_SCORE }) };
}

kv_val kv_plan_score_dims(struct kv_plan *p, uint32_t r)
{
	return (kv_val){ append(p, (struct kv_op){ .kind = KV_OP_SCORE_DIMS, .n = { r } }) };
}

kv_val kv_plan_load(struct kv_plan *p, unsigned slot)
{
	return (kv_val){ append(p, (struct kv_op){ .kind = KV_OP_LOAD, .slot = (uint8_t)slot }) };
}

/* ---- selection ------------------------------------------------------------- */

kv_sel kv_plan_topk(struct kv_plan *p, kv_val v, struct kv_topk how)
{
	return (kv_sel){
		append(p, (struct kv_op){ .kind = KV_OP_TOPK,
					  .a = v.i,
					  .n = { how.k, how.recent, how.rule, how.sealed_only } })
	};
}

kv_sel kv_plan_union(struct kv_plan *p, kv_sel a, kv_sel b)
{
	return (kv_sel){ append(p, (struct kv_op){ .kind = KV_OP_UNION, .a = a.i, .b = b.i }) };
}

kv_sel kv_plan_load_sel(struct kv_plan *p, unsigned slot)
{
	return (kv_sel){ append(p,
				(struct kv_op){ .kind = KV_OP_LOAD_SEL, .slot = (uint8_t)slot }) };
}

void kv_plan_store_sel(struct kv_plan *p, unsigned slot, kv_sel s)
{
	append(p, (struct kv_op){ .kind = KV_OP_STORE_SEL, .a = s.i, .slot = (uint8_t)slot });
}

/* ---- attention and what follows -------------------------------------------- */

kv_part kv_plan_attend(struct kv_plan *p, kv_sel s)
{
	return (kv_part){ append(p, (struct kv_op){ .kind = KV_OP_ATTEND, .a = s.i }) };
}

kv_val kv_plan_weights(struct kv_plan *p, kv_part a)
{
	return (kv_val){ append(p, (struct kv_op){ .kind = KV_OP_WEIGHTS, .a = a.i }) };
}

kv_part kv_plan_mean_rest(struct kv_plan *p, kv_part a, kv_val scores, enum kv_mean how)
{
	return (kv_part){ append(
		p,
		(struct kv_op){ .kind = KV_OP_MEAN_REST, .a = a.i, .b = scores.i, .n = { how } }) };
}

kv_part kv_plan_merge(struct kv_plan *p, kv_part a, kv_part b)
{
	return (kv_part){ append(p, (struct kv_op){ .kind = KV_OP_MERGE, .a = a.i, .b = b.i }) };
}

void kv_plan_output(struct kv_plan *p, kv_part a)
{
	append(p, (struct kv_op){ .kind = KV_OP_OUTPUT, .a = a.i });
}

/* ---- upkeep ---------------------------------------------------------------- */

void kv_plan_accum(struct kv_plan *p, unsigned slot, kv_val v)
{
	append(p, (struct kv_op){ .kind = KV_OP_ACCUM, .a = v.i, .slot = (uint8_t)slot });
}

void kv_plan_keep(struct kv_plan *p, kv_sel s)
{
	append(p, (struct kv_op){ .kind = KV_OP_KEEP, .a = s.i });
}

/* ---- check ----------------------------------------------------------------- */

static int check_operand(const struct kv_plan *p, unsigned i, unsigned operand, char *why, size_t n)
{
	const struct kv_op *op = &p->op[i];
	uint8_t from = operand ? op->b : op->a;
	char want = kv_op_info[op->kind].operand[operand];

	if (!want)
		return 0;
	if (from < i && kv_op_info[p->op[from].kind].result == want)
		return 0;
	snprintf(why, n, "operation %u, %s: operand %u is not an earlier '%c'", i,
		 kv_op_info[op->kind].name, operand + 1, want);
	return -EINVAL;
}

static int check_numbers(const struct kv_op *op, unsigned i, char *why, size_t n)
{
	const char *what = NULL;

	if (op->kind == KV_OP_SCORE_DIMS && op->n[0] == 0)
		what = "no channels";
	if (op->kind == KV_OP_TOPK && op->n[0] == 0)
		what = "k is 0";
	if (op->kind == KV_OP_TOPK && op->n[2] > KV_GROUP_LOGITS)
		what = "unknown group rule";
	if (op->kind == KV_OP_MEAN_REST && op->n[0] > KV_MEAN_REST)
		what = "unknown mean";
	if (!what)
		return 0;
	snprintf(why, n, "operation %u, %s: %s", i, kv_op_info[op->kind].name, what);
	return -EINVAL;
}

static int check_op(const struct kv_plan *p, unsigned i, char *why, size_t n)
{
	int r = 0;

	if (p->op[i].kind >= KV_OP_KINDS) {
		snprintf(why, n, "operation %u: unknown kind %u", i, p->op[i].kind);
		return -EINVAL;
	}
	for (unsigned operand = 0; operand < 2 && !r; operand++)
		r = check_operand(p, i, operand, why, n);
	return r ? r : check_numbers(&p->op[i], i, why, n);
}

int kv_plan_check(const struct kv_plan *p, char *why, size_t n)
{
	unsigned outputs = 0;

	if (p->error || p->n_ops > KV_PLAN_OPS) {
		snprintf(why, n, "a plan has at most %d operations", KV_PLAN_OPS);
		return -EINVAL;
	}
	for (unsigned i = 0; i < p->n_ops; i++) {
		int r = check_op(p, i, why, n);

		if (r)
			return r;
		outputs += p->op[i].kind == KV_OP_OUTPUT;
	}
	if (outputs == 1)
		return 0;
	snprintf(why, n, "a plan has one output, not %u", outputs);
	return -EINVAL;
}

bool kv_plan_is_dense(const struct kv_plan *p)
{
	return p->n_ops == 3 && p->op[0].kind == KV_OP_ALL && p->op[1].kind == KV_OP_ATTEND &&
	       p->op[2].kind == KV_OP_OUTPUT;
}
