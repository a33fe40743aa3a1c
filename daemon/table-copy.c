/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of which some extents are others: for rows that are overwritten, see
 * overwrite.h.
 *
 * The new table has the pages of all other extents in common with the old one. Of
 * those behind the rows that change, the sums of V are off by one vector for each KV
 * head, so each of the new table's entries names what its sums lack: what they lacked
 * before, or that and the change. There are as many corrections as extents differ in
 * this; where they are used up, an extent is copied, and its sums put right.
 */
#include <assert.h>
#include <string.h>

#include "daemon/charge.h"
#include "daemon/seq.h"
#include "daemon/table-private.h"
#include "shm/atomic.h"
#include "shm/base.h"

const double *table_correction(const struct store *st, uint32_t table, const struct table_entry *e)
{
	if (likely(!e->correction))
		return NULL;
	return pool_data(st->pool, table_corrections(st, table)->page[e->correction - 1]);
}

void table_put_corrections(struct store *st, uint32_t table)
{
	struct table_header *h = table_header(st, table);
	struct table_corrections *list;

	if (!h->corrections)
		return;
	list = table_corrections(st, table);
	for (uint32_t i = 0; i < list->n; i++)
		pool_put(st->pool, list->page[i]);
	catalogue_put_block(st->catalogue, h->corrections);
	h->corrections = BLOCK_NONE;
}

/* ---- corrections ------------------------------------------------------------------ */

#define NONE_LEFT (TABLE_CORRECTIONS + 1)

struct copy {
	struct seq *seq;
	struct table_change *change;
	uint32_t from, to; /* tables */
	/* Of the new table: for what was in the old one before the rows that change, and behind. */
	uint8_t number[2][TABLE_CORRECTIONS + 1];
};

static struct table *table_of(const struct copy *c)
{
	return &c->seq->cache->store->tables[c->to];
}

static int take_block(struct copy *c, uint32_t *ret)
{
	int r = table_take_block(c->seq, table_of(c), ret);

	if (r == 0)
		c->change->charged += CATALOGUE_BLOCK;
	return r;
}

static int take_page(struct copy *c, struct page_size size, unsigned node, page_ref *ret)
{
	uint64_t stride = pool_charge(c->seq->cache->store->pool, size);
	int r = charge_page(c->seq, size, node, ret);

	if (r < 0)
		return r;
	c->change->charged += stride;
	table_of(c)->bytes += stride;
	return 0;
}

/* One more, which begins as number `old` of the old table. */
static int new_correction(struct copy *c, uint8_t old, bool behind)
{
	const struct store *st = c->seq->cache->store;
	struct table_header *h = table_header(st, c->to);
	struct page_size size = table_correction_size(table_of(c));
	const struct table_entry like = { .correction = old };
	struct table_corrections *list;
	page_ref page;
	int r = h->corrections ? 0 : take_block(c, &h->corrections);

	if (r < 0)
		return r;
	list = table_corrections(st, c->to);
	if (list->n == TABLE_CORRECTIONS)
		return NONE_LEFT;
	r = take_page(c, size, c->seq->node, &page);
	if (r < 0)
		return r;
	if (old)
		memcpy(pool_data(st->pool, page), table_correction(st, c->from, &like), size.whole);
	else
		memset(pool_data(st->pool, page), 0, size.whole);
	table_of(c)->shifts |= (uint32_t)behind << list->n;
	list->page[list->n++] = page;
	return (int)list->n;
}

/* What an extent that stays lacks: its number, 0, NONE_LEFT, or -ENOSPC. */
static int correction_for(struct copy *c, uint8_t old, bool behind)
{
	uint8_t *number = &c->number[behind][old];
	int r;

	if (!old && !behind)
		return 0;
	if (*number)
		return *number;
	r = new_correction(c, old, behind);
	if (r > 0 && r < (int)NONE_LEFT)
		*number = (uint8_t)r;
	return r;
}

/* ---- entries ---------------------------------------------------------------------- */

static int append_entry(struct copy *c, struct table_entry e)
{
	struct store *st = c->seq->cache->store;
	struct table *t = table_of(c);

	if (table_is_full(t)) {
		uint32_t block;
		int r = take_block(c, &block);

		if (r < 0)
			return r;
		table_block(st, t->last_block)->next = block;
		t->last_block = block;
	}
	*table_entry_at(st, t, c->to, t->n_entries++) = e;
	return 0;
}

static bool changes(const struct table_change *c, const struct kv_extent *x)
{
	uint32_t end = x->first_row + (x->used - 1u) * KV_TILE_ROWS + x->last_rows;

	return x->first_row < c->row + c->n && c->row < end;
}

/* The extent has a page of its own from here on. */
static int copy_extent(struct copy *c, const struct table_entry *from, struct kv_extent *x)
{
	struct table_entry e = { 0, from->first_row, from->tiles, 0, 0 };
	const struct store *st = c->seq->cache->store;
	int r = append_entry(c, e);

	if (r < 0)
		return r;
	r = take_page(c, table_page_size(table_of(c), e.tiles),
		      spread_row_node(c->seq, e.first_row), &e.page);
	if (r < 0) {
		table_of(c)->n_entries--;
		return r;
	}
	*table_entry_at(st, table_of(c), c->to, table_of(c)->n_entries - 1) = e;
	x->base = pool_data(st->pool, e.page);
	x->parted = pool_is_striped(e.page);
	x->correction = NULL;
	return 0;
}

static int share_extent(struct copy *c, struct table_entry *from, uint8_t correction)
{
	struct pool *pool = c->seq->cache->store->pool;
	uint64_t stride = pool_charge(pool, table_page_size(table_of(c), from->tiles));
	page_ref page = table_entry_page(from);
	struct table_entry e = { page, from->first_row, from->tiles, correction, ENTRY_SHARED };
	int r = append_entry(c, e);

	if (r < 0)
		return r;
	/* Before anything says that it is: recovery believes nobody who claims a page twice. */
	store_relaxed(&from->flags, (uint8_t)ENTRY_SHARED);
	pool_ref(pool, page);
	fetch_add(&c->seq->bytes, stride);
	table_of(c)->bytes += stride;
	return 0;
}

static int copy_entry(struct copy *c, struct table_entry *from, uint32_t extent)
{
	const struct kv_extent *x = &c->change->from[extent];
	struct kv_extent *to = &c->change->to[extent];
	int r = (int)NONE_LEFT;

	if (!changes(c->change, x))
		r = correction_for(c, from->correction, x->first_row >= c->change->row);
	if (r < 0)
		return r;
	return r == (int)NONE_LEFT ? copy_extent(c, from, to) : share_extent(c, from, (uint8_t)r);
}

/* ---- tables ----------------------------------------------------------------------- */

static int copy_entries(struct copy *c, uint32_t tiles)
{
	const struct store *st = c->seq->cache->store;
	uint32_t first = table_header(st, c->from)->base_extents;
	uint32_t n = table_entries_of(st, c->from, tiles);
	struct walk w = walk_begin(st, c->from);
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		struct table_entry *e = walk_next(&w);

		r = copy_entry(c, e, first + i);
		if (r == 0)
			table_of(c)->last_used = MIN(e->tiles, tiles - table_of(c)->tiles);
		if (r == 0)
			table_of(c)->tiles += table_of(c)->last_used;
	}
	return r;
}

int table_copy(struct seq *s, struct table_change *change, uint32_t layer, uint32_t table,
	       uint32_t limit, uint32_t *ret_table)
{
	struct store *st = s->cache->store;
	const struct table_header *h = table_header(st, table);
	uint32_t tiles = limit ? table_tiles_below(st, table, limit) : st->tables[table].tiles;
	struct copy c = { .seq = s, .change = change, .from = table };
	int r;

	r = table_create(s, layer, (struct reach){ BLOCK_NONE, h->base_limit }, h->base_tiles,
			 h->base_extents, h->start_row, &c.to);
	if (r < 0)
		return r;
	change->charged += CATALOGUE_BLOCK;
	r = copy_entries(&c, tiles);
	if (r < 0) {
		table_disown(s, c.to);
		table_free(st, c.to);
		return r;
	}
	*ret_table = c.to;
	return 0;
}

void table_set_base(struct store *st, uint32_t table, uint32_t base)
{
	table_header(st, table)->base = base;
}

uint32_t table_base(const struct store *st, uint32_t table)
{
	return table_header(st, table)->base;
}

uint32_t table_start(const struct store *st, uint32_t table)
{
	return table_header(st, table)->start_row;
}

void table_shift(struct store *st, uint32_t table, uint32_t head, const double *delta)
{
	const struct table *t = &st->tables[table];
	uint32_t dim = cache_layer(t->cache, t->layer)->v_dim;

	for (uint32_t left = t->shifts; left; left &= left - 1) {
		page_ref page = table_corrections(st, table)->page[__builtin_ctz(left)];
		double *to = (double *)pool_data(st->pool, page) + (size_t)head * dim;

		for (uint32_t i = 0; i < dim; i++)
			to[i] += delta[i];
	}
}

void table_disown(struct seq *s, uint32_t table)
{
	struct table *t = &s->cache->store->tables[table];

	fetch_sub(&s->bytes, t->bytes);
	store_release(&t->owned, 0u);
}
