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

/* Index of the pool's node where a page has the head. */
static uint32_t page_node(const struct step_head *h, const void *base, bool parted)
{
	const struct kv_view *view = h->exec.view;

	if (parted)
		return kv_part_of(h->exec.space->kv_heads, view->parts->n, h->exec.head);
	return pool_node_at(h->stepper->store->pool, base);
}

/* Those where the view has pages of the head, bit by bit. */
static uint64_t nodes_of(const struct step_head *h)
{
	const struct kv_view *v = h->exec.view;
	uint64_t nodes = 0;

	if (h->stepper->store->pool->n_nodes == 1)
		return 1;
	for (uint32_t i = 0; i < v->n_extents; i++)
		nodes |= 1ull << page_node(h, v->extent[i].base, v->extent[i].parted);
	if (v->n_sinks)
		nodes |= 1ull << page_node(h, v->sinks, v->parted & KV_PARTED_SINKS);
	for (uint32_t i = 0; i * KV_CHUNK_ROWS < v->tail_rows; i++)
		nodes |= 1ull << page_node(h, v->chunk[i], v->parted >> i & 1);
	return nodes;
}

static uint32_t node_at(const void *arg, const void *at)
{
	return pool_node_at(arg, at);
}

static void add_node(const struct step_head *h, uint32_t node, const uint64_t bytes[KV_PLANES])
{
	unsigned index = h->stepper->stats_node[node];

	if (index >= STATS_NODES) /* of a daemon before, and not there any more */
		return;
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		if (bytes[p])
			stats_add(&h->stepper->stats->read_node_bytes[index][p], bytes[p]);
}

void step_stats_head(const struct step_head *h)
{
	const struct pool *pool = h->stepper->store->pool;
	uint64_t bytes[POOL_MAX_NODES][KV_PLANES], nodes;

	if (!h->stepper->stats || h->on_device)
		return;
	nodes = nodes_of(h);
	if (nodes && !(nodes & (nodes - 1))) {
		add_node(h, (uint32_t)__builtin_ctzll(nodes), h->exec.result.bytes);
		return;
	}
	kv_exec_bytes_at(&h->exec, node_at, pool, pool->n_nodes, bytes);
	for (uint32_t i = 0; i < pool->n_nodes; i++)
		add_node(h, i, bytes[i]);
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
