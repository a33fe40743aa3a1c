/* SPDX-License-Identifier: Apache-2.0 */
/* Chains of sealed tiles, shared by forks: see table.h. */
#include "daemon/table-private.h"

#include <assert.h>
#include <string.h>

#include "daemon/charge.h"
#include "daemon/point.h"
#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* Which entry has the tile before which a table has `tiles`, and how many of them it holds before
 * that: by table_extent_tiles alone, without looking at them. */
static uint32_t entry_of(const struct store *st, uint32_t table, uint32_t tiles, uint32_t *ret_used)
{
	const struct table *t = &st->tables[table];
	uint32_t first = table_header(st, table)->start_row - cache_shape(t->cache)->sinks;
	uint32_t n_short = first < KV_SHORT_ROWS ? DIV_UP(KV_SHORT_ROWS - first, KV_TILE_ROWS) : 0;

	if (tiles < n_short) {
		*ret_used = 0;
		return tiles;
	}
	*ret_used = (tiles - n_short) % KV_EXTENT_TILES;
	return n_short + (tiles - n_short) / KV_EXTENT_TILES;
}

/* Entries that hold the first `tiles` tiles. */
uint32_t table_entries_of(const struct store *st, uint32_t table, uint32_t tiles)
{
	uint32_t used, n = entry_of(st, table, tiles, &used);

	return n + (used > 0);
}

/* ---- owner -------------------------------------------------------------------- */

int table_take_block(struct seq *s, struct table *t, uint32_t *ret)
{
	int r;

	r = charge_block(s, ret);
	if (r < 0)
		return r;
	memset(catalogue_block(s->cache->store->catalogue, *ret), 0, CATALOGUE_BLOCK);
	t->bytes += CATALOGUE_BLOCK;
	return 0;
}

static void put_block(struct seq *s, struct table *t, uint32_t block)
{
	charge_block_put(s, block);
	t->bytes -= CATALOGUE_BLOCK;
}

int table_create(struct seq *s, uint32_t layer, struct reach base, uint32_t base_tiles,
		 uint32_t base_extents, uint32_t start_row, uint32_t *ret_table)
{
	struct store *st = s->cache->store;
	struct table t = { .refs = 1, .cache = s->cache, .layer = layer, .owned = 1 };
	uint32_t table;
	int r;

	r = table_take_block(s, &t, &table);
	if (r < 0)
		return r;
	*table_header(st, table) = (struct table_header){
		.start_row = start_row,
		.base = base.table,
		.base_limit = base.limit,
		.base_tiles = base_tiles,
		.base_extents = base_extents,
	};
	t.last_block = table;
	st->tables[table] = t;
	*ret_table = table;
	return 0;
}

struct table_entry *table_entry_at(const struct store *st, const struct table *t, uint32_t table,
				   uint32_t i)
{
	if (i < ENTRIES_FIRST)
		return (struct table_entry *)(table_header(st, table) + 1) + i;
	/* The owner asks for the last or the one behind it only. */
	return &table_block(st, t->last_block)->entry[(i - ENTRIES_FIRST) % ENTRIES_NEXT];
}

bool table_is_full(const struct table *t)
{
	return t->n_entries >= ENTRIES_FIRST && (t->n_entries - ENTRIES_FIRST) % ENTRIES_NEXT == 0;
}

/* One more entry, with its page. */
static int table_grow(struct seq *s, uint32_t table, uint32_t row)
{
	struct store *st = s->cache->store;
	struct table *t = &st->tables[table];
	unsigned tiles = table_extent_tiles(t->cache, row);
	uint32_t block = BLOCK_NONE;
	page_ref page;
	int r;

	if (table_is_full(t)) {
		r = table_take_block(s, t, &block);
		if (r < 0)
			return r;
	}
	r = charge_page(s, table_page_size(t, tiles), spread_row_node(s, row), &page);
	if (r < 0) {
		if (block) {
			put_block(s, t, block);
			s->shortage.bytes += CATALOGUE_BLOCK; /* both, or none */
		}
		return r;
	}
	if (block) {
		POINT(flush_block);
		table_block(st, t->last_block)->next = block;
		t->last_block = block;
	}
	*table_entry_at(st, t, table, t->n_entries) =
		(struct table_entry){ page, row, (uint16_t)tiles, 0, 0 };
	POINT(flush_extent);
	t->bytes += pool_charge(st->pool, table_page_size(t, tiles));
	t->n_entries++;
	t->last_used = 0;
	return 0;
}

int table_next(struct seq *s, uint32_t table, uint32_t row, struct kv_extent *ret_extent,
	       unsigned *ret_slot)
{
	struct store *st = s->cache->store;
	struct table *t = &st->tables[table];
	struct table_entry *e;
	int r;

	if (!t->n_entries ||
	    t->last_used == table_entry_at(st, t, table, t->n_entries - 1)->tiles) {
		r = table_grow(s, table, row);
		if (r < 0)
			return r;
	}
	e = table_entry_at(st, t, table, t->n_entries - 1);
	assert(e->first_row + t->last_used * KV_TILE_ROWS == row);
	*ret_extent = (struct kv_extent){
		.base = pool_data(st->pool, e->page),
		.first_row = e->first_row,
		.tiles = e->tiles,
		.used = (uint16_t)t->last_used,
		.last_rows = t->last_used ? KV_TILE_ROWS : 0,
		.parted = pool_is_striped(e->page),
		.correction = table_correction(st, table, e),
	};
	*ret_slot = t->last_used;
	return 0;
}

bool table_seal(struct store *st, uint32_t table)
{
	struct table *t = &st->tables[table];

	t->tiles++;
	return ++t->last_used == 1;
}

uint32_t table_shared(struct store *st, uint32_t table)
{
	struct table *t = &st->tables[table];

	/* Alone: whoever had another reference is done with what it reached. New references come
	 * only through the owner, or from somebody who has one. */
	if (load_acquire(&t->refs) == 1)
		t->shared = 0;
	return t->shared;
}

bool table_may_trim(struct store *st, uint32_t table, uint32_t tiles)
{
	uint32_t used, i = entry_of(st, table, tiles, &used);
	struct walk w;

	if (tiles < table_shared(st, table))
		return false;
	if (!used)
		return true;
	/* The slots behind those are written again: not while another table has the page. */
	w = walk_from(st, table, i);
	return !pool_is_shared(st->pool, walk_next(&w)->page);
}

void table_share(struct store *st, uint32_t table, uint32_t limit)
{
	uint32_t tiles = table_tiles_below(st, table, limit), shared = table_shared(st, table);

	st->tables[table].shared = MAX(tiles, shared);
}

static void drop_entry(struct seq *s, struct table *t, struct table_entry *e)
{
	struct pool *pool = s->cache->store->pool;
	uint64_t stride = pool_charge(pool, table_page_size(t, e->tiles));

	t->bytes -= stride;
	fetch_sub(&s->bytes, stride);
	/* A page of several tables is charged to the cache once. */
	if (pool_put(pool, e->page))
		cache_refund(s->cache, stride);
	*e = (struct table_entry){ 0 };
}

/* The n entries that the walk comes to, and the blocks that hold no others. */
static void drop_entries(struct seq *s, struct table *t, struct walk w, uint32_t n)
{
	struct store *st = s->cache->store;
	uint32_t last = w.block, next;

	for (uint32_t i = 0; i < n; i++)
		drop_entry(s, t, walk_next(&w));
	next = table_block(st, last)->next;
	table_block(st, last)->next = BLOCK_NONE;
	while (next) {
		uint32_t block = next;

		next = table_block(st, block)->next;
		put_block(s, t, block);
	}
	t->last_block = last;
}

void table_trim(struct seq *s, uint32_t table, uint32_t tiles)
{
	struct store *st = s->cache->store;
	struct table *t = &st->tables[table];
	uint32_t n = table_entries_of(st, table, tiles), used = 0;

	assert(tiles <= t->tiles && n <= t->n_entries);
	drop_entries(s, t, walk_from(st, table, n), t->n_entries - n);
	t->tiles = tiles;
	t->n_entries = n;
	/* Of the entry that is now the last one, the tile that is now the last one included. */
	if (tiles)
		entry_of(st, table, tiles - 1, &used);
	t->last_used = tiles ? used + 1 : 0;
}

void table_leave(struct seq *s, uint32_t table, uint32_t tiles)
{
	struct store *st = s->cache->store;
	struct table *t = &st->tables[table];
	uint32_t shared = table_shared(st, table);

	table_trim(s, table, MAX(tiles, shared));
	/* What others may hold longer than this sequence lives is its cache's alone. */
	fetch_sub(&s->bytes, t->bytes);
	/* From here on nobody changes it: whoever sees that sees it as it stays. */
	store_release(&t->owned, 0u);
}

/* ---- references ----------------------------------------------------------------- */

void table_ref(struct store *st, uint32_t table)
{
	fetch_add(&st->tables[table].refs, 1u);
}

void table_free(struct store *st, uint32_t table)
{
	struct table t = st->tables[table];
	struct walk w = walk_begin(st, table);
	uint64_t kept = 0; /* of pages that other tables have */
	uint32_t block = table;

	/* Once its first block is back, both may be another's. */
	st->tables[table] = (struct table){ 0 };
	for (uint32_t i = 0; i < t.n_entries; i++) {
		const struct table_entry *e = walk_next(&w);

		if (!pool_put(st->pool, e->page))
			kept += pool_charge(st->pool, table_page_size(&t, e->tiles));
	}
	table_put_corrections(st, table);
	while (block) {
		uint32_t next = table_block(st, block)->next;

		catalogue_put_block(st->catalogue, block);
		block = next;
	}
	cache_refund(t.cache, t.bytes - kept);
}

void table_unref(struct store *st, uint32_t table)
{
	/* A loop: a chain of forks may be as long as its owner likes. */
	while (table) {
		uint32_t base;

		if (fetch_sub(&st->tables[table].refs, 1u) > 1)
			return;
		base = table_header(st, table)->base;
		POINT(drop_table);
		table_free(st, table);
		table = base;
	}
}

/* ---- readers -------------------------------------------------------------------- */

struct reach table_below(const struct store *st, struct reach r, uint32_t rows)
{
	while (r.table && rows <= table_header(st, r.table)->start_row)
		r = (struct reach){ table_header(st, r.table)->base,
				    table_header(st, r.table)->base_limit };
	if (!r.table)
		return (struct reach){ BLOCK_NONE, 0 };
	if (!r.limit || r.limit > rows)
		r.limit = rows;
	return r;
}

uint32_t table_tiles_below(const struct store *st, uint32_t table, uint32_t rows)
{
	return DIV_UP(rows - table_header(st, table)->start_row, KV_TILE_ROWS);
}

bool table_tile_ends(const struct store *st, uint32_t table, uint32_t rows)
{
	return (rows - table_header(st, table)->start_row) % KV_TILE_ROWS == 0;
}

void table_count(const struct store *st, struct reach r, uint32_t *ret_tiles, uint32_t *ret_extents)
{
	const struct table_header *h = table_header(st, r.table);
	uint32_t tiles = table_tiles_below(st, r.table, r.limit);

	*ret_tiles = h->base_tiles + tiles;
	*ret_extents = h->base_extents + table_entries_of(st, r.table, tiles);
}

/* Extents of one table with rows in [start_row, end), at most `n`. */
static uint32_t extents_of(const struct store *st, uint32_t table, uint32_t end, uint32_t n,
			   struct kv_extent *ret)
{
	struct walk w = walk_begin(st, table);
	uint32_t i, row = table_header(st, table)->start_row;

	for (i = 0; i < n && row < end; i++) {
		const struct table_entry *e = walk_next(&w);
		uint32_t rows = MIN(end - row, e->tiles * KV_TILE_ROWS);
		uint32_t used = DIV_UP(rows, KV_TILE_ROWS);
		page_ref page = table_entry_page(e);

		ret[i] = (struct kv_extent){
			.base = pool_data(st->pool, page),
			.first_row = row,
			.tiles = e->tiles,
			.used = (uint16_t)used,
			.last_rows = rows - (used - 1) * KV_TILE_ROWS,
			.parted = pool_is_striped(page),
			.correction = table_correction(st, table, e),
		};
		row += rows;
	}
	assert(row == end);
	return i;
}

uint32_t table_extents(const struct store *st, uint32_t table, uint32_t end, uint32_t n,
		       struct kv_extent *ret)
{
	uint32_t total = 0;

	/* From the youngest table down: where its extents begin is told by what lies below it. */
	while (table) {
		const struct table_header *h = table_header(st, table);

		if (h->start_row < end) {
			uint32_t got = extents_of(st, table, end, n - h->base_extents,
						  ret + h->base_extents);

			total = total ? total : h->base_extents + got;
			end = h->base_limit;
		} else {
			end = MIN(end, h->base_limit);
		}
		n = h->base_extents;
		table = h->base;
	}
	return total;
}
