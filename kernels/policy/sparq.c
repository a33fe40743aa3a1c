/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SparQ Attention (arXiv 2312.04985, Algorithm 1): score every row by the r
 * largest channels of the query, attend exactly to the k best, and give the
 * mass of the others to the mean of V.
 *
 * With tail=select and no sinks this is the paper, row for row. By default the
 * rows that are held as sent (sinks and tail) are attended beyond the k: they
 * are few, and losing them is what costs other methods their accuracy.
 */
#include <errno.h>
#include <stdio.h>

#include "kernels/kernels.h"
#include "kernels/plan.h"
#include "kernels/policy.h"
#include "kernels/table.h"
#include "shm/base.h"

struct sparq {
	uint32_t r, k, l, group_rule, mean, tail, dense_below;
};

#define AUTO UINT32_MAX
enum { MEAN_AUTO, MEAN_OFF, MEAN_ALL, MEAN_REST };
enum { TAIL_ALL, TAIL_SELECT };
static const char *const group_rules[] = { "softmax", "logits", NULL };
static const char *const means[] = { "auto", "off", "all", "rest", NULL };
static const char *const tails[] = { "all", "select", NULL };

static const struct kv_param params[] = {
	KV_U32(struct sparq, r, 32, 1, KV_MAX_DIM, "channels of K that score a row"),
	KV_U32(struct sparq, k, 128, 1, 65536, "rows attended exactly"),
	KV_U32(struct sparq, l, AUTO, 0, 65536, "newest of these rows, taken unseen; auto: k / 4"),
	KV_WORD(struct sparq, group_rule, KV_GROUP_SOFTMAX, group_rules,
		"what is summed over the query heads of a KV head"),
	KV_WORD(struct sparq, mean, MEAN_AUTO, means,
		"rows whose mean of V gets the mass not attended; auto: rest, or off for groups"),
	KV_WORD(struct sparq, tail, TAIL_ALL, tails,
		"is the tail attended whole, or selected from"),
	KV_U32(struct sparq, dense_below, 2048, 0, 1u << 30,
	       "dense up to this many rows, and up to 2 k; 0: never"),
};

static uint32_t needs(const void *args)
{
	return KV_NEED_K_CHANNELS;
}

static int check(const void *args, uint32_t k_dim, uint32_t group, char *why)
{
	const struct sparq *o = args;

	if (o->r > k_dim) {
		snprintf(why, KV_ERROR_TEXT, "r=%u: at most the head dimension, %u", o->r, k_dim);
		return -EINVAL;
	}
	if (o->l != AUTO && o->l > o->k) {
		snprintf(why, KV_ERROR_TEXT, "l=%u: at most k, %u", o->l, o->k);
		return -EINVAL;
	}
	return 0;
}

static void settle(void *args, uint32_t k_dim, uint32_t group)
{
	struct sparq *o = args;

	if (o->l == AUTO)
		o->l = o->k / 4;
	if (o->mean == MEAN_AUTO)
		o->mean = group > 1 ? MEAN_OFF : MEAN_REST;
}

static bool is_dense(const struct sparq *o, const struct kv_step *s)
{
	if (s->prefill)
		return true;
	return o->dense_below && s->rows <= MAX((uint64_t)2 * o->k, o->dense_below);
}

static void plan(struct kv_plan *p, const struct kv_step *s, const void *args)
{
	static const enum kv_mean how[] = {
		[MEAN_OFF] = KV_MEAN_OFF, [MEAN_ALL] = KV_MEAN_ALL, [MEAN_REST] = KV_MEAN_REST
	};
	struct sparq o = *(const struct sparq *)args;
	kv_val score;
	kv_sel rows;
	kv_part part;

	if (is_dense(&o, s)) {
		kv_plan_output(p, kv_plan_attend(p, kv_plan_all(p)));
		return;
	}
	settle(&o, s->k_dim, s->group);
	score = kv_plan_score_dims(p, o.r);
	rows = kv_plan_topk(p, score,
			    (struct kv_topk){ .k = o.k,
					      .recent = o.l,
					      .rule = (enum kv_group_rule)o.group_rule,
					      .sealed_only = o.tail == TAIL_ALL });
	if (o.tail == TAIL_ALL)
		rows = kv_plan_union(p, rows, kv_plan_recent(p));
	else if (s->sinks)
		rows = kv_plan_union(p, rows, kv_plan_window(p, s->sinks, 0));
	part = kv_plan_attend(p, rows);
	if (o.mean != MEAN_OFF)
		part = kv_plan_mean_rest(p, part, score, how[o.mean]);
	kv_plan_output(p, part);
}

const struct kv_policy kv_policy_sparq = {
	.name = "sparq",
	.summary = "the k rows that r channels score best, and the mean of V for the rest",
	.flags = KV_POLICY_OFFERED,
	.args_bytes = sizeof(struct sparq),
	.params = params,
	.n_params = ARRAY_SIZE(params),
	.needs = needs,
	.check = check,
	.settle = settle,
	.plan = plan,
};
