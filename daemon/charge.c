/* SPDX-License-Identifier: Apache-2.0 */
/* Charge, then take; give back, then refund. */
#include "daemon/charge.h"

#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"

static int charge(struct seq *s, uint64_t bytes)
{
	int r = cache_charge(s->cache, bytes);

	if (r == 0)
		fetch_add(&s->bytes, bytes);
	return r;
}

static void refund(struct seq *s, uint64_t bytes)
{
	fetch_sub(&s->bytes, bytes);
	cache_refund(s->cache, bytes);
}

int charge_page(struct seq *s, size_t bytes, page_ref *ret)
{
	struct pool *pool = s->cache->store->pool;
	uint64_t stride = pool_charge(pool, bytes);
	int r;

	r = charge(s, stride);
	if (r < 0)
		return r;
	r = pool_take(pool, s->node, bytes, s->cache->user->uid, ret);
	if (r < 0)
		refund(s, stride);
	return r;
}

void charge_page_put(struct seq *s, size_t bytes, page_ref page)
{
	struct pool *pool = s->cache->store->pool;

	pool_put(pool, page);
	refund(s, pool_charge(pool, bytes));
}

int charge_block(struct seq *s, uint32_t *ret)
{
	int r;

	r = charge(s, CATALOGUE_BLOCK);
	if (r < 0)
		return r;
	r = catalogue_take_block(s->cache->store->catalogue, ret);
	if (r < 0)
		refund(s, CATALOGUE_BLOCK);
	return r;
}

void charge_block_put(struct seq *s, uint32_t block)
{
	catalogue_put_block(s->cache->store->catalogue, block);
	refund(s, CATALOGUE_BLOCK);
}
