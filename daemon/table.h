/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of sealed tiles (record.h), shared by forks.
 *
 * A table has at most one owner, the (sequence, layer) that appends tiles to it,
 * and any number of references: its owner's, those of layers that see it below a
 * limit, those of younger tables that go on from it. What a reference can reach
 * is never written again: the owner remembers how many tiles others reach
 * (`shared`), and when it has to cut below that, it leaves the table and goes on
 * from it like everybody else. A table without owner does not change until its last
 * reference goes.
 *
 * Readers look only at the header and at entries below their limit, which were
 * written before they got their reference. The derived fields belong to the owner,
 * but for the count of references.
 *
 * A page may be in several tables: one that was made of another (table-copy.c) has those
 * of all extents that it left as they were. Only a table with an owner is appended to, and the
 * owner of the newer one has left the older: each slot is still written once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/record.h"

struct seq;

struct table {              /* derived; store->tables[first block] */
	uint32_t refs;      /* atomic */
	uint32_t n_entries; /* the last may have no tile yet */
	uint32_t tiles;     /* sealed here */
	uint32_t last_used; /* of the last entry */
	uint32_t last_block;
	uint32_t shared; /* tiles that others reach, at most; means nothing while refs is 1 */
	uint64_t bytes; /* of its pages and blocks: charged, but for pages that another table has */
	uint32_t
		shifts; /* of one that is being made: corrections that the change adds to, by bit */
	uint32_t corrections; /* of one that is being recovered: marked */
	struct cache *cache;
	uint32_t layer;
	uint32_t owned; /* atomic: somebody may append to it */
	uint32_t round; /* of move.h: when it was last gone through */
};

/* ---- the owner; token path ---------------------------------------------------- */

/* Slots of an extent that begins with `row`: short ones first, so that a short sequence holds
 * little that it does not use. */
static inline unsigned table_extent_tiles(const struct cache *c, uint64_t row)
{
	return row - cache_shape(c)->sinks < KV_SHORT_ROWS ? 1 : KV_EXTENT_TILES;
}
/* A table of one layer that goes on from `base`, of the same layer, at `start_row`; it takes over
 * the reference on the base. */
int table_create(struct seq *s, uint32_t layer, struct reach base, uint32_t base_tiles,
		 uint32_t base_extents, uint32_t start_row, uint32_t *ret_table);
/* The slot for the tile whose first row is `row`: in the last extent, or in a new one. The same
 * one again until it is sealed. */
int table_next(struct seq *s, uint32_t table, uint32_t row, struct kv_extent *ret_extent,
	       unsigned *ret_slot);
/* The tile in that slot counts; true if it is the first of its extent. */
bool table_seal(struct store *st, uint32_t table);
/* Tiles that others reach: below that, nothing may be cut in place. */
uint32_t table_shared(struct store *st, uint32_t table);
/* Others reach the rows below `limit` from now on. */
void table_share(struct store *st, uint32_t table, uint32_t limit);
/* May it be cut to so many tiles, and others be sealed behind them? */
bool table_may_trim(struct store *st, uint32_t table, uint32_t tiles);
/* Frees what lies behind the first `tiles` tiles. */
void table_trim(struct seq *s, uint32_t table, uint32_t tiles);
/* The owner stops being one, and keeps its reference; it still reaches `tiles` tiles. */
void table_leave(struct seq *s, uint32_t table, uint32_t tiles);

/* ---- table-copy.c: whoever reaches a table; token path ------------------------------- */

/* Rows that change, and what follows of it for the extents of their layer. */
struct table_change {
	uint32_t row, n;
	const struct kv_extent *from; /* all of them, as table_extents tells them */
	struct kv_extent *to;         /* the same with base NULL; those in a new page get it */
	uint64_t charged;             /* so far */
};
/* A table that says the same as `table` does below `limit` (0: to its owner, the caller), with new
 * pages in the place of those that hold rows which change; it goes on from nothing yet. Nobody sees
 * it. It is counted as the sequence's; -ENOSPC: then all is as it was, but for c->charged. */
int table_copy(struct seq *s, struct table_change *c, uint32_t layer, uint32_t table,
	       uint32_t limit, uint32_t *ret_table);
/* One that was copied goes on from `base`, where the one that it was made of does; it takes over
 * the reference. */
void table_set_base(struct store *st, uint32_t table, uint32_t base);
uint32_t table_base(const struct store *st, uint32_t table);
uint32_t table_start(const struct store *st, uint32_t table); /* its first row */
/* The rows that changed have made the sum of V of one KV head, delta[v_dim], larger. */
void table_shift(struct store *st, uint32_t table, uint32_t head, const double *delta);
/* It is nobody's from now on, like one that table_leave left. */
void table_disown(struct seq *s, uint32_t table);

/* ---- anybody with a reference; token path -------------------------------------- */

void table_ref(struct store *st, uint32_t table);
/* Frees and refunds one that nobody refers to; what it refers to keeps its reference. */
void table_free(struct store *st, uint32_t table);
/* Frees it with its last reference, and then whatever it was the last to refer to. BLOCK_NONE is
 * allowed. */
void table_unref(struct store *st, uint32_t table);
/* What is left of a reach if only rows below `rows` count: this table or one further down, or
 * none. Takes no reference. */
struct reach table_below(const struct store *st, struct reach r, uint32_t rows);
/* Tiles of this table alone, up to a row. */
uint32_t table_tiles_below(const struct store *st, uint32_t table, uint32_t rows);
/* The row before `rows` is the last of a tile of this table. */
bool table_tile_ends(const struct store *st, uint32_t table, uint32_t rows);
/* All the way down; r.limit is not 0. */
void table_count(const struct store *st, struct reach r, uint32_t *ret_tiles,
		 uint32_t *ret_extents);
/* The extents that hold rows below `end`; `ret` has room for n, the number that table_count or
 * the owner's own count says; how many were needed. */
uint32_t table_extents(const struct store *st, uint32_t table, uint32_t end, uint32_t n,
		       struct kv_extent *ret);
