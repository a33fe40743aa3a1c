/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue's file: header, cache records, sequence records, blocks.
 *
 *   | header | cache_record[] | sequence_record[] | notes | block[] |
 *
 * Which slots and blocks are taken is kept on the heap: it follows from the
 * records, and recovery derives it again. The notes are the pool's: a word for
 * each unit of its arenas, which says how it was cut (page.h).
 */
#include "daemon/catalogue.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

static uint64_t n_units(const struct catalogue_header *h)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < h->n_pools; i++)
		n += h->pool[i].units;
	return n;
}

/* Where the parts lie follows from how many there are and the bytes; -EINVAL if those leave no
 * room for blocks. */
static int place(struct catalogue_header *h)
{
	uint64_t caches = h->n_caches * (uint64_t)sizeof(struct cache_record);
	uint64_t sequences = h->n_sequences * (uint64_t)sizeof(struct sequence_record);
	uint64_t blocks;

	h->caches_at = ALIGN_UP(sizeof(*h), CATALOGUE_BLOCK);
	h->sequences_at = ALIGN_UP(h->caches_at + caches, CATALOGUE_BLOCK);
	h->notes_at = ALIGN_UP(h->sequences_at + sequences, CATALOGUE_BLOCK);
	h->blocks_at = ALIGN_UP(h->notes_at + n_units(h) * sizeof(uint64_t), CATALOGUE_BLOCK);
	if (!h->n_caches || !h->n_sequences || h->blocks_at + 2 * CATALOGUE_BLOCK > h->bytes)
		return -EINVAL;
	blocks = (h->bytes - h->blocks_at) / CATALOGUE_BLOCK;
	if (blocks >= UINT32_MAX)
		return -EINVAL;
	h->n_blocks = (uint32_t)blocks;
	return 0;
}

static int plan(const struct catalogue_params *p, struct catalogue_header *ret)
{
	struct catalogue_header h = {
		.magic = CATALOGUE_MAGIC,
		.layout = CATALOGUE_LAYOUT,
		.header_bytes = sizeof(h),
		.tiles_layout = KV_LAYOUT,
		.n_caches = p->max_caches,
		.n_sequences = p->max_sequences,
		.n_pools = p->n_pools,
		.bytes = p->bytes / CATALOGUE_BLOCK * CATALOGUE_BLOCK,
		.generation = p->generation ? p->generation : 1,
	};
	int r;

	assert(p->n_pools <= POOL_MAX_NODES);
	for (unsigned i = 0; i < p->n_pools; i++)
		h.pool[i] = p->pool[i];
	r = place(&h);
	if (r < 0)
		return r;
	h.checksum = header_sum(&h);
	*ret = h;
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

/* The heap's part. */
static int new_catalogue(uint32_t n_blocks, struct catalogue **ret)
{
	CLEANUP(catalogue_cleanup) struct catalogue *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->file = SEGMENT_NULL;
	c->taken = calloc(DIV_UP(n_blocks, 64), sizeof(*c->taken));
	if (!c->taken)
		return -ENOMEM;
	*ret = STEAL_PTR(c);
	return 0;
}

int catalogue_create(const struct catalogue_params *p, struct catalogue **ret)
{
	CLEANUP(catalogue_cleanup) struct catalogue *c = NULL;
	struct catalogue_header h;
	int r;

	r = plan(p, &h);
	if (r < 0)
		return r;
	r = new_catalogue(h.n_blocks, &c);
	if (r < 0)
		return r;
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

/* ---- one that a daemon before this one left --------------------------------- */

static int refuse(char *why, int error, const char *what)
{
	snprintf(why, CATALOGUE_WHY_BYTES, "the catalogue of the last daemon: %s", what);
	return -error;
}

static int check_layout(const struct catalogue_header *h, char *why)
{
	if (h->magic != CATALOGUE_MAGIC)
		return refuse(why, EUCLEAN, "it does not begin with the magic number");
	if ((h->layout == CATALOGUE_LAYOUT || h->layout == CATALOGUE_LAYOUT_BEFORE) &&
	    h->tiles_layout == KV_LAYOUT)
		return 0;
	/* The first fields of the header are the same in every layout. */
	snprintf(why, CATALOGUE_WHY_BYTES,
		 "the catalogue of the last daemon has layout %" PRIu32 ".%" PRIu32
		 ", this sparqd " SPARQ_VERSION " reads %u.%u",
		 h->layout, h->tiles_layout, CATALOGUE_LAYOUT, KV_LAYOUT);
	return -EPROTONOSUPPORT;
}

static bool sum_agrees(const struct catalogue_header *h)
{
	struct catalogue_header before = *h;

	/* A daemon that took over an older one may have died between the two stores. */
	before.layout = CATALOGUE_LAYOUT_BEFORE;
	return h->checksum == header_sum(h) || h->checksum == header_sum(&before);
}

/* From now on it is of this layout: a daemon that reads only the older one must not believe it. */
static void raise_layout(struct catalogue_header *h)
{
	store_release(&h->layout, CATALOGUE_LAYOUT);
	store_release(&h->checksum, header_sum(h));
}

/* All that later code relies on: the parts lie where they must, inside the file. */
static int check_header(const struct catalogue_header *h, uint64_t file_bytes, char *why)
{
	struct catalogue_header again = *h;
	int r;

	r = check_layout(h, why);
	if (r < 0)
		return r;
	if (h->header_bytes != sizeof(*h) || !sum_agrees(h))
		return refuse(why, EUCLEAN, "the checksum of its header does not agree");
	if (!h->n_pools || h->n_pools > POOL_MAX_NODES || h->bytes != file_bytes ||
	    place(&again) < 0 || memcmp(&again, h, sizeof(again)) != 0)
		return refuse(why, EUCLEAN, "its parts do not fit into its bytes");
	return 0;
}

static int map_kept(int fd, struct segment *ret)
{
	CLOSE_FD int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	CLOSE_FD int kept = -1;
	struct stat st;
	int r;

	if (ours < 0 || fstat(ours, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(struct catalogue_header))
		return -EUCLEAN;
	/* Mapping takes a descriptor; a later push needs one. */
	kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (kept < 0)
		return -errno;
	r = segment_map(ours, (size_t)st.st_size, true, ret);
	if (r < 0)
		return r;
	ours = -1;
	ret->fd = STEAL_FD(kept);
	return 0;
}

int catalogue_adopt(int fd, struct catalogue **ret, char *why)
{
	CLEANUP(catalogue_cleanup) struct catalogue *c = NULL;
	CLEANUP(segment_deinit) struct segment file = SEGMENT_NULL;
	struct catalogue_header h;
	int r;

	r = map_kept(fd, &file);
	if (r == -EUCLEAN)
		return refuse(why, EUCLEAN, "it is shorter than a header");
	if (r < 0)
		return refuse(why, -r, strerror(-r));
	h = *(const struct catalogue_header *)file.base;
	r = check_header(&h, file.bytes, why);
	if (r < 0)
		return r;
	if (new_catalogue(h.n_blocks, &c) < 0)
		return refuse(why, ENOMEM, strerror(ENOMEM));
	c->file = STEAL(file, SEGMENT_NULL);
	c->header = c->file.base;
	mark_ends(c);
	raise_layout(c->header);
	store_release(&c->header->generation, h.generation + 1 ? h.generation + 1 : 1);
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

uint64_t *catalogue_notes(struct catalogue *c)
{
	return at(c, c->header->notes_at);
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

static uint64_t cache_sum(const struct cache_record *r)
{
	return XXH3_64bits((const char *)r + CACHE_FIXED_AT, CACHE_FIXED_BYTES);
}

bool catalogue_cache_is_whole(struct catalogue *c, uint32_t slot)
{
	const struct cache_record *r = catalogue_cache(c, slot);

	return r->checksum == cache_sum(r);
}

void catalogue_publish_cache(struct catalogue *c, uint32_t slot)
{
	struct cache_record *r = catalogue_cache(c, slot);

	assert(r->state == RECORD_BUILDING);
	r->checksum = cache_sum(r);
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

static uint64_t sequence_sum(const struct sequence_record *r)
{
	return XXH3_64bits((const char *)r + SEQUENCE_FIXED_AT, SEQUENCE_FIXED_BYTES);
}

bool catalogue_sequence_is_whole(struct catalogue *c, uint32_t slot)
{
	const struct sequence_record *r = catalogue_sequence(c, slot);

	return r->checksum == sequence_sum(r);
}

void catalogue_publish_sequence(struct catalogue *c, uint32_t slot)
{
	struct sequence_record *r = catalogue_sequence(c, slot);

	assert(r->state == RECORD_BUILDING);
	r->checksum = sequence_sum(r);
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

bool catalogue_has_block(const struct catalogue *c, uint32_t block)
{
	return block != BLOCK_NONE && block < c->header->n_blocks;
}

int catalogue_mark_block(struct catalogue *c, uint32_t block)
{
	uint64_t bit = 1ull << block % 64;

	if (!catalogue_has_block(c, block))
		return -EUCLEAN;
	return fetch_or(&c->taken[block / 64], bit) & bit ? -EUCLEAN : 0;
}
