/* SPDX-License-Identifier: Apache-2.0 */
/* Steps in two halves: see step-split.h. */
#include "daemon/step-split.h"

#include <errno.h>

#include "daemon/step-item.h"
#include "shm/base.h"

/* Where an extent begins, or behind all of them the tail. */
static uint32_t first_of(const struct kv_view *v, uint32_t i)
{
	return i < v->n_extents ? v->extent[i].first_row : v->tail_first;
}

uint32_t step_split_row(const struct step_item *i)
{
	const struct cache *c = i->seq->cache;
	const struct kv_view *v = &i->view;
	uint32_t rows = v->rows, n = v->n_extents, want, seen;

	if (!c->device || c->device_rows == DEVICE_ROWS_ALL)
		return 0;
	want = c->device_rows == DEVICE_ROWS_ROOM ? device_rows(c->device, rows) : c->device_rows;
	if (want >= rows)
		return 0;
	while (n > 0 && first_of(v, n - 1) >= rows - want)
		n--;
	/* Every query has rows there: the first may see few. */
	seen = i->query.full ? rows : MIN(rows, i->query.first_limit);
	while (n > 0 && first_of(v, n) >= seen)
		n--;
	return first_of(v, n) > v->n_sinks ? first_of(v, n) : 0;
}

struct halves {
	struct kv_half older, newer;
};

/* Both of them, if there is a kernel for the newer one. */
static int cut(const struct stepper *s, struct step_item *i, uint32_t row, struct halves *x,
	       struct kv_extent *extent)
{
	const struct kv_space *space = cache_layer(i->seq->cache, s->entry->layer);
	const struct kv_gpu_item whole = {
		.space = space, .plan = &i->plan, .view = &i->view, .query = &i->query
	};
	const struct kv_gpu_item newer = { .space = space,
					   .plan = &x->newer.plan,
					   .view = &x->newer.view,
					   .query = &x->newer.query };

	i->beside = DEVICE_BESIDE_KERNEL;
	if (kv_split(&whole, row, extent, &x->older, &x->newer) < 0)
		return -EOPNOTSUPP;
	i->beside = device_runs(i->seq->cache->device, &newer);
	return i->beside == DEVICE_BESIDE_NONE ? 0 : -EOPNOTSUPP;
}

static int stage(struct stepper *s, struct step_item *i, uint32_t row)
{
	uint32_t kv_heads = cache_shape(i->seq->cache)->kv_heads;
	struct halves *x = lane_take(&s->lane, sizeof(*x));
	struct kv_extent *extent =
		lane_take(&s->lane, (uint64_t)i->view.n_extents * sizeof(*extent));
	struct step_head **here = lane_take(&s->lane, kv_heads * sizeof(struct step_head *));
	int r;

	if (!x || !extent || !here)
		return -ENOSPC;
	r = cut(s, i, row, x, extent);
	for (uint32_t head = 0; r == 0 && head < kv_heads; head++) {
		here[head] =
			s->n_heads < MAX_WAVE_HEADS ? item_stage_half(s, i, &x->older, head) : NULL;
		r = here[head] ? 0 : -ENOSPC;
	}
	if (r == 0 && !step_device_stage(s, i, &x->newer, here))
		r = -ENOSPC;
	return r;
}

int step_split_stage(struct stepper *s, struct step_item *i, uint32_t row)
{
	size_t mark = s->lane.used;
	uint64_t wave_bytes = s->wave_bytes;
	uint32_t n_heads = s->n_heads;
	int r = stage(s, i, row);

	if (r < 0) {
		s->lane.used = mark;
		s->wave_bytes = wave_bytes;
		s->n_heads = n_heads;
	}
	return r;
}
