/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence that begins with the rows of another. Nothing is copied: sealed
 * tiles are seen through a reference per layer, and the pages of sinks and tail get
 * one more holder each. Whoever of the holders writes first into such a page takes
 * one of its own then (layer.c).
 *
 * All that can fail comes first, so a fork of n layers is two blocks of records, one
 * charge, and counts that go up.
 */
#include <assert.h>

#include "daemon/charge.h"
#include "daemon/evict.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/seq-make.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* ---- one layer -------------------------------------------------------------------- */

static void fork_sealed(struct seq *parent, struct seq_layer *from, struct seq *child,
			struct seq_layer *to, uint32_t rows)
{
	struct store *st = parent->cache->store;
	struct reach reach = layer_reach(from), sees = table_below(st, reach, rows);
	uint32_t tiles;

	if (!sees.table)
		return;
	/* A table further down is shared this far already: its reach of the parent is. */
	if (sees.table == reach.table && !reach.limit)
		table_share(st, sees.table, sees.limit);
	table_ref(st, sees.table);
	POINT(fork_shared);
	layer_set_reach(to, sees);
	tiles = layer_count_sealed(child, to, rows);
	layer_publish(to, (struct commit){ rows, tiles });
	POINT(fork_sealed);
}

static page_ref share_page(const struct seq *s, page_ref page)
{
	pool_ref(s->cache->store->pool, page);
	return page;
}

/* What the tail holds of the first `rows` rows, in chunks. */
static uint32_t tail_chunks(const struct seq_layer *l, uint32_t rows)
{
	return rows > l->tail_first ? DIV_UP(rows - l->tail_first, KV_CHUNK_ROWS) : 0;
}

static void fork_layer(struct seq *parent, struct seq *child, uint32_t layer, uint32_t rows)
{
	struct seq_layer *from = &parent->layer[layer], *to = &child->layer[layer];
	uint32_t n = tail_chunks(from, rows);

	if (layer_commit(from).tiles)
		fork_sealed(parent, from, child, to, MIN(rows, from->tail_first));
	assert(!n || to->tail_first == from->tail_first);
	if (rows && from->record->sinks)
		to->record->sinks = share_page(child, from->record->sinks);
	while (to->n_chunks < n) {
		page_ref chunk = *layer_chunk(from, to->n_chunks);

		*layer_chunk(to, to->n_chunks++) = share_page(child, chunk);
	}
	layer_publish(to, (struct commit){ rows, layer_commit(to).tiles });
	POINT(fork_layer);
}

/* ---- all of them ------------------------------------------------------------------ */

/* Each holder of a page is charged all of it: whichever of them stays, stays paid for. */
static uint64_t fork_bytes(const struct seq *parent, uint32_t rows)
{
	const struct pool *pool = parent->cache->store->pool;
	uint64_t chunk = pool_charge(pool, layer_chunk_size(parent)), bytes = 0;
	uint64_t sinks = pool_charge(pool, layer_sinks_size(parent));

	for (uint32_t i = 0; i < parent->cache->record->layers; i++) {
		const struct seq_layer *l = &parent->layer[i];

		bytes += tail_chunks(l, rows) * chunk;
		bytes += rows && l->record->sinks ? sinks : 0;
	}
	return bytes;
}

int seq_fork_held(struct seq *parent, const char *name, uint32_t rows, struct seq **ret, char *why)
{
	struct cache *c = parent->cache;
	struct seq *s = NULL;
	int r;

	if (rows > seq_least_rows(parent))
		return why_fail(why, EINVAL, "rows %u: the parent has %u in every layer", rows,
				seq_least_rows(parent));
	r = seq_make(c, name, parent->node, &s, why);
	if (r < 0)
		return r;
	r = tokens_fork(parent, s, rows);
	if (r == 0)
		r = charge_bytes(s, fork_bytes(parent, rows));
	if (r < 0)
		return seq_fail_made(s, r, "fork", why);
	for (uint32_t i = 0; i < c->record->layers; i++)
		fork_layer(parent, s, i, rows);
	POINT(fork_made);
	*ret = s;
	return 0;
}

int seq_fork(struct seq *parent, uint32_t rows, uint64_t session, struct seq **ret, char *why)
{
	struct seq *s = NULL;
	int r;

	r = seq_take_control(parent, why);
	if (r < 0)
		return r;
	r = seq_fork_held(parent, "", rows, &s, why);
	seq_end_control(parent);
	if (r < 0)
		return r;
	seq_publish(s, session);
	evict_touch(parent);
	POINT(fork_end);
	*ret = s;
	return 0;
}
