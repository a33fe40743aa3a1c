/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sequence is in the catalogue: its record, one layer_record per layer in
 * blocks of its own, and tables of sealed tiles, which forks share.
 *
 *   sequence_record ── block[] ──► layer_record ── reach ──► table ── base ──► table ...
 *                                  commit {rows, tiles}      own      of whom it was forked from
 *
 * Table: a chain of blocks. Its tiles follow each other from start_row on, 128
 * rows each, all counted: only an end in the middle of a tile is a limit,
 * and a table that was left at a limit is never written again. Which of its
 * entries are live follows from the commit word of its owner, or from the limits
 * of those who refer to it. Rows in it that are overwritten make a new table, which
 * has the pages of all other extents in common with the old one (overwrite.h).
 *
 * Tail: chunk i holds the rows from tail_first + 64 i on and lies in ring slot
 * (2 tiles + i) mod KV_MAX_CHUNKS, and tail_first follows from the tiles, so the
 * commit word alone says which slots count.
 *
 * Only the daemon maps this; recovery trusts it after checksums and reference counts.
 */
#pragma once

#include <stdint.h>

#include "daemon/catalogue.h"
#include "daemon/page.h"
#include "kernels/kernels.h"

#define MAX_LAYERS 256u
#define BLOCK_NONE 0u /* block 0 is never handed out */

/* The one word that an append or a flush publishes. */
struct commit {
	uint32_t rows, tiles;
};

static inline uint64_t commit_pack(struct commit c)
{
	return (uint64_t)c.tiles << 32 | c.rows;
}

static inline struct commit commit_unpack(uint64_t word)
{
	return (struct commit){ .rows = (uint32_t)word, .tiles = (uint32_t)(word >> 32) };
}

/* A table as one sequence (or a younger table) sees it. limit 0: the owner, who sees all that its
 * commit word counts; else the rows below limit. One word, so that it changes at once. */
struct reach {
	uint32_t table, limit;
};

static inline uint64_t reach_pack(struct reach r)
{
	return (uint64_t)r.limit << 32 | r.table;
}

static inline struct reach reach_unpack(uint64_t word)
{
	return (struct reach){ .table = (uint32_t)word, .limit = (uint32_t)(word >> 32) };
}

#define CUT_PENDING (1ull << 32)

struct layer_record {
	uint64_t commit; /* struct commit; store-release after all it counts was written */
	uint64_t reach;  /* struct reach */
	uint64_t cut;    /* intent: CUT_PENDING | rows to keep, while a cut below the tail runs */
	page_ref sinks;  /* KV_MAX_SINKS rows */
	page_ref chunk[KV_MAX_CHUNKS];
	uint32_t spilled_rows; /* while the sequence is spilled; the rest means nothing then */
	/* Intent: the block that holds this record as it will be, while rows that others take the
	 * place of are swapped; the commit word stays as it is. BLOCK_NONE */
	uint32_t overwrite;
	uint64_t rsv[3];
};
#define LAYERS_PER_BLOCK (CATALOGUE_BLOCK / sizeof(struct layer_record))
#define LAYER_BLOCKS ((MAX_LAYERS + LAYERS_PER_BLOCK - 1) / LAYERS_PER_BLOCK)

/* First block of a chain; the ones after it have only `next` and entries. */
struct table_header {
	uint32_t next;                 /* block */
	uint32_t start_row;            /* of the first tile */
	uint32_t base, base_limit;     /* struct reach into the table it goes on from; BLOCK_NONE */
	uint32_t base_tiles, base_extents; /* reached there, all the way down */
	uint32_t corrections, rsv; /* block; BLOCK_NONE */
};

/* What the sums of V in some extents of a table lack since rows before them were overwritten:
 * double[kv_heads][v_dim] each, never written once the table is named. Its entries say which. */
#define TABLE_CORRECTIONS 31u
struct table_corrections {
	uint32_t n, rsv; /* at least 1 */
	page_ref page[TABLE_CORRECTIONS];
};

struct table_block {
	uint32_t next, rsv[3];
	struct table_entry entry[];
};
#define ENTRIES_FIRST \
	((CATALOGUE_BLOCK - sizeof(struct table_header)) / sizeof(struct table_entry))
#define ENTRIES_NEXT ((CATALOGUE_BLOCK - sizeof(struct table_block)) / sizeof(struct table_entry))

/* What the token ids of the rows up to the end of a tile hash to, those of all tiles before and of
 * the sinks included. */
struct token_hash {
	uint64_t low, high;
};

/* First block of a chain: the ids of rows from ids_from on, so that the last of them can be taken
 * back and others told; those of a tile at its row after the sinks mod TOKEN_RING, those of sinks
 * behind that. token_rows of the sequence says how many rows count; one hash for each whole tile.
 * Both are written beside what counts. */
#define TOKEN_RING (2 * KV_TILE_ROWS)
struct token_header {
	uint32_t next, ids_from; /* ids_from beyond the rows that count: none are kept */
	uint64_t rsv;
	uint32_t id[TOKEN_RING + KV_MAX_SINKS];
	struct token_hash hash[];
};

struct token_block {
	uint32_t next, rsv[3];
	struct token_hash hash[];
};
#define HASHES_FIRST ((CATALOGUE_BLOCK - sizeof(struct token_header)) / sizeof(struct token_hash))
#define HASHES_NEXT ((CATALOGUE_BLOCK - sizeof(struct token_block)) / sizeof(struct token_hash))

struct sequence_record {
	uint32_t state, generation;
	uint64_t checksum; /* of what follows, up to `intent` */
	uint32_t cache_slot, cache_generation, layers, node;
	char name[64];
	uint32_t block[16]; /* of layer records */
	uint64_t intent;    /* CUT_PENDING | rows, while a truncate of all layers runs */

	/* What changes while it is LIVE: each word by one store, none of them under the checksum,
	 * so that recovery checks its range and not more. */
	uint32_t flags;      /* SEQUENCE_* */
	uint32_t uses;       /* how often it was attached, forked from or begun with */
	uint64_t used_s;     /* when last, CLOCK_REALTIME */
	uint32_t tokens;     /* first block of what its token ids hash to; BLOCK_NONE */
	uint32_t token_rows; /* whose ids are known */
	uint64_t spilled;    /* directory and number of its file (spill.h); 0: in the pool */
	uint64_t rsv[7];
};
#define SEQUENCE_PINNED (1u << 0) /* not to be evicted */
#define SEQUENCE_PREFIX (1u << 1) /* nobody's: kept for others to begin with */
#define SEQUENCE_IN_USE (1u << 2) /* attached: after a restart somebody is about to come back */
#define SEQUENCE_FLAGS (SEQUENCE_PINNED | SEQUENCE_PREFIX | SEQUENCE_IN_USE)
#define SEQUENCE_FIXED_AT offsetof(struct sequence_record, cache_slot)
#define SEQUENCE_FIXED_BYTES (offsetof(struct sequence_record, intent) - SEQUENCE_FIXED_AT)

_Static_assert(sizeof(struct layer_record) == 192, "layer_record");
_Static_assert(sizeof(struct table_entry) == 16, "table_entry");
_Static_assert(sizeof(struct table_header) == 32, "table_header");
_Static_assert(sizeof(struct table_block) == 16, "table_block");
_Static_assert(offsetof(struct table_header, next) == offsetof(struct table_block, next), "next");
_Static_assert(sizeof(struct token_header) == 1104, "token_header");
_Static_assert(sizeof(struct token_block) == 16, "token_block");
_Static_assert(offsetof(struct token_header, next) == offsetof(struct token_block, next), "next");
_Static_assert(sizeof(struct sequence_record) == 256, "sequence_record");
_Static_assert(LAYER_BLOCKS <= 16, "sequence_record.block");
_Static_assert(KV_MAX_CHUNKS % (KV_TILE_ROWS / KV_CHUNK_ROWS) == 0, "a tile's chunks do not wrap");
