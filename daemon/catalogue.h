/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memfd that says what is in the pools: caches, sequences, their tables and
 * row counts. With the pools it is all that a restarted daemon needs, so it
 * holds offsets and page references, no pointers, and every record becomes
 * visible by one release store.
 *
 *   record:  FREE -> BUILDING -> LIVE -> DYING -> FREE      (daemon alone)
 *
 * A record's fixed part carries a checksum, written before LIVE. What changes on
 * the token path is one 64-bit commit word per (sequence, layer):
 * {rows, tiles}; everything that a step or a flush writes lies beside what is
 * live until that word is stored.
 *
 * Ids are slot | generation << 32; the generation moves when a slot is freed.
 * Tables come in blocks of CATALOGUE_BLOCK bytes; which blocks are free is
 * derived (recover.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/page.h"
#include "kernels/kernels.h"

#define CATALOGUE_MAGIC 0x474f4c4154414353ull
#define CATALOGUE_LAYOUT 4u
/* What the present one adds stands in words that were 0 in this one (for placement: local): it is
 * taken over as it is. */
#define CATALOGUE_LAYOUT_BEFORE 3u
#define CATALOGUE_BLOCK 4096u

enum record_state { RECORD_FREE, RECORD_BUILDING, RECORD_LIVE, RECORD_DYING };

/* An arena that pages of this catalogue lie in. */
struct catalogue_pool {
	int32_t node;   /* the kernel's number, -1: not bound */
	uint32_t units; /* of POOL_UNIT_BYTES */
};

struct catalogue_header {
	uint64_t magic;
	uint32_t layout, header_bytes;
	uint32_t tiles_layout; /* KV_LAYOUT: what is in the pages */
	uint32_t n_caches, n_sequences, n_blocks, n_pools, rsv;
	uint64_t caches_at, sequences_at, notes_at, blocks_at, bytes;
	struct catalogue_pool pool[POOL_MAX_NODES];
	uint64_t checksum; /* xxh3 of the fields above */

	uint32_t generation, rsv2; /* of the daemon: one more at every start */
};

#define AUDIT_OFF UINT16_MAX
#define AUDIT_BOUND_STEPS 1e4 /* of a relative error of 1 */

struct cache_record {
	uint32_t state, generation;
	uint64_t checksum; /* of what follows */
	uint32_t uid;
	uint32_t layers, heads, kv_heads, k_dim, v_dim, dtype;
	uint32_t sinks, rollback, timeout_us;
	/* Both of what was one word. audit_bound: so many of AUDIT_BOUND_STEPS; 0: none */
	uint16_t on_disconnect, audit_bound;
	uint16_t evict, placement; /* placement: enum spread */
	/* Both of what was one word. audit: one step in so many; 0: as the daemon says; AUDIT_OFF
	 */
	uint16_t share, audit;
	float scale;
	uint32_t outliers, channels; /* most of a table; first block of the tables (channels.h) */
	uint64_t budget_bytes;
	char name[64], k_format[128], v_format[128], policy[32], device[32], model[128];
	uint8_t args[KV_POLICY_ARGS_BYTES];
};

/* One entry of a table: a slot range of an extent. */
struct table_entry {
	page_ref page;
	uint32_t first_row;
	uint16_t tiles;     /* slots of the extent */
	uint8_t correction; /* of the sums in it: which of the table's, from 1; 0: none */
	uint8_t flags;      /* atomic: ENTRY_* */
};
#define ENTRY_SHARED 1u /* another table may have this page, or had it */

struct catalogue; /* mapped file and its derived free lists */

struct catalogue_params {
	size_t bytes;
	uint32_t max_caches, max_sequences;
	uint32_t generation; /* to begin with */
	const struct catalogue_pool *pool;
	unsigned n_pools;
};
/* -EINVAL if `bytes` leaves no room for blocks. */
int catalogue_create(const struct catalogue_params *p, struct catalogue **ret);
/* Maps a kept one; the descriptor stays the caller's. Its header is checked whole, its generation
 * moved; records are as they are, no block is taken (recover.h). -EPROTONOSUPPORT: of another
 * layout, -EUCLEAN: damaged; `why` (CATALOGUE_WHY_BYTES) says what was found. */
int catalogue_adopt(int fd, struct catalogue **ret, char *why);
struct catalogue *catalogue_free(struct catalogue *c);
int catalogue_fd(const struct catalogue *c);
struct catalogue_header *catalogue_header(struct catalogue *c);
/* For pool_init: a word for each unit of each pool. */
uint64_t *catalogue_notes(struct catalogue *c);
#define CATALOGUE_WHY_BYTES 200

/* Slots; -ENOSPC. `take` leaves the record BUILDING, `publish` makes it LIVE with its checksum,
 * `drop` makes it DYING, then FREE with the next generation. Control thread. */
int catalogue_take_cache(struct catalogue *c, uint32_t *ret_slot);
struct cache_record *catalogue_cache(struct catalogue *c, uint32_t slot);
void catalogue_publish_cache(struct catalogue *c, uint32_t slot);
void catalogue_drop_cache(struct catalogue *c, uint32_t slot);
int catalogue_take_sequence(struct catalogue *c, uint32_t *ret_slot);
void *catalogue_sequence(struct catalogue *c, uint32_t slot); /* struct sequence_record, seq.c */
void catalogue_publish_sequence(struct catalogue *c, uint32_t slot);
void catalogue_drop_sequence(struct catalogue *c, uint32_t slot);

/* Blocks, by number; without a lock: a worker takes one when a table grows. -ENOSPC. */
int catalogue_take_block(struct catalogue *c, uint32_t *ret_block);
void catalogue_put_block(struct catalogue *c, uint32_t block);
void *catalogue_block(struct catalogue *c, uint32_t block);
/* Takes that one, which a record of an adopted catalogue names. -EUCLEAN: there is no such block,
 * or it is taken. */
int catalogue_mark_block(struct catalogue *c, uint32_t block);
bool catalogue_has_block(const struct catalogue *c, uint32_t block);

/* Do the checksums of LIVE records agree? */
bool catalogue_cache_is_whole(struct catalogue *c, uint32_t slot);
bool catalogue_sequence_is_whole(struct catalogue *c, uint32_t slot);
