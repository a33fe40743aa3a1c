/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first and the newest rows (LM-Infinite, StreamingLLM), at their own
 * positions. Nothing is evicted: rows outside are kept and not read.
 */
#include "kernels/plan.h"
#include "kernels/policy.h"
#include "shm/base.h"

/* `first`, not `sinks`: that is the cache's own parameter, how many rows it keeps as sent. */
struct window {
	uint32_t first, recent;
};

static const struct kv_param params[] = {
	KV_U32(struct window, first, 16, 0, 65536, "rows attended at the start of the sequence"),
	KV_U32(struct window, recent, 1024, 1, 1u << 30, "newest rows attended"),
};

static void plan(struct kv_plan *p, const struct kv_step *s, const void *args)
{
	const struct window *w = args;
	bool all = s->prefill || s->rows <= (uint64_t)w->first + w->recent;
	kv_sel rows = all ? kv_plan_all(p) : kv_plan_window(p, w->first, w->recent);

	kv_plan_output(p, kv_plan_attend(p, rows));
}

const struct kv_policy kv_policy_window = {
	.name = "window",
	.summary = "the first and the newest rows, exactly",
	.flags = KV_POLICY_OFFERED,
	.args_bytes = sizeof(struct window),
	.params = params,
	.n_params = ARRAY_SIZE(params),
	.plan = plan,
};
