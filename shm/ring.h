/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One submission and one completion ring: single producer, single consumer,
 * validity in the entry.
 *
 * An entry is valid when its `seq` equals its position + 1, so zeroed memory
 * and an old lap never match and no index has to be published per entry. Masks,
 * sizes and cursors are private to each side; of the shared control words a
 * side reads only what the other writes, once, into a local.
 *
 * The client's half is trusted by nobody but the client. The daemon's half
 * treats every shared byte as hostile: ring_copy_sqe copies an entry once,
 * ring_daemon_credit refuses an impossible cq_head.
 *
 * What runs once per entry is inline: a round trip is one cache line going
 * there and back, and a call on each of its four steps would show.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/sparq-abi.h"

/* Where the three parts of a ring pair lie in this process; set up from the
 * offsets told in the handshake, sizes are powers of two. */
struct ring_map {
	struct sparq_ring_ctl *ctl;
	struct sparq_sqe *sq;
	struct sparq_cqe *cq;
	uint32_t sq_entries, cq_entries;
};

/* ---- client ------------------------------------------------------------- */

struct ring_client {
	struct ring_map map;
	uint32_t sq_tail;      /* next position to fill */
	uint32_t sq_published; /* positions below have their seq */
	uint32_t sq_head;      /* last seen credit */
	uint32_t cq_head;      /* next completion to read */
	uint32_t cq_told;      /* what the daemon was last told of cq_head */
};

void ring_client_init(struct ring_client *r, const struct ring_map *map);
/* Looks for SQ credit when the cached one is spent: true if there is room. */
bool ring_client_refill(struct ring_client *r);
/* Before sleeping: tell cq_head whatever its distance; true as for ring_client_seen. */
bool ring_client_tell(struct ring_client *r);

/* A zeroed entry to fill, NULL when the ring is full. Its seq is not set. */
static inline struct sparq_sqe *ring_client_get(struct ring_client *r)
{
	struct sparq_sqe *e;

	if (unlikely(r->sq_tail - r->sq_head == r->map.sq_entries) && !ring_client_refill(r))
		return NULL;
	e = &r->map.sq[r->sq_tail++ & (r->map.sq_entries - 1)];
	/* The old lap's seq stays: it can not be taken for the new one, while a 0
	 * would be valid at position 2^32 - 1. */
	memset(e, 0, offsetof(struct sparq_sqe, seq));
	return e;
}

/* Publishes everything got so far; how many. The caller then fences once and
 * looks whether the daemon sleeps (doorbell.h). */
static inline unsigned ring_client_publish(struct ring_client *r)
{
	unsigned n = r->sq_tail - r->sq_published;

	while (r->sq_published != r->sq_tail) {
		struct sparq_sqe *e = &r->map.sq[r->sq_published & (r->map.sq_entries - 1)];

		/* The 60 bytes before it are seen by the daemon before this number. */
		store_release(&e->seq, ++r->sq_published);
	}
	return n;
}

/* Pointer to the completion `ahead` places past the oldest unread, NULL if not there yet. */
static inline struct sparq_cqe *ring_client_peek(struct ring_client *r, unsigned ahead)
{
	uint32_t position = r->cq_head + ahead;
	struct sparq_cqe *e = &r->map.cq[position & (r->map.cq_entries - 1)];

	/* The number first, then the 28 bytes before it and the results in the arena. */
	return load_acquire(&e->seq) == position + 1 ? e : NULL;
}

/* `n` completions were read. Tells the daemon when half the ring is read or the CQ is drained.
 * True if an entry may have waited for that credit: it counts as a publish, so
 * fence, then doorbell. */
static inline bool ring_client_seen(struct ring_client *r, unsigned n)
{
	r->cq_head += n;
	if (r->cq_head - r->cq_told < r->map.sq_entries / 2 && ring_client_peek(r, 0))
		return false;
	return ring_client_tell(r);
}

/* Published, and its completion not yet seen (ring_client_seen). */
static inline uint32_t ring_client_in_flight(const struct ring_client *r)
{
	return r->sq_published - r->cq_head;
}

/* ---- daemon ------------------------------------------------------------- */

struct ring_daemon {
	struct ring_map map;
	uint32_t sq_head; /* next entry to copy */
	uint32_t sq_told;
	uint32_t cq_tail;   /* next completion to write */
	uint32_t cq_head;   /* last valid snapshot of the client's word */
	uint32_t in_flight; /* entries copied whose completion is not written: sq_head - cq_tail */
};

void ring_daemon_init(struct ring_daemon *r, const struct ring_map *map);
/* Completions that may still be promised; -EPROTO if the client's cq_head is impossible. */
int ring_daemon_credit(struct ring_daemon *r);

/* True if an entry is valid at the cursor; reads one word. The entry may still have to wait for
 * credit: before a sleep it is ring_daemon_copy that must have said 0, after the fence. */
static inline bool ring_daemon_ready(const struct ring_daemon *r)
{
	const struct sparq_sqe *e = &r->map.sq[r->sq_head & (r->map.sq_entries - 1)];

	/* The number first, then the entry. */
	return load_acquire(&e->seq) == r->sq_head + 1;
}

/* The only read of an entry's bytes: each word is loaded once, into memory that the client
 * cannot reach. Atomic, because a compiler may read plain memory twice. */
static inline void ring_copy_sqe(struct sparq_sqe *ret, const struct sparq_sqe *shared)
{
	const uint64_t *from = (const uint64_t *)(const void *)shared;
	uint64_t word[sizeof(*ret) / sizeof(uint64_t)];

	for (unsigned i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = load_relaxed(&from[i]);
	memcpy(ret, word, sizeof(*ret));
}

/* Copies the next entry into private memory if one is valid and there is credit:
 * 1 copied, 0 none (or no credit), -EPROTO. */
static inline int ring_daemon_copy(struct ring_daemon *r, struct sparq_sqe *ret)
{
	if (!ring_daemon_ready(r))
		return 0;
	/* in_flight + unread = sq_head - cq_head: each entry copied has or will have its own. */
	if (unlikely(r->sq_head - r->cq_head >= r->map.cq_entries)) {
		int credit = ring_daemon_credit(r);

		if (credit <= 0)
			return credit;
	}
	ring_copy_sqe(ret, &r->map.sq[r->sq_head & (r->map.sq_entries - 1)]);
	ret->seq = ++r->sq_head; /* what it was; the client may have changed it since */
	r->in_flight++;
	return 1;
}

/* Writes one completion; `cqe->seq` is filled in. There is always room: copy reserved it. */
static inline void ring_daemon_post(struct ring_daemon *r, const struct sparq_cqe *cqe)
{
	struct sparq_cqe *e = &r->map.cq[r->cq_tail & (r->map.cq_entries - 1)];

	assert(r->in_flight > 0);
	r->in_flight--;
	e->user_data = cqe->user_data;
	e->res = cqe->res;
	e->flags = cqe->flags;
	e->bytes_read = cqe->bytes_read;
	e->aux = cqe->aux;
	/* The results in the arena and the 28 bytes are seen by the client before this number. */
	store_release(&e->seq, ++r->cq_tail);
}

/* Tells the client how far the SQ was read, when a quarter of it was or `idle`. */
static inline void ring_daemon_tell(struct ring_daemon *r, bool idle)
{
	uint32_t untold = r->sq_head - r->sq_told;

	if (untold == 0 || (!idle && untold < r->map.sq_entries / 4))
		return;
	r->sq_told = r->sq_head;
	/* The copies are taken before the client may fill these entries again. */
	store_release(&r->map.ctl->sq_head, r->sq_head);
}
