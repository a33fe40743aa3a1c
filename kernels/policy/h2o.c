/* SPDX-License-Identifier: Apache-2.0 */
/*
 * H2O (arXiv 2306.14048): rows are kept for the attention they have received.
 * Not offered yet: it needs policy state and eviction in the daemon.
 */
#include "kernels/plan.h"
#include "kernels/policy.h"
#include "shm/base.h"

struct h2o {
	uint32_t heavy, recent;
};

static const struct kv_param params[] = {
	KV_U32(struct h2o, heavy, 256, 1, 65536, "rows kept for their accumulated weight"),
	KV_U32(struct h2o, recent, 256, 1, 65536, "newest rows kept unconditionally"),
};

enum { SUM };
static const struct kv_slot slots[] = {
	[SUM] = { "sum", KV_PER_LAYER, KV_ROWS, KV_BY_POLICY },
};

static void plan(struct kv_plan *p, const struct kv_step *s, const void *args)
{
	const struct h2o *o = args;
	kv_part part = kv_plan_attend(p, kv_plan_all(p));
	kv_sel heavy;

	kv_plan_accum(p, SUM, kv_plan_weights(p, part));
	kv_plan_output(p, part);
	if (s->rows <= (uint64_t)o->heavy + o->recent)
		return;
	/* The window counts inside k here: topk sees what has accumulated, this step included. */
	heavy = kv_plan_topk(p, kv_plan_load(p, SUM),
			     (struct kv_topk){ .k = o->heavy + o->recent, .recent = o->recent });
	kv_plan_keep(p, heavy);
}

const struct kv_policy kv_policy_h2o = {
	.name = "h2o",
	.summary = "rows are kept for the attention they have received",
	.args_bytes = sizeof(struct h2o),
	.params = params,
	.n_params = ARRAY_SIZE(params),
	.slots = slots,
	.n_slots = ARRAY_SIZE(slots),
	.plan = plan,
};
