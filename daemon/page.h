/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: pages of KV memory of any size, taken and given back by control
 * thread and workers alike without a lock.
 *
 * A node's arena is cut into slabs (runs of 2 MiB); a slab serves one size
 * class while it has a page out, and is free again when the last returns. Its
 * state is one word {class, used}, its free pages a bitmap; both move by
 * compare-and-exchange. Strides are odd multiples of 64 bytes, so that equal
 * planes of successive pages never fall into one cache set.
 *
 * A page may have several holders; it comes back when the last one puts it. Who
 * shares a page does not write it: see pool_is_shared.
 *
 * What is out is derived state: after a restart, recovery marks what the
 * catalogue reaches, and the rest is free. How a slab was cut cannot be derived
 * from its pages: a note of it, a word for each unit, lies with the catalogue. A
 * note is written before the first page of its slab goes out, and says nothing
 * once the last one is back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numa/arena.h"

#define POOL_MAX_NODES 64
#define POOL_UNIT_BYTES ((size_t)2 << 20)

/* A page: node << 56 | byte offset in its arena + 1; 0 is no page. Position-independent: it
 * stands in the catalogue. */
typedef uint64_t page_ref;

struct pool_node;
struct pool {
	struct pool_node *node; /* n_nodes */
	unsigned n_nodes;
	uint64_t bytes;      /* of all arenas */
	uint64_t used_bytes; /* atomic; strides of pages out */
};
#define POOL_NULL ((struct pool){ 0 })

/* Takes the arenas (they stay the caller's to deinit, after the pool). `notes` has a word for each
 * unit of each; NULL: no restart is to find the pages again. `adopted`: the arenas and notes are of
 * a daemon before this one; nothing is out until it is marked, and what is in the pages may be
 * anybody's. -ENOMEM. */
int pool_init(struct pool *p, struct arena *arenas, unsigned n, uint64_t *notes, bool adopted);
void pool_deinit(struct pool *p);

/* What a page of `bytes` occupies: its stride. */
uint64_t pool_charge(const struct pool *p, size_t bytes);
/* A page of at least `bytes` on `node` (index; the nearest other one if it is full). -ENOSPC.
 * Zeroed if it last belonged to another uid. Never blocks. */
int pool_take(struct pool *p, unsigned node, size_t bytes, uint32_t uid, page_ref *ret);
/* One more holder of a page that the caller holds. */
void pool_ref(struct pool *p, page_ref page);
/* Is there a holder besides the caller? While the answer is no it stays no: only a holder makes
 * another one, and what former holders did with the page is over and seen. */
bool pool_is_shared(const struct pool *p, page_ref page);
/* Gives it back; its contents stay until the next owner of another uid. */
void pool_put(struct pool *p, page_ref page);
/* Recovery: the page is out again, to this uid. -EUCLEAN if there is no such page, by its place,
 * its size or the note of its slab; or if it is another's; -EEXIST if it is out already, to this
 * uid (pool_ref, if it may have several holders). One thread. */
int pool_mark(struct pool *p, page_ref page, size_t bytes, uint32_t uid);
void *pool_data(const struct pool *p, page_ref page);
unsigned pool_node_of(page_ref page);
/* Index of the node whose arena has this address, UINT32_MAX: none has. */
uint32_t pool_node_at(const struct pool *p, const void *address);
/* All nodes, this one first, then by distance. */
const uint8_t *pool_order(const struct pool *p, unsigned node);
uint64_t pool_free_bytes(const struct pool *p);
/* Strides of pages out of one node; looks at each 2 MiB of it: a millisecond for a terabyte. */
uint64_t pool_node_used_bytes(const struct pool *p, unsigned node);
