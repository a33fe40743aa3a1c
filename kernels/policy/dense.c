/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over every row: what all others are compared with.
 */
#include "kernels/plan.h"
#include "kernels/policy.h"

static void plan(struct kv_plan *p, const struct kv_step *s, const void *args)
{
	kv_plan_output(p, kv_plan_attend(p, kv_plan_all(p)));
}

const struct kv_policy kv_policy_dense = {
	.name = "dense",
	.summary = "every row, exactly",
	.flags = KV_POLICY_OFFERED,
	.plan = plan,
};
