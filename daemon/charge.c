/* SPDX-License-Identifier: Apache-2.0 */
/* Charge, then take; give back, then refund. */
#include "daemon/charge.h"

#include "daemon/room.h"
#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"

static int lack(struct seq *s, enum limit limit, uint64_t bytes)
{
	s->shortage = (struct shortage){ limit, s->cache->id, bytes };
	return -ENOSPC;
}

int charge_bytes(struct seq *s, uint64_t bytes)
{
	int r = cache_charge(s->cache, bytes);

	if (r < 0)
		return lack(s, r == -EDQUOT ? LIMIT_QUOTA : LIMIT_BUDGET, bytes);
	fetch_add(&s->bytes, bytes);
	room_watch(s);
	return 0;
}

void charge_refund(struct seq *s, uint64_t bytes)
{
	fetch_sub(&s->bytes, bytes);
	cache_refund(s->cache, bytes);
}

static int take_page(struct seq *s, struct page_size size, unsigned node, page_ref *ret)
{
	struct pool *pool = s->cache->store->pool;

	if (pool_take(pool, node, size, s->cache->user->uid, ret) < 0)
		return lack(s, LIMIT_POOL, pool_charge(pool, size));
	/* Whatever a device had of it: what is written to it before a table leads there needs no
	 * word more. */
	if (s->cache->device)
		device_wrote_page(s->cache->device, *ret, size);
	return 0;
}

int charge_page_swap(struct seq *s, struct page_size size, page_ref *ret)
{
	return take_page(s, size, s->node, ret);
}

int charge_page(struct seq *s, struct page_size size, unsigned node, page_ref *ret)
{
	uint64_t stride = pool_charge(s->cache->store->pool, size);
	int r;

	r = charge_bytes(s, stride);
	if (r < 0)
		return r;
	r = take_page(s, size, node, ret);
	if (r < 0)
		charge_refund(s, stride);
	return r;
}

void charge_page_put(struct seq *s, struct page_size size, page_ref page)
{
	struct pool *pool = s->cache->store->pool;

	pool_put(pool, page);
	charge_refund(s, pool_charge(pool, size));
}

int charge_block(struct seq *s, uint32_t *ret)
{
	int r;

	r = charge_bytes(s, CATALOGUE_BLOCK);
	if (r < 0)
		return r;
	r = catalogue_take_block(s->cache->store->catalogue, ret);
	if (r < 0) {
		charge_refund(s, CATALOGUE_BLOCK);
		return lack(s, LIMIT_CATALOGUE, CATALOGUE_BLOCK);
	}
	return 0;
}

void charge_block_put(struct seq *s, uint32_t block)
{
	catalogue_put_block(s->cache->store->catalogue, block);
	charge_refund(s, CATALOGUE_BLOCK);
}

void charge_restore(struct seq *s, uint64_t bytes)
{
	cache_restore(s->cache, bytes);
	fetch_add(&s->bytes, bytes);
}
