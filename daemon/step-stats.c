/* SPDX-License-Identifier: Apache-2.0 */
/* Counting steps: see step-stats.h. */
#include "daemon/step-stats.h"

#include "shm/base.h"
#include "shm/clock.h"
#include "shm/stats-page.h"

static void add_read(struct stats_read *to, const uint64_t bytes[SPARQ_PLANES], uint64_t dense)
{
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		stats_add(&to->bytes[p], bytes[p]);
	stats_add(&to->dense_bytes, dense);
}

static void count_sequence(struct stats_sequence *q, const struct step_item *i)
{
	stats_begin(&q->seq);
	add_read(&q->read, i->report.bytes, i->report.dense_bytes);
	stats_add(&q->written_bytes, i->written_bytes);
	stats_add(&q->steps, 1);
	stats_end(&q->seq);
}

/* Where a share read; nowhere in particular: where the sequence is at home. */
static unsigned node_of(const struct step_head *h, uint32_t share)
{
	uint32_t node = 0;

	if (h->stepper->store->pool->n_nodes > 1)
		node = h->task.node(&h->task, share);
	return h->stepper->stats_node[node < POOL_MAX_NODES ? node : h->item->seq->node];
}

static void add_node(struct stats_worker *w, unsigned node, const struct step_head *h,
		     uint32_t part, uint32_t parts)
{
	if (node >= STATS_NODES) /* of a daemon before, and not there any more */
		return;
	for (unsigned p = 0; p < SPARQ_PLANES; p++) {
		uint64_t bytes = h->exec.result.bytes[p];

		/* So that the parts add up to all of it. */
		if (bytes)
			stats_add(&w->read_node_bytes[node][p],
				  bytes * (part + 1) / parts - bytes * part / parts);
	}
}

void step_stats_head(const struct step_head *h)
{
	struct stats_worker *w = h->stepper->stats;
	uint32_t shares = h->exec.shares, share = 1;
	unsigned first;

	if (!w || h->on_device)
		return;
	first = node_of(h, 0);
	while (share < shares && node_of(h, share) == first)
		share++;
	if (share >= shares) {
		add_node(w, first, h, 0, 1);
		return;
	}
	for (share = 0; share < shares; share++)
		add_node(w, node_of(h, share), h, share, shares);
}

void step_stats_item(struct stepper *s, const struct step_item *i)
{
	struct stats_worker *w = s->stats;

	if (!w)
		return;
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		s->read.bytes[p] += i->report.bytes[p];
	s->read.dense_bytes += i->report.dense_bytes;
	s->written_bytes += i->written_bytes;
	/* Those of an item that failed were written, and are not there. */
	s->written_rows += i->error ? 0 : i->written_rows;
	if (i->seq->stats)
		count_sequence(i->seq->stats, i);
}

/* Other workers may count for the same user at the same time. */
static void count_user(struct stats_user *u, const struct stepper *s)
{
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		if (s->read.bytes[p])
			fetch_add(&u->read.bytes[p], s->read.bytes[p]);
	if (s->read.dense_bytes)
		fetch_add(&u->read.dense_bytes, s->read.dense_bytes);
	if (s->written_bytes)
		fetch_add(&u->written_bytes, s->written_bytes);
	fetch_add(&u->steps, 1);
}

/* Of a policy: that of the cache of its first item that has one. */
static unsigned policy_of(const struct stepper *s)
{
	for (uint32_t i = 0; i < s->n_items; i++)
		if (s->item[i].seq)
			return s->item[i].seq->cache->policy_slot;
	return STATS_POLICY_NONE;
}

/* Bucket i is below 2^(i + 1) microseconds. */
static unsigned bucket_of(uint64_t ns)
{
	uint64_t us = ns / 1000;
	unsigned i = us < 2 ? 0 : 63 - (unsigned)__builtin_clzll(us);

	return MIN(i, STATS_BUCKETS - 1);
}

static void count_time(struct stats_worker *w, const struct stepper *s)
{
	uint64_t ns = (uint64_t)clock_now_ns() - s->began_ns;

	stats_add(&w->step_ns, ns);
	stats_add(&w->step_count[bucket_of(ns)], 1);
}

static void count_outcome(struct stats_worker *w, unsigned op, unsigned policy,
			  const struct sparq_cqe *cqe)
{
	struct stats_steps *steps = &w->steps[op][policy];

	if (cqe->res >= 0) {
		stats_add(&steps->done, 1);
	} else {
		stats_add(&steps->failed, 1);
		stats_add(&w->refused[(cqe->aux >> 16) % STATS_REASONS], 1);
	}
}

void step_stats_entry(struct stepper *s, const struct sparq_cqe *cqe)
{
	struct stats_worker *w = s->stats;
	/* One of an unknown operation is counted by its reason, among those that do nothing. */
	unsigned op = s->entry->op < SPARQ_OP_COUNT ? s->entry->op : SPARQ_OP_NOP;

	if (!w)
		return;
	stats_begin(&w->seq);
	count_outcome(w, op, policy_of(s), cqe);
	if (s->n_items) {
		add_read(&w->op[op], s->read.bytes, s->read.dense_bytes);
		stats_add(&w->written_bytes[op], s->written_bytes);
		stats_add(&w->appended_rows, s->written_rows);
		count_time(w, s);
	}
	stats_end(&w->seq);
	if (s->n_items && s->queue->session->user->stats)
		count_user(s->queue->session->user->stats, s);
}

void step_stats_flush(struct stepper *s, const struct kv_space *space, const struct kv_view *view)
{
	struct stats_worker *w = s->stats;

	if (!w)
		return;
	stats_begin(&w->seq);
	stats_add(&w->flushed_tiles, 1);
	stats_add(&w->flush_read_bytes, KV_TILE_ROWS * kv_image_row_bytes(space));
	stats_add(&w->flush_written_bytes, kv_image_tile_bytes(space, view->channels));
	stats_end(&w->seq);
}
