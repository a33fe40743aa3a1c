/* SPDX-License-Identifier: Apache-2.0 */
/* Channel tables in the catalogue: see channels.h. */
#include "daemon/channels.h"
#include "daemon/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/cache.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/record.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

_Static_assert(sizeof(((struct sparq_msg_cache_table *)0)->k_channels) == KV_MAX_DIM &&
		       sizeof(((struct sparq_msg_cache_table *)0)->v_channels) == KV_MAX_DIM,
	       "channels of a message");

static struct channels_block *block_of(const struct cache *c, uint32_t block)
{
	return catalogue_block(c->store->catalogue, block);
}

/* ---- what was asked for ------------------------------------------------------------ */

/* The channels of one tensor: all of its places, or none at all: as they come. */
static int read_order(const char *what, const uint8_t *given, uint32_t n, uint32_t dim,
		      uint8_t ret[KV_MAX_DIM], char *why)
{
	if (n && n != dim)
		return why_fail(why, EINVAL, "%u %s: the cache has %u, or 0 for as they come", n,
				what, dim);
	for (uint32_t i = n; i < KV_MAX_DIM; i++)
		if (given[i])
			return why_fail(why, EINVAL, "%s[%u] is not 0, after the last of %u", what,
					i, n);
	memset(ret, 0, KV_MAX_DIM);
	for (uint32_t i = 0; i < dim; i++)
		ret[i] = n ? given[i] : (uint8_t)i;
	return 0;
}

static int check_place(const struct cache *c, const struct sparq_msg_cache_table *m, char *why)
{
	const struct cache_record *r = c->record;

	if (m->rsv)
		return why_fail(why, EINVAL, "a reserved field of the request is not 0");
	if (m->layer >= r->layers)
		return why_fail(why, EINVAL, "layer %u: the cache has %u, from 0", m->layer,
				r->layers);
	if (m->kv_head >= r->kv_heads)
		return why_fail(why, EINVAL, "kv_head %u: the cache has %u, from 0", m->kv_head,
				r->kv_heads);
	if (c->n_sequences)
		return why_fail(why, EBUSY,
				"table of layer %u, KV head %u: the cache has sequences; load it "
				"before the first",
				m->layer, m->kv_head);
	return 0;
}

static int read_table(const struct cache *c, const struct sparq_msg_cache_table *m,
		      struct kv_channels *ret, char *why)
{
	struct kv_channels t = { .n_outliers = m->n_outliers };
	const struct cache_record *r = c->record;
	int error;

	error = check_place(c, m, why);
	if (error == 0)
		error = read_order("k_channels", m->k_channels, m->n_k, r->k_dim, t.k, why);
	if (error == 0)
		error = read_order("v_channels", m->v_channels, m->n_v, r->v_dim, t.v, why);
	if (error == 0)
		error = kv_channels_check(cache_layer(c, m->layer), &t, why);
	if (error == 0)
		*ret = t;
	return error;
}

/* ---- room ---------------------------------------------------------------------------- */

static uint64_t index_bytes(const struct cache *c)
{
	return (uint64_t)c->record->layers * c->record->kv_heads * sizeof(*c->channels.table);
}

/* Who can make room finds the limit in the store. */
static int lack(struct cache *c, enum limit limit, uint64_t bytes)
{
	c->store->shortage = (struct shortage){ limit, c->id, bytes };
	return -ENOSPC;
}

static int charge(struct cache *c, uint64_t bytes)
{
	int r = cache_charge(c, bytes);

	return r < 0 ? lack(c, r == -EDQUOT ? LIMIT_QUOTA : LIMIT_BUDGET, bytes) : 0;
}

static int take_index(struct cache *c)
{
	int r;

	if (c->channels.table)
		return 0;
	r = charge(c, index_bytes(c));
	if (r < 0)
		return r;
	c->channels.table = calloc(1, index_bytes(c));
	if (c->channels.table)
		return 0;
	cache_refund(c, index_bytes(c));
	return -ENOMEM;
}

/* An empty block behind the last. */
static int take_block(struct cache *c)
{
	uint32_t block;
	int r;

	r = charge(c, CATALOGUE_BLOCK);
	if (r < 0)
		return r;
	r = catalogue_take_block(c->store->catalogue, &block);
	if (r < 0) {
		cache_refund(c, CATALOGUE_BLOCK);
		return lack(c, LIMIT_CATALOGUE, CATALOGUE_BLOCK);
	}
	memset(block_of(c, block), 0, CATALOGUE_BLOCK);
	if (c->channels.last)
		block_of(c, c->channels.last)->next = block;
	else
		c->record->channels = block;
	c->channels.last = block;
	return 0;
}

/* Room for one more record, where the cache's record need not change any more. */
static int take_room(struct cache *c)
{
	int r;

	r = take_index(c);
	if (r < 0)
		return r;
	if (c->channels.last && block_of(c, c->channels.last)->n < CHANNELS_PER_BLOCK)
		return 0;
	return take_block(c);
}

/* ---- loading --------------------------------------------------------------------------- */

static const struct kv_channels **index_at(const struct cache *c, uint32_t layer, uint32_t kv_head)
{
	return &c->channels.table[(size_t)layer * c->record->kv_heads + kv_head];
}

/* Blocks are as large as their alignment. */
static struct channels_block *block_with(const struct channels_record *record)
{
	return (struct channels_block *)((uintptr_t)record & ~(uintptr_t)(CATALOGUE_BLOCK - 1));
}

/* The one there is, or the next free one. */
static struct channels_record *record_for(const struct cache *c, uint32_t layer, uint32_t kv_head)
{
	const struct kv_channels *have = *index_at(c, layer, kv_head);
	struct channels_block *b;

	if (have)
		return container_of(have, struct channels_record, channels);
	b = block_of(c, c->channels.last);
	return &b->record[b->n++];
}

static uint64_t sum_of(const struct channels_block *b)
{
	return XXH3_64bits(b->record, CATALOGUE_BLOCK - sizeof(*b));
}

static int fail_load(const struct cache *c, const struct sparq_msg_cache_table *m, int error,
		     char *why)
{
	char what[64];

	snprintf(what, sizeof(what), "table of layer %u, KV head %u", m->layer, m->kv_head);
	if (error != -ENOSPC)
		return why_fail(why, -error, "%s: %s", what, strerror(-error));
	return shortage_fail(&c->store->shortage, c, what, why);
}

int channels_load(struct cache *c, const struct sparq_msg_cache_table *m, char *why)
{
	struct channels_record *record;
	struct kv_channels t;
	int r;

	r = read_table(c, m, &t, why);
	if (r < 0)
		return r;
	audit_leave(c->store->auditor, c);
	/* Not LIVE for an instant: a crash here loses a cache that holds nothing. */
	store_release(&c->record->state, RECORD_BUILDING);
	POINT(cache_table);
	r = take_room(c);
	if (r == 0) {
		record = record_for(c, m->layer, m->kv_head);
		*record = (struct channels_record){ m->layer, m->kv_head, t };
		block_with(record)->checksum = sum_of(block_with(record));
		*index_at(c, m->layer, m->kv_head) = &record->channels;
	}
	catalogue_publish_cache(c->store->catalogue, id_slot(c->id));
	return r < 0 ? fail_load(c, m, r, why) : 0;
}

/* ---- after a restart ------------------------------------------------------------------- */

static int revive_record(struct cache *c, const struct channels_record *record, char *why)
{
	const struct cache_record *r = c->record;
	char unread[SPARQ_ERROR_TEXT];

	if (record->layer >= r->layers || record->kv_head >= r->kv_heads ||
	    *index_at(c, record->layer, record->kv_head) ||
	    kv_channels_check(cache_layer(c, record->layer), &record->channels, unread) < 0)
		return why_fail(why, EUCLEAN, "a channel table of it is damaged");
	*index_at(c, record->layer, record->kv_head) = &record->channels;
	return 0;
}

static int revive_block(struct cache *c, uint32_t block, char *why)
{
	const struct channels_block *b;
	int r = 0;

	/* A chain in a circle comes to a block that is taken. */
	if (catalogue_mark_block(c->store->catalogue, block) < 0)
		return why_fail(why, EUCLEAN, "the chain of its channel tables is broken");
	cache_restore(c, CATALOGUE_BLOCK);
	c->channels.last = block;
	b = block_of(c, block);
	if (b->n > CHANNELS_PER_BLOCK || b->checksum != sum_of(b))
		return why_fail(why, EUCLEAN, "the checksum of its channel tables does not agree");
	for (uint32_t i = 0; i < b->n && r == 0; i++)
		r = revive_record(c, &b->record[i], why);
	return r;
}

int channels_revive(struct cache *c, char *why)
{
	uint32_t block = c->record->channels;
	int r = 0;

	if (block == BLOCK_NONE)
		return 0;
	c->channels.table = calloc(1, index_bytes(c));
	if (!c->channels.table)
		return why_fail(why, ENOMEM, "out of memory");
	cache_restore(c, index_bytes(c));
	while (block != BLOCK_NONE && r == 0) {
		r = revive_block(c, block, why);
		block = r == 0 ? block_of(c, block)->next : BLOCK_NONE;
	}
	if (r < 0)
		channels_clear(c);
	return r;
}

void channels_clear(struct cache *c)
{
	/* Not beyond the last: what a restart found behind a damaged one is not ours. */
	uint32_t block = c->channels.last ? c->record->channels : BLOCK_NONE, next;

	for (; block != BLOCK_NONE; block = next) {
		next = block == c->channels.last ? BLOCK_NONE : block_of(c, block)->next;
		catalogue_put_block(c->store->catalogue, block);
		cache_refund(c, CATALOGUE_BLOCK);
	}
	if (c->channels.table)
		cache_refund(c, index_bytes(c));
	free(c->channels.table);
	c->channels = (struct channels){ 0 };
}

const struct kv_channels *const *channels_layer(const struct cache *c, uint32_t layer)
{
	return c->channels.table ? index_at(c, layer, 0) : NULL;
}
