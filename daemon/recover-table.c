/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of sealed tiles, found again: see recover.h and table.h. */
#include <assert.h>
#include <errno.h>

#include "daemon/name.h"
#include "daemon/recover-private.h"
#include "daemon/table-private.h"
#include "shm/base.h"

static const struct table_header *header_of(const struct recovery *rc, uint32_t table)
{
	return catalogue_block(rc->st->catalogue, table);
}

static uint32_t tiles_of(const struct table_header *h, uint32_t rows)
{
	return DIV_UP(rows - h->start_row, KV_TILE_ROWS);
}

/* Tiles of the extent that begins at a row: the rule by which table.c makes them. */
static uint32_t extent_tiles(const struct cache *c, uint32_t row)
{
	return row - cache_shape(c)->sinks < KV_SHORT_ROWS ? 1 : KV_EXTENT_TILES;
}

/* Entries that so many tiles from a row on take. */
static uint32_t entries_of(const struct cache *c, uint32_t row, uint32_t tiles)
{
	uint32_t from = row - cache_shape(c)->sinks, n_short = 0;

	if (from < KV_SHORT_ROWS)
		n_short = MIN(tiles, DIV_UP(KV_SHORT_ROWS - from, KV_TILE_ROWS));
	return n_short + DIV_UP(tiles - n_short, KV_EXTENT_TILES);
}

/* ---- headers ------------------------------------------------------------------ */

static bool header_makes_sense(const struct recovery *rc, const struct cache *c,
			       const struct table_header *h)
{
	uint32_t sinks = cache_shape(c)->sinks;

	if (h->base == BLOCK_NONE)
		return h->start_row == sinks && !h->base_tiles && !h->base_extents;
	/* Further down means fewer rows: so no chain goes in a circle. */
	return catalogue_has_block(rc->st->catalogue, h->base) && h->base_limit == h->start_row &&
	       h->start_row < SPARQ_ROW_LIMIT && h->start_row > header_of(rc, h->base)->start_row &&
	       header_of(rc, h->base)->start_row >= sinks;
}

static bool same_place(const struct found_table *f, const struct cache *c, uint32_t layer)
{
	return f->cache == c && f->layer == layer;
}

int recover_chain(struct recovery *rc, const struct cache *c, uint32_t layer, uint32_t table,
		  char *why)
{
	uint32_t end = BLOCK_NONE;
	uint32_t t;

	for (t = table; t != BLOCK_NONE; t = header_of(rc, t)->base) {
		if (!catalogue_has_block(rc->st->catalogue, t))
			return why_fail(why, EUCLEAN, "table %u: there is no such block", t);
		if (rc->table[t].known && !same_place(&rc->table[t], c, layer))
			return why_fail(why, EUCLEAN, "table %u: of another layer or cache", t);
		if (rc->table[t].known)
			break;
		if (!header_makes_sense(rc, c, header_of(rc, t)))
			return why_fail(why, EUCLEAN, "table %u: its header is damaged", t);
	}
	end = t;
	for (t = table; t != end; t = header_of(rc, t)->base)
		rc->table[t] = (struct found_table){
			.cache = (struct cache *)c,
			.layer = layer,
			.known = true,
		};
	return 0;
}

struct reach recover_below(const struct recovery *rc, struct reach r, uint32_t rows)
{
	while (r.table && rows <= header_of(rc, r.table)->start_row)
		r = (struct reach){ header_of(rc, r.table)->base,
				    header_of(rc, r.table)->base_limit };
	if (!r.table)
		return (struct reach){ BLOCK_NONE, 0 };
	if (!r.limit || r.limit > rows)
		r.limit = rows;
	return r;
}

uint32_t recover_table_start(const struct recovery *rc, uint32_t table)
{
	return header_of(rc, table)->start_row;
}

uint32_t recover_tiles(const struct recovery *rc, uint32_t table, uint32_t rows)
{
	const struct table_header *h = header_of(rc, table);

	return h->base_tiles + tiles_of(h, rows);
}

uint32_t recover_extents(const struct recovery *rc, uint32_t table, uint32_t rows)
{
	const struct table_header *h = header_of(rc, table);

	return h->base_extents +
	       entries_of(rc->table[table].cache, h->start_row, tiles_of(h, rows));
}

/* ---- how far they are reached --------------------------------------------------- */

/* The tables below one that is reached for the first time are reached by it. */
static void reach_down(struct recovery *rc, uint32_t table)
{
	while (!rc->table[table].reached) {
		const struct table_header *h = header_of(rc, table);
		struct found_table *below;
		uint32_t tiles;

		rc->table[table].reached = true;
		if (h->base == BLOCK_NONE)
			return;
		below = &rc->table[h->base];
		tiles = tiles_of(header_of(rc, h->base), h->base_limit);
		below->shared = MAX(below->shared, tiles);
		below->tiles = MAX(below->tiles, tiles);
		table = h->base;
	}
}

int recover_reach(struct recovery *rc, struct reach r, uint32_t tiles, char *why)
{
	struct found_table *f = &rc->table[r.table];

	if (!r.limit && f->owned)
		return why_fail(why, EUCLEAN, "table %u has another owner", r.table);
	if (!r.limit) {
		f->owned = true;
		f->owner_tiles = tiles;
	} else {
		f->shared = MAX(f->shared, tiles);
	}
	f->tiles = MAX(f->tiles, tiles);
	reach_down(rc, r.table);
	return 0;
}

/* ---- marking -------------------------------------------------------------------- */

static int mark_block(struct recovery *rc, struct table *t, uint32_t block)
{
	int r = catalogue_mark_block(rc->st->catalogue, block);

	if (r < 0)
		return r;
	t->bytes += CATALOGUE_BLOCK;
	cache_restore(t->cache, CATALOGUE_BLOCK);
	return 0;
}

/* `shared`: another table may have it as well, and is charged for it then. */
static int mark_page(struct recovery *rc, struct table *t, page_ref page, struct page_size size,
		     bool shared)
{
	uint64_t stride = pool_charge(rc->st->pool, size);
	int r = pool_mark(rc->st->pool, page, size, t->cache->record->uid);

	if (r == -EEXIST && shared) {
		pool_ref(rc->st->pool, page);
		t->bytes += stride;
		return 0;
	}
	if (r < 0)
		return r;
	t->bytes += stride;
	cache_restore(t->cache, stride);
	return 0;
}

static int mark_entry(struct recovery *rc, const struct found_table *f, struct table *t,
		      const struct table_entry *e, uint32_t row)
{
	if (e->first_row != row || e->tiles != extent_tiles(f->cache, row) ||
	    e->flags & ~ENTRY_SHARED || e->correction > t->corrections)
		return -EUCLEAN;
	return mark_page(rc, t, e->page, table_page_size(t, e->tiles), e->flags & ENTRY_SHARED);
}

/* What fails is not there: nothing that was not marked is given back with the table. */
static int mark_corrections(struct recovery *rc, uint32_t table, struct table *t)
{
	struct table_header *h = table_header(rc->st, table);
	struct table_corrections *list;
	int r;

	if (h->corrections == BLOCK_NONE)
		return 0;
	r = mark_block(rc, t, h->corrections);
	if (r < 0) {
		h->corrections = BLOCK_NONE;
		return r;
	}
	list = table_corrections(rc->st, table);
	r = list->n && list->n <= TABLE_CORRECTIONS ? 0 : -EUCLEAN;
	while (r == 0 && t->corrections < list->n) {
		r = mark_page(rc, t, list->page[t->corrections], table_correction_size(t), false);
		t->corrections += r == 0;
	}
	if (r < 0)
		list->n = t->corrections;
	return r;
}

/* The next entry; a block is marked when the walk comes to it. */
static int walk_to_next(struct recovery *rc, struct table *t, struct walk *w,
			struct table_entry **ret)
{
	struct catalogue *c = rc->st->catalogue;

	if (!w->left) {
		uint32_t next = ((struct table_block *)catalogue_block(c, w->block))->next;
		int r = mark_block(rc, t, next);

		if (r < 0)
			return r;
		w->block = next;
		w->left = ENTRIES_NEXT;
		w->entry = ((struct table_block *)catalogue_block(c, next))->entry;
	}
	w->left--;
	*ret = w->entry++;
	return 0;
}

/* Marks what is reached. Where it fails, `t` counts what was marked, and the chain ends there. */
static int mark(struct recovery *rc, uint32_t table, const struct found_table *f, struct table *t)
{
	const struct table_header *h = header_of(rc, table);
	uint32_t n = entries_of(f->cache, h->start_row, f->tiles), row = h->start_row;
	struct walk w = walk_begin(rc->st, table);
	struct table_entry *e;
	int r;

	r = mark_block(rc, t, table);
	if (r < 0)
		return r;
	r = mark_corrections(rc, table, t);
	while (r == 0 && t->n_entries < n) {
		r = walk_to_next(rc, t, &w, &e);
		if (r == 0)
			r = mark_entry(rc, f, t, e, row);
		if (r < 0)
			break;
		t->n_entries++;
		t->last_used = MIN(f->tiles - t->tiles, e->tiles);
		t->tiles += t->last_used;
		row += e->tiles * KV_TILE_ROWS;
	}
	/* What follows is not reached, and may be another's by now. */
	t->last_block = w.block;
	((struct table_block *)catalogue_block(rc->st->catalogue, w.block))->next = BLOCK_NONE;
	return r;
}

/* What this table says of what lies below it. */
static bool counts_agree(const struct recovery *rc, uint32_t table)
{
	const struct table_header *h = header_of(rc, table);

	return h->base == BLOCK_NONE ||
	       (h->base_tiles == recover_tiles(rc, h->base, h->base_limit) &&
		h->base_extents == recover_extents(rc, h->base, h->base_limit));
}

static void recover_table(struct recovery *rc, uint32_t table)
{
	struct found_table *f = &rc->table[table];
	struct table t = {
		.cache = f->cache,
		.layer = f->layer,
		.shared = f->shared,
		.refs = 1, /* ours: a sequence that is given up must not take it along */
		.owned = f->owned,
	};

	/* An owner never has less than it let others reach: it would have left. */
	f->bad = (f->owned && f->shared > f->owner_tiles) || !counts_agree(rc, table) ||
		 mark(rc, table, f, &t) < 0;
	rc->n_bad += f->bad;
	rc->st->tables[table] = t;
	rc->count->tables++;
}

void recover_tables(struct recovery *rc)
{
	uint32_t n = catalogue_header(rc->st->catalogue)->n_blocks;

	for (uint32_t i = 0; i < n; i++)
		if (rc->table[i].reached)
			recover_table(rc, i);
}

bool recover_chain_is_bad(const struct recovery *rc, uint32_t table)
{
	for (; rc->n_bad && table != BLOCK_NONE; table = header_of(rc, table)->base)
		if (rc->table[table].bad)
			return true;
	return false;
}

void recover_ref(struct recovery *rc, uint32_t table)
{
	while (table != BLOCK_NONE) {
		bool alive = rc->table[table].alive;

		rc->table[table].alive = true;
		rc->st->tables[table].refs++;
		table = alive ? BLOCK_NONE : header_of(rc, table)->base;
	}
}

void recover_sweep(struct recovery *rc)
{
	uint32_t n = catalogue_header(rc->st->catalogue)->n_blocks;

	for (uint32_t i = 0; i < n; i++) {
		if (!rc->table[i].reached || !rc->st->tables[i].bytes)
			continue;
		if (rc->table[i].alive)
			table_unref(rc->st, i);
		else
			table_free(rc->st, i); /* it took no reference on what lies below */
	}
}
