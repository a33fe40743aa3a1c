/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens the rows of a sequence are of: a hash for each tile that says its
 * rows and all before them, so that equal hashes mean equal beginnings. They end
 * where tiles end, because a sequence that begins there goes on with the very tiles
 * that it would have had alone.
 *
 * The client tells the ids, before or after the rows; nobody checks them, and a
 * client that lies about them deceives who shares its uid, nobody else: hashes begin
 * with what the cache is, and are only compared within it.
 *
 * The chain lies in the catalogue (record.h) and is charged as any block of it, with
 * its part of the index (prefix.h). Words change one at a time: a hash is there
 * before token_rows counts it, and what a cut takes from token_rows is taken before
 * rows go.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/record.h"

struct cache;
struct seq;

/* What the heap has of it: links of the index, and how many hashes are linked. */
struct token_part;
enum { TOKENS_NEW, TOKENS_KEPT, TOKENS_LISTS }; /* prefix.h */
struct tokens {
	struct token_part *part;
	uint32_t linked; /* hashes of the chain that the index knows */
	struct {
		struct seq *next, **at; /* at NULL: not in it */
	} in[TOKENS_LISTS];
};

/* ---- control thread -------------------------------------------------------------- */

/* Hashes of so many rows; rows of so many hashes: sinks and tiles. */
uint32_t tokens_hashes(const struct cache *c, uint32_t rows);
uint32_t tokens_end(const struct cache *c, uint32_t n_hashes);
/* Of no ids yet; and of n more, at most a tile and the sinks. */
struct token_hash tokens_begin(const struct cache *c);
struct token_hash tokens_mix(struct token_hash before, const uint32_t *id, uint32_t n);

/* The ids of rows first_row .. + n: more of them, or others in the place of those from first_row
 * on. -ENODATA: ids before first_row are not known, *ret_rows says from where on to tell;
 * -ENOSPC (s->shortage): those that found room count; -EBUSY: cut at the same time. */
int tokens_put(struct seq *s, uint32_t first_row, const uint32_t *ids, uint32_t n,
	       uint32_t *ret_rows);
/* Rows whose ids are known. */
uint32_t tokens_rows(const struct seq *s);
/* Hash number i, of tokens_hashes of them. */
const struct token_hash *tokens_hash(const struct seq *s, uint32_t i);
/* The child, not published, is of the same tokens below `rows`. -ENOSPC. */
int tokens_fork(const struct seq *parent, struct seq *child, uint32_t rows);
void tokens_clear(struct seq *s);
/* After a restart: marks and charges the chain; one that is damaged is forgotten. */
void tokens_revive(struct seq *s);

/* ---- whoever holds the sequence; token path ---------------------------------------- */

/* Rows from `rows` on are about to go. */
void tokens_cut(struct seq *s, uint32_t rows);
