/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token path of a sequence: room for rows, the view of a kernel, commit,
 * flush. Everything here runs under the hold of seq.h and neither allocates,
 * locks nor logs.
 *
 * The order that recovery relies on: what a commit word counts (chunks, entries,
 * rows in them) is stored before the word's store-release; what it stops counting
 * is given back after it.
 */
#include "daemon/layer.h"

#include <assert.h>

#include "daemon/census.h"
#include "daemon/charge.h"
#include "daemon/point.h"
#include "daemon/seq.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/probe.h"

#define TILE_CHUNKS (KV_TILE_ROWS / KV_CHUNK_ROWS)

struct page_size layer_chunk_size(const struct seq *s)
{
	return spread_size(s->cache, kv_chunk_bytes(cache_shape(s->cache), KV_CHUNK_ROWS));
}

struct page_size layer_sinks_size(const struct seq *s)
{
	return spread_size(s->cache, kv_chunk_bytes(cache_shape(s->cache), KV_MAX_SINKS));
}

page_ref *layer_chunk(struct seq_layer *l, uint32_t i)
{
	return &l->record->chunk[(layer_commit(l).tiles * TILE_CHUNKS + i) % KV_MAX_CHUNKS];
}

void layer_init(struct seq *s, struct seq_layer *l, struct layer_record *record)
{
	*l = (struct seq_layer){ .record = record, .tail_first = cache_shape(s->cache)->sinks };
}

struct commit layer_commit(const struct seq_layer *l)
{
	/* Written by whoever holds the sequence; the control thread may look without a hold. */
	return commit_unpack(load_relaxed(&l->record->commit));
}

void layer_publish(struct seq_layer *l, struct commit c)
{
	/* All that it counts is in the pools and in the catalogue before it. */
	store_release(&l->record->commit, commit_pack(c));
}

uint32_t seq_rows(const struct seq *s, uint32_t layer)
{
	return layer_commit(&s->layer[layer]).rows;
}

/* ---- append ------------------------------------------------------------------- */

static int take_chunk(struct seq *s, struct seq_layer *l)
{
	page_ref page;
	int r;

	if (l->n_chunks == KV_MAX_CHUNKS)
		return l->flush_error ? l->flush_error : -ENOSPC;
	r = charge_page(s, layer_chunk_size(s), s->node, &page);
	if (r < 0)
		return r;
	*layer_chunk(l, l->n_chunks++) = page;
	return 0;
}

void layer_show_sinks(const struct pool *pool, page_ref page, struct kv_view *ret)
{
	ret->sinks = pool_data(pool, page);
	ret->parted &= ~KV_PARTED_SINKS;
	ret->parted |= pool_is_striped(page) ? KV_PARTED_SINKS : 0;
}

void layer_show_chunk(const struct pool *pool, page_ref page, uint32_t i, struct kv_view *ret)
{
	ret->chunk[i] = pool_data(pool, page);
	ret->parted &= ~(1u << i);
	ret->parted |= (uint32_t)pool_is_striped(page) << i;
}

/* A page that nobody else reads, in the place of one that `s` shares: with the rows of it that
 * count, [first, first + n), before it is named. It is charged already, as the other one was. */
static int own_page(struct seq *s, struct seq_layer *l, page_ref *at, uint32_t first, uint32_t n)
{
	struct pool *pool = s->cache->store->pool;
	bool is_sinks = at == &l->record->sinks;
	page_ref copy, old = *at;
	struct kv_view from, to;
	int r;

	if (!pool_is_shared(pool, old))
		return 0;
	r = charge_page_swap(s, is_sinks ? layer_sinks_size(s) : layer_chunk_size(s), &copy);
	if (r < 0)
		return r;
	layer_view(s, l, layer_commit(l).rows, &from);
	to = from;
	if (is_sinks)
		layer_show_sinks(pool, copy, &to);
	else
		layer_show_chunk(pool, copy, (first - l->tail_first) / KV_CHUNK_ROWS, &to);
	kv_copy(cache_shape(s->cache), &from, &to, first, n);
	POINT(append_copied);
	/* Either page says the same of the rows that count; a crash leaves one of them. */
	store_release(at, copy);
	POINT(append_unshared);
	pool_put(pool, old);
	return 0;
}

/* The pages that rows from the committed ones to `end` go to. */
static int own_pages(struct seq *s, struct seq_layer *l, uint32_t end)
{
	uint32_t rows = layer_commit(l).rows, sinks = cache_shape(s->cache)->sinks;
	uint32_t i = rows > l->tail_first ? (rows - l->tail_first) / KV_CHUNK_ROWS : 0;
	int r = 0;

	if (rows < sinks)
		r = own_page(s, l, &l->record->sinks, 0, rows);
	for (; r == 0 && i < l->n_chunks; i++) {
		uint32_t first = l->tail_first + i * KV_CHUNK_ROWS;

		if (first >= end)
			break;
		r = own_page(s, l, layer_chunk(l, i), first, rows > first ? rows - first : 0);
	}
	return r;
}

int seq_reserve(struct seq *s, uint32_t layer, uint32_t n)
{
	struct seq_layer *l = &s->layer[layer];
	uint64_t end = (uint64_t)layer_commit(l).rows + n;
	int r;

	if (end > s->cache->store->max_rows)
		return -E2BIG;
	if (end && cache_shape(s->cache)->sinks && !l->record->sinks) {
		page_ref page;

		r = charge_page(s, layer_sinks_size(s), s->node, &page);
		if (r < 0)
			return r;
		l->record->sinks = page;
	}
	while (l->tail_first + (uint64_t)l->n_chunks * KV_CHUNK_ROWS < end) {
		r = take_chunk(s, l);
		if (r < 0)
			return r;
	}
	return n ? own_pages(s, l, (uint32_t)end) : 0;
}

void seq_commit(struct seq *s, uint32_t layer, uint32_t rows)
{
	struct seq_layer *l = &s->layer[layer];
	struct commit c = layer_commit(l);

	assert(rows >= c.rows);
	assert(rows <= l->tail_first + l->n_chunks * KV_CHUNK_ROWS);
	layer_publish(l, (struct commit){ rows, c.tiles });
	census_rows(s, c.rows, rows);
}

/* ---- view --------------------------------------------------------------------- */

uint32_t seq_extents(const struct seq *s, uint32_t layer)
{
	uint32_t most = 0;

	if (layer != SPARQ_LAYER_ALL)
		return s->layer[layer].n_extents;
	for (uint32_t i = 0; i < s->cache->record->layers; i++)
		most = MAX(most, s->layer[i].n_extents);
	return most;
}

void layer_view(const struct seq *s, struct seq_layer *l, uint32_t rows, struct kv_view *ret)
{
	const struct pool *pool = s->cache->store->pool;
	uint32_t sinks = cache_shape(s->cache)->sinks;

	assert(rows <= l->tail_first + l->n_chunks * KV_CHUNK_ROWS);
	*ret = (struct kv_view){ .rows = rows, .n_sinks = MIN(rows, sinks) };
	ret->channels = channels_layer(s->cache, (uint32_t)(l - s->layer));
	ret->parts = s->cache->parts;
	if (l->record->sinks)
		layer_show_sinks(pool, l->record->sinks, ret);
	/* Fewer rows than are sealed: there is no tail, and nothing is written through this view.
	 */
	ret->tail_first = MIN(MAX(rows, sinks), l->tail_first);
	if (ret->tail_first < l->tail_first)
		return;
	ret->tail_rows = rows > l->tail_first ? rows - l->tail_first : 0;
	for (uint32_t i = 0; i < l->n_chunks; i++)
		layer_show_chunk(pool, *layer_chunk(l, i), i, ret);
}

int seq_view(const struct seq *s, uint32_t layer, uint32_t rows, struct kv_extent *extent,
	     uint32_t n_extent, struct kv_view *ret)
{
	struct seq_layer *l = &s->layer[layer];
	uint32_t table = layer_reach(l).table, end = MIN(rows, l->tail_first);

	if (l->n_extents > n_extent)
		return -E2BIG;
	layer_view(s, l, rows, ret);
	ret->extent = extent;
	if (table)
		ret->n_extents = table_extents(s->cache->store, table, end, l->n_extents, extent);
	return 0;
}

/* ---- flush -------------------------------------------------------------------- */

bool seq_flush_due(const struct seq *s, uint32_t layer)
{
	const struct seq_layer *l = &s->layer[layer];

	return layer_commit(l).rows >= (uint64_t)l->tail_first + KV_TILE_ROWS + s->cache->rollback;
}

/* The table that this layer may append to. */
static int own_table(struct seq *s, uint32_t layer, uint32_t *ret)
{
	struct seq_layer *l = &s->layer[layer];
	struct reach reach = layer_reach(l);
	uint32_t table;
	int r;

	if (!reach.table || reach.limit) {
		r = table_create(s, layer, reach, layer_commit(l).tiles, l->n_extents,
				 l->tail_first, &table);
		if (r < 0)
			return r;
		/* The new table says the same as its base did, so this changes nothing yet. */
		reach = (struct reach){ table, 0 };
		POINT(flush_table);
		layer_set_reach(l, reach);
		POINT(flush_reach);
	}
	*ret = reach.table;
	return 0;
}

int seq_flush_begin(struct seq *s, uint32_t layer, struct kv_extent *ret_extent, unsigned *ret_slot)
{
	struct seq_layer *l = &s->layer[layer];
	uint32_t table;
	int r;

	POINT(flush_begin);
	r = own_table(s, layer, &table);
	if (r == 0)
		r = table_next(s, table, l->tail_first, ret_extent, ret_slot);
	l->flush_error = r;
	return r;
}

void seq_flush_commit(struct seq *s, uint32_t layer)
{
	struct seq_layer *l = &s->layer[layer];
	struct commit c = layer_commit(l);
	page_ref old[TILE_CHUNKS];

	assert(c.rows >= l->tail_first + KV_TILE_ROWS);
	for (uint32_t i = 0; i < TILE_CHUNKS; i++)
		old[i] = *layer_chunk(l, i);
	if (table_seal(s->cache->store, layer_reach(l).table))
		l->n_extents++;
	POINT(flush_written);
	layer_publish(l, (struct commit){ c.rows, c.tiles + 1 });
	POINT(flush_published);
	l->tail_first += KV_TILE_ROWS;
	l->n_chunks -= TILE_CHUNKS;
	for (uint32_t i = 0; i < TILE_CHUNKS; i++) {
		/* The slots before the ring's beginning are its last ones now. */
		*layer_chunk(l, KV_MAX_CHUNKS - TILE_CHUNKS + i) = 0;
		charge_page_put(s, layer_chunk_size(s), old[i]);
	}
	POINT(flush_end);
	PROBE3(flush, s->id, layer, c.tiles + 1);
}

void layer_trim(struct seq *s, struct seq_layer *l, uint32_t rows)
{
	uint32_t need = 0;

	if (rows > l->tail_first)
		need = DIV_UP(rows - l->tail_first, KV_CHUNK_ROWS);
	while (l->n_chunks > need) {
		page_ref *at = layer_chunk(l, --l->n_chunks);

		charge_page_put(s, layer_chunk_size(s), *at);
		*at = 0;
	}
	if (rows == 0 && l->record->sinks) {
		charge_page_put(s, layer_sinks_size(s), l->record->sinks);
		l->record->sinks = 0;
	}
}
