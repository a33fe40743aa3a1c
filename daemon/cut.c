/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fewer rows: truncate and drop of one layer.
 *
 * A cut in the tail is one store of the commit word. A cut below it is not: its
 * intent is noted first, and recovery that finds it does it again. Each step leaves
 * the rows to keep where the next one (or the same one, repeated) finds them.
 */
#include <assert.h>

#include "daemon/census.h"
#include "daemon/layer.h"
#include "daemon/point.h"
#include "daemon/seq.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* The owner keeps the rows below `rows`, the last of them in its own table. */
static struct reach cut_own(struct seq *s, uint32_t table, uint32_t rows)
{
	struct store *st = s->cache->store;
	uint32_t tiles = table_tiles_below(st, table, rows);

	/* A tile that counts in part is an end: the rows that follow it go to another table. So
	 * do tiles whose slots others still read. */
	if (table_tile_ends(st, table, rows) && table_may_trim(st, table, tiles)) {
		table_trim(s, table, tiles);
		POINT(truncate_shorter);
		return (struct reach){ table, 0 };
	}
	table_leave(s, table, tiles);
	POINT(truncate_left);
	return (struct reach){ table, rows };
}

static void cut_reach(struct seq *s, struct seq_layer *l, uint32_t rows)
{
	struct store *st = s->cache->store;
	struct reach from = layer_reach(l), to = table_below(st, from, rows);

	if (to.table == from.table) {
		layer_set_reach(l, from.limit ? to : cut_own(s, from.table, rows));
		return;
	}
	if (to.table)
		table_ref(st, to.table);
	if (!from.limit)
		table_leave(s, from.table, 0);
	POINT(truncate_below);
	layer_set_reach(l, to);
	POINT(truncate_moved);
	table_unref(st, from.table);
}

uint32_t layer_count_sealed(struct seq *s, struct seq_layer *l, uint32_t rows)
{
	uint32_t table = layer_reach(l).table, tiles = 0;

	l->n_extents = 0;
	l->tail_first = cache_shape(s->cache)->sinks;
	if (table) {
		table_count(s->cache->store, (struct reach){ table, rows }, &tiles, &l->n_extents);
		l->tail_first = rows;
	}
	return tiles;
}

static void cut_sealed(struct seq *s, struct seq_layer *l, uint32_t rows)
{
	uint32_t tiles;

	store_release(&l->record->cut, CUT_PENDING | rows);
	POINT(truncate_noted);
	/* While the ring still begins where the old commit word says. */
	layer_trim(s, l, rows);
	POINT(truncate_trimmed);
	cut_reach(s, l, rows);
	POINT(truncate_reached);
	tiles = layer_count_sealed(s, l, rows);
	layer_publish(l, (struct commit){ rows, tiles });
	POINT(truncate_published);
	store_release(&l->record->cut, 0);
	POINT(truncate_sealed);
}

static void cut_layer(struct seq *s, struct seq_layer *l, uint32_t rows)
{
	struct commit c = layer_commit(l);

	if (c.tiles && rows < l->tail_first) {
		cut_sealed(s, l, rows);
		return;
	}
	layer_publish(l, (struct commit){ rows, c.tiles });
	POINT(truncate_tail);
	layer_trim(s, l, rows);
}

int seq_cut(struct seq *s, uint32_t layer, uint32_t rows)
{
	struct sequence_record *record = s->record;
	bool all = layer == SPARQ_LAYER_ALL;
	uint32_t first = all ? 0 : layer, end = all ? record->layers : layer + 1;

	assert(end <= record->layers);
	for (uint32_t i = first; i < end; i++)
		if (rows > layer_commit(&s->layer[i]).rows)
			return -EINVAL;
	/* Before other rows can come in their place. */
	tokens_cut(s, rows);
	if (all)
		store_release(&record->intent, CUT_PENDING | rows);
	POINT(truncate_intent);
	for (uint32_t i = first; i < end; i++) {
		uint32_t before = layer_commit(&s->layer[i]).rows;

		cut_layer(s, &s->layer[i], rows);
		census_rows(s, before, rows);
		POINT(truncate_layer);
	}
	if (all)
		store_release(&record->intent, 0);
	POINT(truncate_end);
	return 0;
}

void layer_clear(struct seq *s, struct seq_layer *l)
{
	struct reach reach = layer_reach(l);

	/* The record is DYING (or was never LIVE): recovery does not look at what is in it. */
	layer_trim(s, l, 0);
	POINT(drop_tail);
	if (!reach.table)
		return;
	if (!reach.limit)
		table_leave(s, reach.table, 0);
	layer_set_reach(l, (struct reach){ BLOCK_NONE, 0 });
	table_unref(s->cache->store, reach.table);
}
