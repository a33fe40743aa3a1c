/* SPDX-License-Identifier: Apache-2.0 */
/* What a ring does less often than once per entry: set up, and the two credits. */
#include "shm/ring.h"

#include <errno.h>

static bool is_power_of_two(uint32_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static void check_map(const struct ring_map *map)
{
	assert(map->ctl && map->sq && map->cq);
	assert(is_power_of_two(map->sq_entries) && is_power_of_two(map->cq_entries));
	assert(map->cq_entries >= map->sq_entries);
}

/* ---- client ------------------------------------------------------------- */

void ring_client_init(struct ring_client *r, const struct ring_map *map)
{
	check_map(map);
	*r = (struct ring_client){ .map = *map };
}

bool ring_client_refill(struct ring_client *r)
{
	/* Every completion read is an entry copied, so the client's own cursor is a bound that
	 * costs no miss; the daemon's word, which it stores seldom, may be further. */
	uint32_t proven = r->cq_head;
	/* The daemon's copies are taken before an entry below this is written again. */
	uint32_t told = load_acquire(&r->map.ctl->sq_head);

	r->sq_head = (int32_t)(told - proven) > 0 ? told : proven;
	return r->sq_tail - r->sq_head < r->map.sq_entries;
}

bool ring_client_tell(struct ring_client *r)
{
	/* Entry p may be copied while p - cq_head < cq_entries. With less than that published since
	 * the last word the daemon has credit for all, sees them by their seq, and nobody waits for
	 * this store. A later publish that changes this is followed by its own fence, which covers
	 * it. */
	bool awaited = r->sq_published - r->cq_told > r->map.cq_entries;

	if (r->cq_told == r->cq_head)
		return false;
	r->cq_told = r->cq_head;
	/* The completions below are read before the daemon writes over them. */
	store_release(&r->map.ctl->cq_head, r->cq_head);
	return awaited;
}

/* ---- daemon ------------------------------------------------------------- */

void ring_daemon_init(struct ring_daemon *r, const struct ring_map *map)
{
	check_map(map);
	*r = (struct ring_daemon){ .map = *map };
}

int ring_daemon_credit(struct ring_daemon *r)
{
	/* The client has read the completions below before they are written over. Read once: what
	 * is checked is what is used. */
	uint32_t told = load_acquire(&r->map.ctl->cq_head);

	/* Backwards is a huge step forwards: one comparison refuses both. */
	if (told - r->cq_head > r->cq_tail - r->cq_head)
		return -EPROTO;
	r->cq_head = told;
	assert(r->sq_head - r->cq_head <= r->map.cq_entries);
	return (int)(r->map.cq_entries - (r->sq_head - r->cq_head));
}
