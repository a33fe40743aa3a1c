/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of recovery: recover.c (the way through), recover-table.c, recover-seq.c. */
#pragma once

#include <stdbool.h>

#include "daemon/record.h"
#include "daemon/recover.h"
#include "daemon/table.h"

/* What recovery knows of a table before it builds it; by first block. */
struct found_table {
	struct cache *cache;
	uint32_t layer;
	uint32_t tiles;  /* that somebody reaches */
	uint32_t shared; /* that others than its owner reach */
	uint32_t owner_tiles;
	bool known; /* its header and those below it make sense */
	bool reached;
	bool owned;
	bool bad;
	bool alive; /* a sequence that was built has it, or a table that is alive goes on from it */
};

struct recovery {
	struct store *st;
	struct cache **cache;      /* by slot */
	struct found_table *table; /* by first block */
	uint32_t n_bad;            /* tables */
	struct recovered *count;
};

/* Every failure is -EUCLEAN with `why` (SPARQ_ERROR_TEXT bytes), or -ENOMEM. */

/* ---- recover-table.c --------------------------------------------------------- */

/* All headers from this table down: of one layer of one cache, each going on where the one below
 * it is left. Marks nothing. */
int recover_chain(struct recovery *rc, const struct cache *c, uint32_t layer, uint32_t table,
		  char *why);
/* What a reach that was checked sees, below `rows`: as table_below. */
struct reach recover_below(const struct recovery *rc, struct reach r, uint32_t rows);
uint32_t recover_table_start(const struct recovery *rc, uint32_t table); /* its first row */
/* Tiles below a row of this table, all the way down. */
uint32_t recover_tiles(const struct recovery *rc, uint32_t table, uint32_t rows);
/* And extents. */
uint32_t recover_extents(const struct recovery *rc, uint32_t table, uint32_t rows);
/* Somebody reaches this far. -EUCLEAN: a second owner. */
int recover_reach(struct recovery *rc, struct reach r, uint32_t tiles, char *why);
/* Marks, charges and derives every table that is reached; those that fail are bad. */
void recover_tables(struct recovery *rc);
bool recover_chain_is_bad(const struct recovery *rc, uint32_t table);
/* A sequence's reference; the first one makes it alive, and then those below it. */
void recover_ref(struct recovery *rc, uint32_t table);
/* Lets go of all: what is not alive is given back. */
void recover_sweep(struct recovery *rc);

/* ---- recover-seq.c ----------------------------------------------------------- */

/* Checks a LIVE record and ends the cuts in it. */
int recover_check(struct recovery *rc, uint32_t slot, char *why);
/* Tells the tables how far it reaches. */
int recover_reaches(struct recovery *rc, uint32_t slot, char *why);
/* Builds it, parked. */
int recover_sequence(struct recovery *rc, uint32_t slot, char *why);

static inline struct sequence_record *recover_record(const struct recovery *rc, uint32_t slot)
{
	return catalogue_sequence(rc->st->catalogue, slot);
}

/* A layer's record of a sequence whose blocks are in range. */
static inline struct layer_record *recover_layer(const struct recovery *rc,
						 const struct sequence_record *r, uint32_t layer)
{
	struct layer_record *first =
		catalogue_block(rc->st->catalogue, r->block[layer / LAYERS_PER_BLOCK]);

	return first + layer % LAYERS_PER_BLOCK;
}
