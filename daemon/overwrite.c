/* SPDX-License-Identifier: Apache-2.0 */
/* Other rows in the place of some: see overwrite.h. */
#include "daemon/overwrite.h"

#include <assert.h>
#include <string.h>

#include "daemon/charge.h"
#include "daemon/layer.h"
#include "daemon/point.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"

static struct seq_layer *layer_of(const struct overwrite *o)
{
	return &o->seq->layer[o->layer];
}

static struct store *store_of(const struct overwrite *o)
{
	return o->seq->cache->store;
}

/* What is next in the place of a page of the record. */
static page_ref *next_of(struct overwrite *o, const page_ref *at)
{
	const struct layer_record *r = layer_of(o)->record;

	return at == &r->sinks ? &o->next.sinks : &o->next.chunk[at - r->chunk];
}

/* ---- taking ------------------------------------------------------------------------ */

/* A page in the place of `at`. */
static int take_page(struct overwrite *o, const page_ref *at, struct page_size size)
{
	int r = charge_page(o->seq, size, o->seq->node, next_of(o, at));

	if (r == 0)
		o->charged += pool_charge(store_of(o)->pool, size);
	return r;
}

/* Chunk i of the tail holds one of the rows. */
static bool chunk_changes(const struct overwrite *o, uint32_t i)
{
	uint32_t first = layer_of(o)->tail_first + i * KV_CHUNK_ROWS;

	return o->row < first + KV_CHUNK_ROWS && first < o->row + o->n;
}

static int take_recent(struct overwrite *o)
{
	const struct pool *pool = store_of(o)->pool;
	struct seq_layer *l = layer_of(o);
	int r = 0;

	if (o->row < o->view.n_sinks) {
		r = take_page(o, &l->record->sinks, layer_sinks_size(o->seq));
		if (r == 0)
			layer_show_sinks(pool, o->next.sinks, &o->recent);
	}
	for (uint32_t i = 0; r == 0 && i < l->n_chunks; i++) {
		page_ref *at = layer_chunk(l, i);

		if (!chunk_changes(o, i))
			continue;
		r = take_page(o, at, layer_chunk_size(o->seq));
		if (r == 0)
			layer_show_chunk(pool, *next_of(o, at), i, &o->recent);
	}
	return r;
}

/* The tables from the youngest one down to that in which the first row lies; all of them, if that
 * is a sink, which counts in every sum. */
static int copy_tables(struct overwrite *o, struct table_change *change)
{
	struct store *st = store_of(o);
	struct reach reach = layer_reach(layer_of(o));
	uint32_t table = reach.table, limit = reach.limit, above = BLOCK_NONE, made, start;

	do {
		int r = table_copy(o->seq, change, o->layer, table, limit, &made);

		if (r < 0)
			return r;
		if (above)
			table_set_base(st, above, made);
		else
			o->next.reach = reach_pack((struct reach){ made, reach.limit });
		o->n_tables++;
		above = made;
		start = limit = table_start(st, table);
		table = table_base(st, table);
	} while (table && o->row < start);
	table_set_base(st, made, table);
	if (table)
		table_ref(st, table);
	return 0;
}

static int take_sealed(struct overwrite *o)
{
	struct table_change change = { .row = o->row, .n = o->n };
	int r;

	change.from = o->view.extent;
	change.to = o->to;
	for (uint32_t i = 0; i < o->view.n_extents; i++) {
		o->to[i] = o->view.extent[i];
		o->to[i].base = NULL;
	}
	if (!o->view.n_extents || o->row >= layer_of(o)->tail_first)
		return 0;
	r = copy_tables(o, &change);
	o->charged += change.charged;
	return r;
}

static int take_intent(struct overwrite *o)
{
	int r = charge_block(o->seq, &o->intent);

	o->charged += r == 0 ? CATALOGUE_BLOCK : 0;
	return r;
}

/* ---- giving back --------------------------------------------------------------------- */

/* Pages that `from` has in places where `to` has others. */
static void put_pages(struct overwrite *o, const struct layer_record *from,
		      const struct layer_record *to)
{
	if (from->sinks != to->sinks)
		charge_page_put(o->seq, layer_sinks_size(o->seq), from->sinks);
	for (unsigned i = 0; i < KV_MAX_CHUNKS; i++)
		if (from->chunk[i] != to->chunk[i])
			charge_page_put(o->seq, layer_chunk_size(o->seq), from->chunk[i]);
}

/* The new tables, of which the first `kept` stay the sequence's own. */
static void disown_tables(struct overwrite *o, uint32_t kept)
{
	uint32_t table = reach_unpack(o->next.reach).table;

	for (uint32_t i = 0; i < o->n_tables; i++) {
		if (i >= kept)
			table_disown(o->seq, table);
		table = table_base(store_of(o), table);
	}
}

static int cancel(struct overwrite *o, int error)
{
	put_pages(o, &o->next, &o->old);
	disown_tables(o, 0);
	if (o->n_tables)
		table_unref(store_of(o), reach_unpack(o->next.reach).table);
	o->seq->shortage.bytes += o->charged; /* all of it, or none */
	return error;
}

/* Each of these stores may be the last: recovery does all of them again. */
static void swap(struct overwrite *o)
{
	struct seq_layer *l = layer_of(o);

	l->record->sinks = o->next.sinks;
	memcpy(l->record->chunk, o->next.chunk, sizeof(l->record->chunk));
	POINT(overwrite_swapped);
	layer_set_reach(l, reach_unpack(o->next.reach));
}

int overwrite_begin(struct overwrite *o, struct seq *s, uint32_t layer, uint32_t row, uint32_t n,
		    struct kv_extent *from, struct kv_extent *to, uint32_t n_extents)
{
	int r;

	assert(n && row + n <= seq_rows(s, layer));
	*o = (struct overwrite){ .seq = s, .layer = layer, .row = row, .n = n, .to = to };
	o->old = o->next = *layer_of(o)->record;
	r = seq_view(s, layer, seq_rows(s, layer), from, n_extents, &o->view);
	if (r < 0)
		return r;
	o->recent = o->view;
	r = take_sealed(o);
	if (r == 0)
		r = take_recent(o);
	if (r == 0)
		r = take_intent(o);
	if (r < 0)
		return cancel(o, r);
	BREAK_SWAP(swap(o));
	POINT(overwrite_taken);
	return 0;
}

/* ---- writing --------------------------------------------------------------------------- */

/* Those of the rows that lie in [first, end). */
static void write_between(const struct overwrite *o, uint32_t first, uint32_t end, const void *kv,
			  size_t stride)
{
	first = MAX(first, o->row);
	end = MIN(end, o->row + o->n);
	if (first < end)
		kv_write(cache_shape(o->seq->cache), &o->recent, first, end - first,
			 (const uint8_t *)kv + (first - o->row) * stride, stride);
}

void overwrite_recent(struct overwrite *o, const void *kv, size_t stride)
{
	const struct kv_space *shape = cache_shape(o->seq->cache);
	uint32_t tail_first = layer_of(o)->tail_first, rows = o->view.rows;

	if (o->recent.sinks != o->view.sinks)
		kv_copy(shape, &o->view, &o->recent, 0, o->view.n_sinks);
	for (uint32_t i = 0; i < layer_of(o)->n_chunks; i++) {
		uint32_t first = tail_first + i * KV_CHUNK_ROWS;

		if (o->recent.chunk[i] != o->view.chunk[i])
			kv_copy(shape, &o->view, &o->recent, first,
				MIN(rows - first, KV_CHUNK_ROWS));
	}
	POINT(overwrite_copied);
	write_between(o, 0, o->view.n_sinks, kv, stride);
	write_between(o, tail_first, rows, kv, stride);
}

bool overwrite_has_heads(const struct overwrite *o)
{
	return o->n_tables;
}

void overwrite_head(const struct overwrite *o, uint32_t head, const void *kv, size_t stride)
{
	const struct kv_overwrite w = {
		.view = &o->view,
		.to = o->to,
		.recent = &o->recent,
		.row = o->row,
		.n = o->n,
		.kv = kv,
		.stride = stride,
	};
	uint32_t table = reach_unpack(o->next.reach).table;
	double delta[KV_MAX_DIM];

	kv_overwrite(cache_layer(o->seq->cache, o->layer), &w, head, delta);
	for (uint32_t i = 0; i < o->n_tables; i++) {
		table_shift(store_of(o), table, head, delta);
		table = table_base(store_of(o), table);
	}
}

/* ---- counting ---------------------------------------------------------------------------- */

static void publish(struct overwrite *o)
{
	struct layer_record *record = layer_of(o)->record;

	memcpy(catalogue_block(store_of(o)->catalogue, o->intent), &o->next, sizeof(o->next));
	POINT(overwrite_written);
	/* Nothing can fail any more. They are of other ids now, or of the same: who tells them
	 * again says so. */
	tokens_cut(o->seq, o->row);
	/* What it says, and the pages that it names, were written before it is named. */
	store_release(&record->overwrite, o->intent);
	POINT(overwrite_named);
	swap(o);
	POINT(overwrite_reached);
	store_release(&record->overwrite, BLOCK_NONE);
	POINT(overwrite_published);
}

void overwrite_commit(struct overwrite *o)
{
	struct reach reach = reach_unpack(o->old.reach);

	publish(o);
	put_pages(o, &o->old, &o->next);
	if (o->n_tables) {
		disown_tables(o, reach.limit ? 0 : 1);
		if (!reach.limit)
			table_leave(o->seq, reach.table, 0);
		POINT(overwrite_left);
		table_unref(store_of(o), reach.table);
	}
	charge_block_put(o->seq, o->intent);
	POINT(overwrite_end);
}
