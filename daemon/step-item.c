/* SPDX-License-Identifier: Apache-2.0 */
/* One item from its check to its commit: see step.h. */
#include "daemon/step-item.h"

#include <errno.h>
#include <string.h>

#include "daemon/point.h"
#include "daemon/step-audit.h"
#include "daemon/step-stats.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

_Static_assert((int)KV_PLANES == (int)SPARQ_PLANES, "planes");
_Static_assert((int)KV_PLANE_OTHER == (int)SPARQ_PLANE_OTHER, "planes");
_Static_assert((int)KV_BF16 == (int)SPARQ_DTYPE_BF16 && (int)KV_F16 == (int)SPARQ_DTYPE_F16,
	       "dtypes");
_Static_assert(KV_MAX_ENTRY_ROWS == SPARQ_MAX_ROWS, "rows of an entry");
_Static_assert(KV_MAX_DECODE_Q == SPARQ_MAX_DECODE_Q, "queries of a decode step");
_Static_assert(KV_ERROR_TEXT == SPARQ_ERROR_TEXT, "error texts");

void item_fail(struct step_item *i, int error, uint32_t reason)
{
	i->error = error;
	i->reason = reason;
}

void *item_arena(const struct stepper *s, uint64_t offset)
{
	const struct session *session = s->queue->session;

	return (uint8_t *)session->segment.base + session->layout.arena_offset + offset;
}

static bool is_late(const struct stepper *s)
{
	return s->deadline_ns && (uint64_t)clock_now_ns() > s->deadline_ns;
}

/* The entry names no deadline, its cache does: of several caches the earliest. One that was put
 * aside has the deadline of when it came. */
static void take_deadline(struct stepper *s, const struct cache *c)
{
	if (s->entry->timeout_us || !c->timeout_us || s->queue->room.waits ||
	    (s->cache_timeout_us && s->cache_timeout_us <= c->timeout_us))
		return;
	s->cache_timeout_us = c->timeout_us;
	s->deadline_ns = s->began_ns + c->timeout_us * UINT64_C(1000);
}

void item_hold(struct stepper *s, struct step_item *i)
{
	const struct session *session = s->queue->session;
	const struct kv_space *space;
	struct check_shape shape;
	uint32_t reason = SPARQ_REASON_NONE;
	struct seq *seq;
	int r;

	r = seq_hold(s->store, session->id, i->in.sequence, s->queue->number, &seq);
	if (r < 0) {
		item_fail(i, r, r == -EBUSY ? SPARQ_REASON_BUSY : SPARQ_REASON_SEQUENCE);
		return;
	}
	i->seq = seq;
	take_deadline(s, seq->cache);
	space = cache_shape(seq->cache);
	shape = (struct check_shape){
		.layers = seq->cache->record->layers,
		.heads = space->heads,
		.kv_heads = space->kv_heads,
		.k_dim = space->k_dim,
		.v_dim = space->v_dim,
		.dtype_bytes = kv_dtype_bytes(space->dtype),
	};
	r = check_item(s->entry, &i->in, &s->limits, &shape, &reason);
	if (r < 0)
		i->in.report = 0; /* nobody has said that this is an address */
	if (r == 0 && is_late(s)) {
		r = -ETIME;
		reason = SPARQ_REASON_DEADLINE;
	}
	if (r < 0)
		item_fail(i, r, reason);
}

/* How many of the item's rows are there already; -ESTALE if its row number does not fit. */
static int rows_present(const struct stepper *s, const struct step_item *i, uint32_t have,
			uint32_t *ret)
{
	if (i->in.row == have) {
		*ret = 0;
		return 0;
	}
	if (!(s->entry->flags & SPARQ_SQE_REPEAT) || i->in.row > have)
		return -ESTALE;
	*ret = MIN(have - i->in.row, (uint32_t)i->in.n_rows);
	return 0;
}

static uint32_t reason_of_room(const struct seq *s, int error)
{
	return error == -E2BIG ? SPARQ_REASON_ROW : shortage_reason(&s->shortage);
}

struct flush_task {
	struct board_task task;
	const struct pool *pool;
	const struct kv_space *space;
	struct kv_view view;
	struct kv_extent extent;
	unsigned slot;
};

static void flush_share(struct board_task *t, uint32_t head)
{
	struct flush_task *f = container_of(t, struct flush_task, task);

	kv_flush(f->space, &f->view, &f->extent, f->slot, head);
}

static uint32_t flush_node(const struct board_task *t, uint32_t head)
{
	const struct flush_task *f = container_of(t, const struct flush_task, task);

	return pool_node_at(f->pool, kv_flush_at(f->space, &f->view, &f->extent, head));
}

/* A flush that cannot have its page leaves the rows in the tail: the append that finds no chunk
 * says so. */
static bool flush_one(struct stepper *s, struct step_item *i, uint32_t layer)
{
	uint32_t n_extents = seq_extents(i->seq, layer);
	size_t mark = s->lane.used;
	struct kv_extent *extent = lane_take(&s->lane, (uint64_t)n_extents * sizeof(*extent));
	struct flush_task f = {
		.task = { .share = flush_share, .node = flush_node },
		.pool = s->store->pool,
		.space = cache_layer(i->seq->cache, layer),
	};
	struct board_task *task = &f.task;

	s->lane.used = mark;
	if (!extent || seq_flush_begin(i->seq, layer, &f.extent, &f.slot) < 0)
		return false;
	if (seq_view(i->seq, layer, seq_rows(i->seq, layer), extent, n_extents, &f.view) < 0)
		return false;
	f.task.shares = f.space->kv_heads;
	board_prepare(&s->board, &task, 1);
	if (s->may_share) {
		board_open(&s->board);
		board_finish(&s->board, &s->hand);
	} else {
		board_run_alone(&s->board, &s->hand);
	}
	if (i->seq->cache->device)
		kv_visit_tile(f.space, f.view.parts, &f.extent, f.slot, device_wrote,
			      i->seq->cache->device);
	seq_flush_commit(i->seq, layer);
	step_stats_flush(s, f.space, &f.view);
	return true;
}

/* Whatever is due; before an append as well, for an earlier flush may have found no room. */
static void flush_due(struct stepper *s, struct step_item *i)
{
	while (seq_flush_due(i->seq, s->entry->layer) && flush_one(s, i, s->entry->layer))
		;
}

void item_flush(struct stepper *s, struct step_item *i)
{
	if (i->commits && !i->error)
		flush_due(s, i);
}

/* The rows beside what is live: visible to this step through its view, to nobody else before the
 * commit. */
static int write_rows(struct stepper *s, struct step_item *i, uint32_t have, uint32_t skip)
{
	const struct kv_space *space = cache_shape(i->seq->cache);
	size_t packed = (size_t)space->kv_heads * (space->k_dim + space->v_dim) *
			kv_dtype_bytes(space->dtype);
	size_t stride = i->in.kv_stride ? i->in.kv_stride : packed;
	uint32_t n = i->in.n_rows - skip, layer = s->entry->layer, n_extents;
	size_t mark = s->lane.used;
	struct kv_extent *extent;
	struct kv_view view;
	int r;

	i->seq->shortage = SHORTAGE_NONE;
	flush_due(s, i);
	r = seq_reserve(i->seq, layer, n);
	if (r < 0)
		return r;
	n_extents = seq_extents(i->seq, layer);
	extent = lane_take(&s->lane, (uint64_t)n_extents * sizeof(*extent));
	if (!extent)
		return -ENOMEM;
	r = seq_view(i->seq, layer, have + n, extent, n_extents, &view);
	s->lane.used = mark;
	if (r < 0)
		return r;
	POINT(append_reserved);
	BREAK_ORDER(seq_commit(i->seq, layer, have + n));
	kv_write(space, &view, have, n, (uint8_t *)item_arena(s, i->in.kv) + skip * stride, stride);
	if (i->seq->cache->device)
		kv_visit_rows(space, &view, have, n, device_wrote, i->seq->cache->device);
	i->written_rows = n;
	i->written_bytes = n * packed;
	POINT(append_written);
	return 0;
}

void item_append(struct stepper *s, struct step_item *i)
{
	uint32_t have = seq_rows(i->seq, s->entry->layer), skip = 0;
	int r;

	if (s->entry->op == SPARQ_OP_ATTEND) {
		i->rows = have;
		if (i->in.row > have)
			item_fail(i, -ESTALE, SPARQ_REASON_ROW);
		return;
	}
	r = rows_present(s, i, have, &skip);
	if (r < 0) {
		item_fail(i, r, SPARQ_REASON_ROW);
		return;
	}
	if (skip)
		i->flags |= SPARQ_CQE_REPEATED;
	i->rows = MAX(have, i->in.row + i->in.n_rows);
	if (skip == i->in.n_rows)
		return;
	r = write_rows(s, i, have, skip);
	if (r < 0)
		item_fail(i, r, reason_of_room(i->seq, r));
	else
		i->commits = true;
}

/* The client's queries, read once, widened into private memory. */
static bool stage_queries(struct stepper *s, struct step_item *i, const struct kv_space *space)
{
	size_t n = (size_t)space->heads * space->k_dim;
	size_t packed = n * kv_dtype_bytes(space->dtype);
	size_t stride = i->in.q_stride ? i->in.q_stride : packed;
	const uint8_t *from = item_arena(s, i->in.q);
	float *q = lane_take(&s->lane, (uint64_t)i->in.n_q * n * sizeof(float));

	if (!q)
		return false;
	for (uint32_t row = 0; row < i->in.n_q; row++)
		kv_to_f32(space->dtype, from + row * stride, q + row * n, n);
	i->query = (struct kv_query){
		.q = q,
		.n_q = i->in.n_q,
		.first_limit = i->in.row + i->in.n_rows - i->in.n_q + 1,
		.full = s->entry->flags & SPARQ_SQE_FULL,
		.level = s->entry->flags & SPARQ_SQE_DRAFT ? 1 : 0,
	};
	if (i->query.full)
		i->query.first_limit = i->in.row + i->in.n_rows;
	return true;
}

/* Its client wants all rows, or an audit of the cache found that it needs them. */
static bool is_dense(const struct stepper *s, const struct step_item *i)
{
	return s->entry->flags & SPARQ_SQE_DENSE ||
	       unlikely(s->began_ns < load_relaxed(&i->seq->cache->dense_until_ns));
}

bool item_stage(struct stepper *s, struct step_item *i)
{
	uint32_t layer = s->entry->layer, n_extents = seq_extents(i->seq, layer);
	const struct kv_space *space = cache_layer(i->seq->cache, layer);
	struct kv_extent *extent = lane_take(&s->lane, (uint64_t)n_extents * sizeof(*extent));
	int r;

	if (!extent || !stage_queries(s, i, space))
		return false;
	r = seq_view(i->seq, layer, i->in.row + i->in.n_rows, extent, n_extents, &i->view);
	if (r == 0)
		r = kv_plan_step(space, &i->view, &i->query, layer, i->seq->cache->record->layers,
				 is_dense(s, i), &i->plan);
	if (r < 0)
		item_fail(i, r, SPARQ_REASON_UNSUPPORTED);
	else if (kv_plan_is_dense(&i->plan))
		i->flags |= SPARQ_CQE_DENSE;
	return true;
}

/* Its session is being detached: the client is gone, or is told to go. */
static bool is_ending(const struct stepper *s)
{
	return load_relaxed(&s->queue->session->ending);
}

bool step_is_over(const struct stepper *s)
{
	return is_ending(s) || is_late(s);
}

static void head_share(struct board_task *t, uint32_t share)
{
	struct step_head *h = container_of(t, struct step_head, task);

	if (step_is_over(h->stepper))
		store_relaxed(&h->cut, 1);
	else
		kv_exec_share(&h->exec, share);
}

/* By what the view says, not by what was wished: a page that found no room on its node lies on
 * another. */
static uint32_t head_node(const struct board_task *t, uint32_t share)
{
	const struct step_head *h = container_of(t, const struct step_head, task);

	return pool_node_at(h->stepper->store->pool, kv_exec_share_at(&h->exec, share));
}

void item_write_head(const struct step_head *h)
{
	const struct kv_space *space = h->exec.space;
	const struct step_item *i = h->item;
	const struct kv_result *result = &h->exec.result;
	size_t element = kv_dtype_bytes(space->dtype), n = (size_t)space->group * space->v_dim;
	size_t packed = (size_t)space->heads * space->v_dim * element;
	size_t stride = i->in.o_stride ? i->in.o_stride : packed;
	uint8_t *o = (uint8_t *)item_arena(h->stepper, i->in.o) + h->exec.head * n * element;

	for (uint32_t row = 0; row < i->in.n_q; row++)
		kv_from_f32(space->dtype, result->y + row * n, o + row * stride, n);
	if (!i->in.lse)
		return;
	for (uint32_t row = 0; row < i->in.n_q; row++)
		memcpy((float *)item_arena(h->stepper, i->in.lse) + (size_t)row * space->heads +
			       h->exec.head * space->group,
		       result->lse + (size_t)row * space->group, space->group * sizeof(float));
}

/* The last of the head's shares is done: its selection, and what comes of it. */
static void head_finish(struct board_task *t)
{
	struct step_head *h = container_of(t, struct step_head, task);

	/* Seen: this share is the last, and the board's count has acquired the others. */
	if (load_relaxed(&h->cut))
		return;
	kv_exec_finish(&h->exec);
	if (!h->is_half)
		item_write_head(h);
}

struct attention {
	const struct kv_plan *plan;
	const struct kv_view *view;
	const struct kv_query *query;
};

static struct step_head *stage_head(struct stepper *s, struct step_item *i, struct attention what,
				    uint32_t head)
{
	const struct kv_space *space = cache_layer(i->seq->cache, s->entry->layer);
	size_t mark = s->lane.used;
	struct step_head *h = lane_take(&s->lane, sizeof(*h));
	void *scratch =
		lane_take(&s->lane, kv_exec_scratch_bytes(space, what.plan, what.view, what.query));

	if (!h || !scratch) {
		s->lane.used = mark;
		return NULL;
	}
	*h = (struct step_head){ .item = i, .stepper = s };
	kv_exec_init(&h->exec, space, what.plan, what.view, what.query, head, scratch);
	h->task.share = head_share;
	h->task.finish = head_finish;
	h->task.node = head_node;
	h->task.shares = h->exec.shares;
	s->head[s->n_heads++] = h;
	s->wave_bytes += kv_dense_bytes(space, what.view->rows) / space->kv_heads * i->in.n_q;
	return h;
}

bool item_stage_head(struct stepper *s, struct step_item *i, uint32_t head)
{
	return stage_head(s, i, (struct attention){ &i->plan, &i->view, &i->query }, head);
}

struct step_head *item_stage_half(struct stepper *s, struct step_item *i,
				  const struct kv_half *half, uint32_t head)
{
	struct step_head *h =
		stage_head(s, i, (struct attention){ &half->plan, &half->view, &half->query },
			   head);

	if (h)
		h->is_half = true;
	return h;
}

void item_gather_bytes(struct step_head *h)
{
	struct step_item *i = h->item;

	step_stats_head(h);
	for (unsigned p = 0; p < SPARQ_PLANES; p++) {
		i->report.bytes[p] += h->exec.result.bytes[p];
		i->bytes_read += h->exec.result.bytes[p];
	}
}

void item_gather(struct step_head *h)
{
	struct step_item *i = h->item;
	const struct kv_result *result = &h->exec.result;
	struct sparq_report *report = &i->report;

	i->heads_left--;
	if (load_relaxed(&h->cut)) {
		/* Of a daemon that stops it was in flight like any other: no deadline passed. */
		if (is_ending(h->stepper))
			item_fail(i, -ECONNRESET, SPARQ_REASON_NONE);
		else
			item_fail(i, -ETIME, SPARQ_REASON_DEADLINE);
		return;
	}
	report->n_selected = MAX(report->n_selected, result->n_selected);
	report->n_scored = MAX(report->n_scored, result->n_scored);
	report->alpha_min = MIN(report->alpha_min, result->alpha_min);
	i->alpha_sum += result->alpha_sum;
	item_gather_bytes(h);
	if (unlikely(i->audited))
		step_audit_head(h);
}

static void write_report(struct stepper *s, struct step_item *i)
{
	const struct kv_space *space = cache_shape(i->seq->cache);
	uint32_t n = i->in.n_q * space->heads;

	i->report.status = i->error;
	i->report.flags = i->flags;
	if (n) {
		i->report.alpha_mean = (float)(i->alpha_sum / n);
		i->report.dense_bytes = kv_dense_bytes(space, i->view.rows);
		store_relaxed(&s->dense_bytes, s->dense_bytes + i->report.dense_bytes);
	}
	if (i->in.report)
		memcpy(item_arena(s, i->in.report), &i->report, sizeof(i->report));
}

void item_complete(struct stepper *s, struct step_item *i)
{
	if (!i->error && is_late(s))
		item_fail(i, -ETIME, SPARQ_REASON_DEADLINE);
	/* What the step wrote is live from here on; a crash before this line leaves it free. */
	if (!i->error && i->commits) {
		POINT(append_attended);
		seq_commit(i->seq, s->entry->layer, i->rows);
		POINT(append_committed);
	}
	write_report(s, i);
	if (i->beside)
		device_beside(i->seq->cache->device, (enum device_beside)i->beside,
			      i->report.bytes);
}
