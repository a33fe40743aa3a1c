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
 * ring_credit refuses an impossible cq_head.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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
/* A zeroed entry to fill, NULL when the ring is full. Its seq is not set. */
struct sparq_sqe *ring_client_get(struct ring_client *r);
/* Publishes everything got so far; how many. The caller then fences once and
 * looks whether the daemon sleeps (doorbell.h). */
unsigned ring_client_publish(struct ring_client *r);
/* Pointer to the completion `ahead` places past the oldest unread, NULL if not there yet. */
struct sparq_cqe *ring_client_peek(struct ring_client *r, unsigned ahead);
/* `n` completions were read. Tells the daemon when half the ring is read or the CQ is drained;
 * true if it stored cq_head, which counts as a publish (ring.md 3.3): fence, then doorbell. */
bool ring_client_seen(struct ring_client *r, unsigned n);
/* Before sleeping: tell cq_head whatever its distance; true as above. */
bool ring_client_tell(struct ring_client *r);
uint32_t ring_client_in_flight(const struct ring_client *r); /* published, not completed */

/* ---- daemon ------------------------------------------------------------- */

struct ring_daemon {
	struct ring_map map;
	uint32_t sq_head;   /* next entry to copy */
	uint32_t sq_told;
	uint32_t cq_tail;   /* next completion to write */
	uint32_t cq_head;   /* last valid snapshot of the client's word */
	uint32_t in_flight; /* entries copied whose completion is not written */
};

void ring_daemon_init(struct ring_daemon *r, const struct ring_map *map);
/* True if an entry is valid at the cursor; reads one word. */
bool ring_daemon_ready(const struct ring_daemon *r);
/* Completions that may still be promised; -EPROTO if the client's cq_head is impossible. */
int ring_daemon_credit(struct ring_daemon *r);
/* Copies the next entry into private memory if one is valid and there is credit:
 * 1 copied, 0 none (or no credit), -EPROTO. */
int ring_daemon_copy(struct ring_daemon *r, struct sparq_sqe *ret);
/* Writes one completion; `cqe->seq` is filled in. There is always room: copy reserved it. */
void ring_daemon_post(struct ring_daemon *r, const struct sparq_cqe *cqe);
/* Tells the client how far the SQ was read, when a quarter of it was or `idle`. */
void ring_daemon_tell(struct ring_daemon *r, bool idle);
