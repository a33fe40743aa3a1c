/* SPDX-License-Identifier: Apache-2.0 */
/* Chains of token hashes in the catalogue: see tokens.h and record.h. */
#include "daemon/tokens.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/charge.h"
#include "daemon/point.h"
#include "daemon/prefix.h"
#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define CHAIN_BYTES (CATALOGUE_BLOCK + sizeof(struct token_part)) /* charged for a block */

static struct sequence_record *record_of(const struct seq *s)
{
	return s->record;
}

static struct token_block *block_of(const struct seq *s, uint32_t block)
{
	return catalogue_block(s->cache->store->catalogue, block);
}

static struct token_header *header_of(const struct seq *s)
{
	return catalogue_block(s->cache->store->catalogue, record_of(s)->tokens);
}

/* ---- hashes ----------------------------------------------------------------------- */

struct token_hash tokens_begin(const struct cache *c)
{
	return (struct token_hash){ c->record->checksum, c->id };
}

struct token_hash tokens_mix(struct token_hash before, const uint32_t *id, uint32_t n)
{
	struct {
		struct token_hash before;
		uint32_t id[KV_TILE_ROWS + KV_MAX_SINKS];
	} all = { .before = before };
	XXH128_hash_t h;

	assert(n <= ARRAY_SIZE(all.id));
	memcpy(all.id, id, n * sizeof(*id));
	h = XXH3_128bits(&all, sizeof(all.before) + n * sizeof(*id));
	return (struct token_hash){ h.low64, h.high64 };
}

uint32_t tokens_hashes(const struct cache *c, uint32_t rows)
{
	uint32_t sinks = cache_shape(c)->sinks;

	return rows > sinks ? (rows - sinks) / KV_TILE_ROWS : 0;
}

uint32_t tokens_end(const struct cache *c, uint32_t n_hashes)
{
	return n_hashes ? cache_shape(c)->sinks + n_hashes * KV_TILE_ROWS : 0;
}

/* Where hash i stands; NULL: in a block that the chain does not have. */
static struct token_hash *hash_at(const struct seq *s, uint32_t i)
{
	uint32_t block = record_of(s)->tokens;

	if (!block)
		return NULL;
	if (i < HASHES_FIRST)
		return &header_of(s)->hash[i];
	i -= HASHES_FIRST;
	for (block = header_of(s)->next; block && i >= HASHES_NEXT; i -= HASHES_NEXT)
		block = block_of(s, block)->next;
	return block ? &block_of(s, block)->hash[i] : NULL;
}

uint32_t tokens_rows(const struct seq *s)
{
	return load_relaxed(&record_of(s)->token_rows);
}

const struct token_hash *tokens_hash(const struct seq *s, uint32_t i)
{
	return hash_at(s, i);
}

/* ---- blocks ------------------------------------------------------------------------- */

static int take_block(struct seq *s, uint32_t *ret)
{
	int r;

	/* The index will have a part for it. */
	r = charge_bytes(s, sizeof(struct token_part));
	if (r < 0)
		return r;
	r = charge_block(s, ret);
	if (r < 0) {
		charge_refund(s, sizeof(struct token_part));
		s->shortage.bytes += sizeof(struct token_part); /* both, or none */
		return r;
	}
	memset(block_of(s, *ret), 0, CATALOGUE_BLOCK);
	return 0;
}

static void put_block(struct seq *s, uint32_t block)
{
	charge_block_put(s, block);
	charge_refund(s, sizeof(struct token_part));
}

/* Room for hash i, of which those before have it: at most one block more. */
static int extend(struct seq *s, uint32_t i)
{
	uint32_t block = record_of(s)->tokens, more;
	int r;

	if (hash_at(s, i))
		return 0;
	r = take_block(s, &more);
	if (r < 0)
		return r;
	POINT(tokens_block);
	if (!block) {
		store_release(&record_of(s)->tokens, more);
		return 0;
	}
	while (block_of(s, block)->next)
		block = block_of(s, block)->next;
	store_release(&block_of(s, block)->next, more);
	return 0;
}

void tokens_clear(struct seq *s)
{
	uint32_t block = record_of(s)->tokens;

	prefix_free(s);
	store_release(&record_of(s)->token_rows, 0u);
	store_release(&record_of(s)->tokens, BLOCK_NONE);
	while (block) {
		uint32_t next = block_of(s, block)->next;

		put_block(s, block);
		block = next;
	}
}

/* ---- cutting -------------------------------------------------------------------------- */

/* Of the first `have` rows: what is known when those from `rows` on are not. Between two hashes
 * that needs the ids of the rows since the first of them. */
static uint32_t known_below(const struct seq *s, uint32_t have, uint32_t rows)
{
	uint32_t end = MIN(have, rows);
	uint32_t hashed = tokens_end(s->cache, tokens_hashes(s->cache, end));

	if (end == hashed)
		return end;
	return load_acquire(&header_of(s)->ids_from) > hashed ? hashed : end;
}

void tokens_cut(struct seq *s, uint32_t rows)
{
	/* Whoever counted them has made the chain before. */
	uint32_t have = load_acquire(&record_of(s)->token_rows);

	/* The control thread may be telling more of them meanwhile. */
	while (have > rows &&
	       !compare_exchange(&record_of(s)->token_rows, &have, known_below(s, have, rows)))
		;
}

/* ---- telling ---------------------------------------------------------------------------- */

static bool count_rows(struct seq *s, uint32_t have, uint32_t rows)
{
	/* After the ids and the hash that it counts. */
	return compare_exchange(&record_of(s)->token_rows, &have, rows);
}

static uint32_t *id_at(const struct seq *s, uint32_t row)
{
	uint32_t sinks = cache_shape(s->cache)->sinks;

	return &header_of(s)->id[row < sinks ? TOKEN_RING + row : (row - sinks) % TOKEN_RING];
}

/* The hash of the rows [first, end), all of whose ids are there. */
static void put_hash(struct seq *s, uint32_t number, uint32_t first, uint32_t end)
{
	struct token_hash before = number ? *hash_at(s, number - 1) : tokens_begin(s->cache);
	uint32_t id[KV_TILE_ROWS + KV_MAX_SINKS];

	for (uint32_t row = first; row < end; row++)
		id[row - first] = *id_at(s, row);
	prefix_forget(s, number);
	*hash_at(s, number) = tokens_mix(before, id, end - first);
	POINT(tokens_hashed);
}

/* The next ids, at most up to the end of their tile; how many. */
static int put_some(struct seq *s, uint32_t have, const uint32_t *ids, uint32_t n)
{
	uint32_t number = tokens_hashes(s->cache, have);
	uint32_t first = tokens_end(s->cache, number), end = tokens_end(s->cache, number + 1);
	int r = extend(s, number);

	if (r < 0)
		return r;
	n = MIN(n, end - have);
	/* What is written over does not count from here on. */
	if (have == first && number >= 2)
		store_release(&header_of(s)->ids_from,
			      MAX(header_of(s)->ids_from, tokens_end(s->cache, number - 1)));
	for (uint32_t i = 0; i < n; i++)
		*id_at(s, have + i) = ids[i];
	if (have + n == end)
		put_hash(s, number, first, end);
	return count_rows(s, have, have + n) ? (int)n : -EBUSY;
}

/* Takes back what was told of rows from first_row on. */
static int take_back(struct seq *s, uint32_t first_row, uint32_t *ret_rows)
{
	uint32_t have = tokens_rows(s), known = known_below(s, have, first_row);

	if (known != first_row) {
		*ret_rows = known;
		return -ENODATA;
	}
	if (!count_rows(s, have, known))
		return -EBUSY;
	/* None are kept of rows that are told again. */
	if (record_of(s)->tokens && header_of(s)->ids_from > known)
		store_release(&header_of(s)->ids_from, known);
	return 0;
}

int tokens_put(struct seq *s, uint32_t first_row, const uint32_t *ids, uint32_t n,
	       uint32_t *ret_rows)
{
	uint32_t have = first_row, end = first_row + n;
	int r = take_back(s, first_row, ret_rows);

	for (; r >= 0 && have < end; have += (uint32_t)MAX(r, 0))
		r = put_some(s, have, ids + (have - first_row), end - have);
	if (tokens_hashes(s->cache, tokens_rows(s)) > s->tokens.linked)
		prefix_note(s);
	if (r < 0)
		return r;
	*ret_rows = have;
	return 0;
}

/* ---- forks ---------------------------------------------------------------------------------- */

static int copy_blocks(const struct seq *parent, struct seq *child, uint32_t n_hashes)
{
	uint32_t from = record_of(parent)->tokens, *to = &record_of(child)->tokens;
	uint32_t have = HASHES_FIRST;

	for (;;) {
		int r = take_block(child, to);

		if (r < 0)
			return r;
		memcpy(block_of(child, *to), block_of(parent, from), CATALOGUE_BLOCK);
		block_of(child, *to)->next = BLOCK_NONE;
		if (have >= n_hashes)
			return 0;
		to = &block_of(child, *to)->next;
		from = block_of(parent, from)->next;
		have += HASHES_NEXT;
	}
}

int tokens_fork(const struct seq *parent, struct seq *child, uint32_t rows)
{
	uint32_t known = known_below(parent, tokens_rows(parent), rows);
	int r;

	if (!known)
		return 0;
	r = copy_blocks(parent, child, tokens_hashes(parent->cache, known));
	if (r < 0)
		return r;
	store_release(&record_of(child)->token_rows, known);
	if (tokens_hashes(child->cache, known))
		prefix_note(child);
	return 0;
}

/* ---- after a restart ---------------------------------------------------------------------------
 */

static int revive_blocks(struct seq *s)
{
	struct catalogue *catalogue = s->cache->store->catalogue;
	uint32_t *at = &record_of(s)->tokens;

	/* A chain that goes in a circle comes to a block that is marked. */
	for (; *at; at = &block_of(s, *at)->next) {
		if (!catalogue_has_block(catalogue, *at) ||
		    catalogue_mark_block(catalogue, *at) < 0) {
			*at = BLOCK_NONE;
			return -EUCLEAN;
		}
		charge_restore(s, CHAIN_BYTES);
	}
	return 0;
}

void tokens_revive(struct seq *s)
{
	uint32_t rows = tokens_rows(s);

	if (revive_blocks(s) < 0 || rows >= SPARQ_ROW_LIMIT ||
	    (rows && !hash_at(s, tokens_hashes(s->cache, rows - 1)))) {
		tokens_clear(s);
		return;
	}
	if (tokens_hashes(s->cache, rows))
		prefix_note(s);
}
