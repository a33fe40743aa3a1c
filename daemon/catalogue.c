/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue's file: header, cache records, sequence records, blocks.
 *
 *   | header | cache_record[] | sequence_record[] | block[] |
 *
 * Which slots and blocks are taken is kept on the heap: it follows from the
 * records, and recovery derives it again.
 */
#include "daemon/catalogue.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/point.h"
#include "daemon/record.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/segment.h"

struct catalogue {
	struct segment file;
	struct catalogue_header *header;
	uint64_t *taken;                    /* bit per block; any thread */
	uint32_t next_word;                 /* hint: where a free block was last found */
	uint32_t next_cache, next_sequence; /* so that a slot is not reused at once */
};

#define CACHE_FIXED_AT offsetof(struct cache_record, uid)
#define CACHE_FIXED_BYTES (sizeof(struct cache_record) - CACHE_FIXED_AT)

_Static_assert(offsetof(struct cache_record, checksum) + 8 == CACHE_FIXED_AT, "all is summed");
_Static_assert(offsetof(struct sequence_record, checksum) + 8 == SEQUENCE_FIXED_AT,
	       "all is summed");

static void *at(const struct catalogue *c, uint64_t offset)
{
	return (char *)c->file.base + offset;
}

static uint64_t header_sum(const struct catalogue_header *h)
{
	return XXH3_64bits(h, offsetof(struct catalogue_header, checksum));
}

/* Where the parts lie; -EINVAL if `bytes` leaves no room for blocks. */
static int plan(struct catalogue_header *h, size_t bytes, uint32_t max_caches,
		uint32_t max_sequences)
{
	*h = (struct catalogue_header){
		.magic = CATALOGUE_MAGIC,
		.layout = CATALOGUE_LAYOUT,
		.header_bytes = sizeof(*h),
		.generation = 1,
		.n_caches = max_caches,
		.n_sequences = max_sequences,
		.caches_at = CATALOGUE_BLOCK,
		.bytes = bytes / CATALOGUE_BLOCK * CATALOGUE_BLOCK,
	};
	h->sequences_at =
		ALIGN_UP(h->caches_at + max_caches * (uint64_t)sizeof(struct cache_record),
			 CATALOGUE_BLOCK);
	h->blocks_at =
		ALIGN_UP(h->sequences_at + max_sequences * (uint64_t)sizeof(struct sequence_record),
			 CATALOGUE_BLOCK);
	if (!max_caches || !max_sequences || h->blocks_at + 2 * CATALOGUE_BLOCK > h->bytes)
		return -EINVAL;
	if ((h->bytes - h->blocks_at) / CATALOGUE_BLOCK >= UINT32_MAX)
		return -EINVAL;
	h->n_blocks = (uint32_t)((h->bytes - h->blocks_at) / CATALOGUE_BLOCK);
	h->checksum = header_sum(h);
	return 0;
}

static void catalogue_cleanup(struct catalogue **c)
{
	*c = catalogue_free(*c);
}

/* Generations start at 1, so that no id is 0. */
static void number_slots(struct catalogue *c)
{
	for (uint32_t i = 0; i < c->header->n_caches; i++)
		catalogue_cache(c, i)->generation = 1;
	for (uint32_t i = 0; i < c->header->n_sequences; i++)
		((struct sequence_record *)catalogue_sequence(c, i))->generation = 1;
}

static void mark_ends(struct catalogue *c)
{
	uint32_t n = c->header->n_blocks;

	c->taken[0] |= 1; /* BLOCK_NONE */
	if (n % 64)
		c->taken[n / 64] |= ~0ull << n % 64;
}

int catalogue_create(size_t bytes, uint32_t max_caches, uint32_t max_sequences,
		     struct catalogue **ret)
{
	CLEANUP(catalogue_cleanup) struct catalogue *c = NULL;
	struct catalogue_header h;
	int r;

	r = plan(&h, bytes, max_caches, max_sequences);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->file = SEGMENT_NULL;
	c->taken = calloc(DIV_UP(h.n_blocks, 64), sizeof(*c->taken));
	if (!c->taken)
		return -ENOMEM;
	r = segment_create("sparqd-catalogue", h.bytes, &c->file);
	if (r < 0)
		return r;
	c->header = c->file.base;
	*c->header = h;
	number_slots(c);
	mark_ends(c);
	*ret = STEAL_PTR(c);
	return 0;
}

struct catalogue *catalogue_free(struct catalogue *c)
{
	int saved = errno;

	if (!c)
		return NULL;
	segment_deinit(&c->file);
	free(c->taken);
	free(c);
	errno = saved;
	return NULL;
}

int catalogue_fd(const struct catalogue *c)
{
	return c->file.fd;
}

struct catalogue_header *catalogue_header(struct catalogue *c)
{
	return c->header;
}

/* ---- records ---------------------------------------------------------------- */

struct cache_record *catalogue_cache(struct catalogue *c, uint32_t slot)
{
	assert(slot < c->header->n_caches);
	return (struct cache_record *)at(c, c->header->caches_at) + slot;
}

void *catalogue_sequence(struct catalogue *c, uint32_t slot)
{
	assert(slot < c->header->n_sequences);
	return (struct sequence_record *)at(c, c->header->sequences_at) + slot;
}

int catalogue_take_cache(struct catalogue *c, uint32_t *ret_slot)
{
	uint32_t n = c->header->n_caches;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = (c->next_cache + i) % n;
		struct cache_record *r = catalogue_cache(c, slot);

		if (r->state != RECORD_FREE)
			continue;
		memset((char *)r + CACHE_FIXED_AT, 0, CACHE_FIXED_BYTES);
		store_release(&r->state, RECORD_BUILDING);
		c->next_cache = (slot + 1) % n;
		*ret_slot = slot;
		return 0;
	}
	return -ENOSPC;
}

void catalogue_publish_cache(struct catalogue *c, uint32_t slot)
{
	struct cache_record *r = catalogue_cache(c, slot);

	assert(r->state == RECORD_BUILDING);
	r->checksum = XXH3_64bits((char *)r + CACHE_FIXED_AT, CACHE_FIXED_BYTES);
	/* A restarted daemon that finds LIVE finds what the checksum covers. */
	store_release(&r->state, RECORD_LIVE);
}

void catalogue_drop_cache(struct catalogue *c, uint32_t slot)
{
	struct cache_record *r = catalogue_cache(c, slot);

	assert(r->state != RECORD_FREE);
	store_release(&r->state, RECORD_DYING);
	POINT(cache_dying);
	r->generation = r->generation + 1 ? r->generation + 1 : 1;
	store_release(&r->state, RECORD_FREE);
}

int catalogue_take_sequence(struct catalogue *c, uint32_t *ret_slot)
{
	uint32_t n = c->header->n_sequences;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = (c->next_sequence + i) % n;
		struct sequence_record *r = catalogue_sequence(c, slot);

		if (r->state != RECORD_FREE)
			continue;
		memset((char *)r + SEQUENCE_FIXED_AT, 0, sizeof(*r) - SEQUENCE_FIXED_AT);
		store_release(&r->state, RECORD_BUILDING);
		c->next_sequence = (slot + 1) % n;
		*ret_slot = slot;
		return 0;
	}
	return -ENOSPC;
}

void catalogue_publish_sequence(struct catalogue *c, uint32_t slot)
{
	struct sequence_record *r = catalogue_sequence(c, slot);

	assert(r->state == RECORD_BUILDING);
	r->checksum = XXH3_64bits((char *)r + SEQUENCE_FIXED_AT, SEQUENCE_FIXED_BYTES);
	store_release(&r->state, RECORD_LIVE);
}

void catalogue_drop_sequence(struct catalogue *c, uint32_t slot)
{
	struct sequence_record *r = catalogue_sequence(c, slot);

	assert(r->state != RECORD_FREE);
	store_release(&r->state, RECORD_DYING);
	r->generation = r->generation + 1 ? r->generation + 1 : 1;
	POINT(drop_numbered);
	store_release(&r->state, RECORD_FREE);
}

/* ---- blocks ----------------------------------------------------------------- */

int catalogue_take_block(struct catalogue *c, uint32_t *ret_block)
{
	uint32_t words = DIV_UP(c->header->n_blocks, 64), from = load_relaxed(&c->next_word);

	for (uint32_t i = 0; i < words; i++) {
		uint32_t w = (from + i) % words;
		uint64_t clear;

		while ((clear = ~load_relaxed(&c->taken[w])) != 0) {
			uint64_t bit = clear & -clear;

			/* Acquires what whoever put the block last wrote to it. */
			if (fetch_or(&c->taken[w], bit) & bit)
				continue;
			store_relaxed(&c->next_word, w);
			*ret_block = w * 64 + (uint32_t)__builtin_ctzll(bit);
			return 0;
		}
	}
	return -ENOSPC;
}

void catalogue_put_block(struct catalogue *c, uint32_t block)
{
	uint64_t bit = 1ull << block % 64, before;

	assert(block != BLOCK_NONE && block < c->header->n_blocks);
	before = fetch_and(&c->taken[block / 64], ~bit);
	assert(before & bit);
	(void)before;
}

void *catalogue_block(struct catalogue *c, uint32_t block)
{
	assert(block != BLOCK_NONE && block < c->header->n_blocks);
	return at(c, c->header->blocks_at + (uint64_t)block * CATALOGUE_BLOCK);
}
