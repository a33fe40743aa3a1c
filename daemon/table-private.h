/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of tables: table.c (their life), table-copy.c (other extents in them). */
#pragma once

#include "daemon/table.h"
#include "shm/atomic.h"

/* Goes through the entries of a chain. */
struct walk {
	const struct store *st;
	uint32_t block, left;
	struct table_entry *entry;
};

static inline struct table_header *table_header(const struct store *st, uint32_t table)
{
	return catalogue_block(st->catalogue, table);
}

static inline struct table_block *table_block(const struct store *st, uint32_t block)
{
	return catalogue_block(st->catalogue, block);
}

static inline struct walk walk_begin(const struct store *st, uint32_t table)
{
	struct table_entry *first = (struct table_entry *)(table_header(st, table) + 1);

	return (struct walk){ st, table, ENTRIES_FIRST, first };
}

/* The caller knows that there is one more. */
static inline struct table_entry *walk_next(struct walk *w)
{
	if (!w->left) {
		w->block = table_block(w->st, w->block)->next;
		w->left = ENTRIES_NEXT;
		w->entry = table_block(w->st, w->block)->entry;
	}
	w->left--;
	return w->entry++;
}

/* At entry i, of which the caller knows. A hop of a block for each 255 before it. */
static inline struct walk walk_from(const struct store *st, uint32_t table, uint32_t i)
{
	struct walk w = walk_begin(st, table);

	while (i > w.left) {
		i -= w.left;
		w.block = table_block(st, w.block)->next;
		w.left = ENTRIES_NEXT;
		w.entry = table_block(st, w.block)->entry;
	}
	w.entry += i;
	w.left -= i;
	return w;
}

/* Of an entry that the caller does not own: its page may be moved (move.h), and is whole in either
 * place before it is named. */
static inline page_ref table_entry_page(const struct table_entry *e)
{
	return load_acquire(&e->page);
}

/* Of an extent: by the formats of the table's layer. */
static inline struct page_size table_page_size(const struct table *t, unsigned tiles)
{
	return spread_size(t->cache, kv_extent_bytes(cache_layer(t->cache, t->layer), tiles));
}

/* And of a correction, which is read as one. */
static inline struct page_size table_correction_size(const struct table *t)
{
	const struct kv_space *space = cache_layer(t->cache, t->layer);

	return (struct page_size){ (size_t)space->kv_heads * space->v_dim * sizeof(double), 0 };
}

static inline struct table_corrections *table_corrections(const struct store *st, uint32_t table)
{
	return catalogue_block(st->catalogue, table_header(st, table)->corrections);
}

/* ---- table.c ------------------------------------------------------------------ */

/* A zeroed block for the table, charged. */
int table_take_block(struct seq *s, struct table *t, uint32_t *ret);
/* Entries that hold the first `tiles` tiles. */
uint32_t table_entries_of(const struct store *st, uint32_t table, uint32_t tiles);
/* Does the next entry need a block of its own? */
bool table_is_full(const struct table *t);
/* Where entry i is, or will be: the last one or the one behind it. */
struct table_entry *table_entry_at(const struct store *st, const struct table *t, uint32_t table,
				   uint32_t i);

/* ---- table-copy.c --------------------------------------------------------------- */

/* Of an entry of it; NULL: none. */
const double *table_correction(const struct store *st, uint32_t table, const struct table_entry *e);
/* Gives back all of them; what the block and the pages were charged is the caller's to refund. */
void table_put_corrections(struct store *st, uint32_t table);
