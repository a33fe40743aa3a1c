/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of a sequence: its record in the catalogue and what is derived of
 * it. The token path of seq.h is implemented over it in layer.c and cut.c; these
 * are the parts that seq.c needs besides.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/record.h"
#include "shm/atomic.h"

struct seq;

struct seq_layer {
	struct layer_record *record;
	uint32_t tail_first; /* number of the tail's first row: sinks + sealed rows */
	uint32_t n_chunks;   /* of the tail, from its first on */
	uint32_t n_extents;  /* sealed, all the way down */
	int flush_error;     /* why the tail could not be flushed, until it could */
};

/* An empty layer over a zeroed record. */
void layer_init(struct seq *s, struct seq_layer *l, struct layer_record *record);
struct commit layer_commit(const struct seq_layer *l);
void layer_publish(struct seq_layer *l, struct commit c);
/* Sinks and tail of rows [0, rows), without the sealed ones. */
void layer_view(const struct seq *s, struct seq_layer *l, uint32_t rows, struct kv_view *ret);
/* Puts the pages of sinks and tail that `rows` rows do not need. */
void layer_trim(struct seq *s, struct seq_layer *l, uint32_t rows);

/* Of the pages of a chunk and of the sinks. */
struct page_size layer_chunk_size(const struct seq *s);
struct page_size layer_sinks_size(const struct seq *s);
/* Such a page in a view: sinks, and chunk i of the tail. */
void layer_show_sinks(const struct pool *pool, page_ref page, struct kv_view *ret);
void layer_show_chunk(const struct pool *pool, page_ref page, uint32_t i, struct kv_view *ret);
/* Where the record has chunk i of the tail. */
page_ref *layer_chunk(struct seq_layer *l, uint32_t i);

static inline struct reach layer_reach(const struct seq_layer *l)
{
	return reach_unpack(l->record->reach);
}

static inline void layer_set_reach(struct seq_layer *l, struct reach r)
{
	/* The table is whole before it is named. */
	store_release(&l->record->reach, reach_pack(r));
}

/* ---- cut.c ---- */

/* Where the tail begins, and how many extents are sealed, if `rows` is the last row of what the
 * layer's reach shows; how many tiles. */
uint32_t layer_count_sealed(struct seq *s, struct seq_layer *l, uint32_t rows);
/* Gives back everything. */
void layer_clear(struct seq *s, struct seq_layer *l);
