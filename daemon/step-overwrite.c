/* SPDX-License-Identifier: Apache-2.0 */
/* An item that overwrites rows: see step-item.h and overwrite.h. */
#include <errno.h>

#include "daemon/overwrite.h"
#include "daemon/step-item.h"

struct overwrite_task {
	struct board_task task;
	const struct overwrite *o;
	const struct pool *pool;
	const void *kv;
	size_t stride;
};

static void overwrite_share(struct board_task *t, uint32_t head)
{
	const struct overwrite_task *w = container_of(t, struct overwrite_task, task);

	overwrite_head(w->o, head, w->kv, w->stride);
}

/* Of what is written: the first extent that is copied. */
static uint32_t overwrite_node(const struct board_task *t, uint32_t head)
{
	const struct overwrite_task *w = container_of(t, const struct overwrite_task, task);
	const struct overwrite *o = w->o;
	const struct kv_space *space = cache_layer(o->seq->cache, o->layer);

	for (uint32_t i = 0; i < o->view.n_extents; i++)
		if (o->to[i].base)
			return pool_node_at(w->pool, kv_flush_at(space, &o->view, &o->to[i], head));
	return BOARD_ANYWHERE;
}

/* The tiles, KV head by KV head, with whoever helps. */
static void run_heads(struct stepper *s, struct overwrite_task *w)
{
	struct board_task *task = &w->task;

	w->task.share = overwrite_share;
	w->task.node = overwrite_node;
	w->task.shares = cache_shape(w->o->seq->cache)->kv_heads;
	board_prepare(&s->board, &task, 1);
	if (s->may_share) {
		board_open(&s->board);
		board_finish(&s->board, &s->hand);
	} else {
		board_run_alone(&s->board, &s->hand);
	}
}

static int overwrite(struct stepper *s, struct step_item *i)
{
	const struct kv_space *space = cache_shape(i->seq->cache);
	size_t packed = (size_t)space->kv_heads * (space->k_dim + space->v_dim) *
			kv_dtype_bytes(space->dtype);
	uint32_t layer = s->entry->layer, n_extents = seq_extents(i->seq, layer);
	struct kv_extent *from = lane_take(&s->lane, (uint64_t)n_extents * sizeof(*from));
	struct kv_extent *to = lane_take(&s->lane, (uint64_t)n_extents * sizeof(*to));
	struct overwrite o;
	struct overwrite_task w = {
		.o = &o,
		.pool = s->store->pool,
		.kv = item_arena(s, i->in.kv),
		.stride = i->in.kv_stride ? i->in.kv_stride : packed,
	};
	int r;

	if (!from || !to)
		return -ENOMEM;
	r = overwrite_begin(&o, i->seq, layer, i->in.row, i->in.n_rows, from, to, n_extents);
	if (r < 0)
		return r;
	overwrite_recent(&o, w.kv, w.stride);
	if (overwrite_has_heads(&o))
		run_heads(s, &w);
	overwrite_commit(&o);
	i->written_bytes = i->in.n_rows * packed;
	return 0;
}

void item_overwrite(struct stepper *s, struct step_item *i)
{
	uint32_t have = seq_rows(i->seq, s->entry->layer);
	size_t mark = s->lane.used;
	int r;

	if (i->in.row + i->in.n_rows > have) {
		item_fail(i, -ESTALE, SPARQ_REASON_ROW);
		return;
	}
	i->seq->shortage = SHORTAGE_NONE;
	r = overwrite(s, i);
	s->lane.used = mark;
	if (r < 0)
		item_fail(i, r,
			  r == -ENOMEM ? SPARQ_REASON_UNSUPPORTED
				       : shortage_reason(&i->seq->shortage));
}
