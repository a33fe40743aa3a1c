/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TidalDecode (arXiv 2410.05076): two layers choose rows by their exact
 * scores, the layers after them attend to the same rows. Not offered yet: the
 * selection must travel between the layers of a step.
 */
#include "kernels/plan.h"
#include "kernels/policy.h"
#include "shm/base.h"

struct tidal {
	uint32_t m, first, again;
};

static const struct kv_param params[] = {
	KV_U32(struct tidal, m, 256, 1, 65536, "rows chosen"),
	KV_U32(struct tidal, first, 2, 0, 65535, "layer that chooses first; dense before it"),
	KV_U32(struct tidal, again, 13, 0, 65535, "layer that chooses again"),
};

enum { ROWS };
static const struct kv_slot slots[] = {
	[ROWS] = { "rows", KV_PER_SEQUENCE, KV_SELECTION, KV_BY_POLICY },
};

static void plan(struct kv_plan *p, const struct kv_step *s, const void *args)
{
	const struct tidal *o = args;
	bool chooses = s->layer == o->first || s->layer == o->again;

	if (s->prefill || s->layer < o->first || chooses)
		kv_plan_output(p, kv_plan_attend(p, kv_plan_all(p)));
	else
		kv_plan_output(p, kv_plan_attend(p, kv_plan_load_sel(p, ROWS)));
	/* The current row is chosen unseen, as in the authors' kernels. */
	if (chooses && !s->prefill)
		kv_plan_store_sel(p, ROWS,
				  kv_plan_topk(p, kv_plan_score(p),
					       (struct kv_topk){ .k = o->m, .recent = 1 }));
}

const struct kv_policy kv_policy_tidal = {
	.name = "tidal",
	.summary = "two layers choose the rows that the others attend to",
	.args_bytes = sizeof(struct tidal),
	.params = params,
	.n_params = ARRAY_SIZE(params),
	.slots = slots,
	.n_slots = ARRAY_SIZE(slots),
	.plan = plan,
};
