/* SPDX-License-Identifier: Apache-2.0 */
/* One step of `sparq-bench attend`, shared by a crew as the daemon's workers share it. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/bench/attend.h"

/* Whoever ends the last share of a KV head goes on with its selection. */
static void run_share(void *argument, unsigned i)
{
	struct bench_step *s = argument;
	unsigned head = i / s->shares;

	kv_exec_share(&s->exec[head], i % s->shares);
	if (atomic_fetch_sub_explicit(&s->left[head], 1, memory_order_acq_rel) == 1)
		kv_exec_finish(&s->exec[head]);
}

/* The queries are of the newest rows: the last sees all. */
static struct kv_query query_of(const struct bench_rows *b, const struct rig *rig, unsigned turn)
{
	const struct attend_options *o = b->shape.options;
	size_t n = (size_t)o->queries * b->space.heads * b->space.k_dim;

	return (struct kv_query){ .q = b->q + turn % BENCH_QUERIES * n,
				  .n_q = o->queries,
				  .first_limit = rig->view.rows - o->queries + 1,
				  .level = b->shape.format.level };
}

void bench_step_run(struct bench_step *s, struct crew *crew, unsigned turn)
{
	const struct kv_space *space = &s->rows->space;
	const struct rig *rig = &s->rows->rig[turn % s->rows->n];
	struct kv_query query = query_of(s->rows, rig, turn);
	struct kv_plan plan;

	kv_plan_step(space, &rig->view, &query, 0, 1, s->dense, &plan);
	for (uint32_t h = 0; h < space->kv_heads; h++) {
		kv_exec_init(&s->exec[h], space, &plan, &rig->view, &query, h,
			     s->scratch + h * s->scratch_bytes);
		s->shares = s->exec[h].shares;
		atomic_store_explicit(&s->left[h], s->shares, memory_order_relaxed);
	}
	crew_run(crew, run_share, s, space->kv_heads * s->shares);
}

bool bench_step_init(struct bench_step *s, const struct bench_rows *rows, bool dense)
{
	const struct kv_space *space = &rows->space;
	const struct kv_view *view = &rows->rig[0].view;
	struct kv_query query = query_of(rows, &rows->rig[0], 0);
	struct kv_plan plan;

	*s = (struct bench_step){ .rows = rows, .dense = dense };
	if (kv_plan_step(space, view, &query, 0, 1, dense, &plan))
		return false;
	s->scratch_bytes = kv_exec_scratch_bytes(space, &plan, view, &query);
	/* As the daemon's lane is: scores of long sequences need many pages. */
	s->scratch = rig_map(space->kv_heads * s->scratch_bytes, RIG_THP);
	s->exec = calloc(space->kv_heads, sizeof(*s->exec));
	s->left = calloc(space->kv_heads, sizeof(*s->left));
	return s->scratch && s->exec && s->left;
}

void bench_step_deinit(struct bench_step *s)
{
	if (s->scratch)
		munmap(s->scratch, s->rows->space.kv_heads * s->scratch_bytes);
	free(s->exec);
	free(s->left);
	*s = (struct bench_step){ 0 };
}

uint64_t bench_step_bytes(const struct bench_step *s, uint64_t ret_planes[KV_PLANES])
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < KV_PLANES; i++) {
		ret_planes[i] = 0;
		for (uint32_t h = 0; h < s->rows->space.kv_heads; h++)
			ret_planes[i] += s->exec[h].result.bytes[i];
		sum += ret_planes[i];
	}
	return sum;
}
