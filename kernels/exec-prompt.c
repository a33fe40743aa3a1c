/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts: many queries at once over all rows, each below its own limit.
 */
#include "kernels/exec-private.h"
#include "shm/base.h"

void exec_prompt_share(struct state *s, uint32_t share)
{
	uint32_t q = share * PROMPT_Q, n_q = MIN(PROMPT_Q, s->n_q - q);
	uint32_t limit = exec_limit(s, q + n_q - 1);
	struct run all = { 0, limit };
	const struct run_list rows = { &all, 1, limit };
	const struct attend what = { .rows = &rows, .n = limit, .q = q, .n_q = n_q };

	exec_scale_q(s, q, n_q);
	exec_attend(s, &what, &s->part[share], &s->work[share]);
}
