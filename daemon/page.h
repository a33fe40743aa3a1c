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
 * A striped page lies in the arenas of all nodes, its parts at the same offset in each: so it has
 * one name, and one distance leads from a part to the next for all of them. A slab of such
 * pages is a run of the same units in every arena; its state, bitmap and owners are those of
 * arena 0. Stripes are cut from the lower ends of the arenas, pages of one node from their upper
 * ends, so that what is free of one kind stays free for the other. Arenas of unequal size have
 * stripes as far as the smallest one reaches.
 *
 * Who finds his node full gets the page from the nearest one with room, and who finds no room for
 * all parts gets them side by side on one node: slower memory, no error. Both are counted.
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
 * stands in the catalogue. Of a striped one the node is POOL_STRIPED. */
typedef uint64_t page_ref;
#define POOL_STRIPED 255u

/* What is asked for: `whole` bytes on one node, or `part` on every node. */
struct page_size {
	size_t whole, part; /* part 0: not to be striped */
};

struct pool_node;
struct pool {
	struct pool_node *node; /* n_nodes */
	unsigned n_nodes;
	uint32_t stripe_units; /* of each arena, from its beginning: where stripes may be */
	uint64_t bytes;        /* of all arenas */
	uint64_t used_bytes;   /* atomic; strides of pages out, all their parts */
	uint64_t unstriped;    /* atomic; pages that had to lie on one node, since the start */
	uint64_t released;     /* atomic; counts the times that units became free */
};
#define POOL_NULL ((struct pool){ 0 })

/* Takes the arenas (they stay the caller's to deinit, after the pool). `notes` has a word for each
 * unit of each; NULL: no restart is to find the pages again. `adopted`: the arenas and notes are of
 * a daemon before this one; nothing is out until it is marked, and what is in the pages may be
 * anybody's. -ENOMEM. */
int pool_init(struct pool *p, struct arena *arenas, unsigned n, uint64_t *notes, bool adopted);
void pool_deinit(struct pool *p);

/* What such a page occupies at most, striped or not: the same for all of one size, so that what is
 * charged does not depend on where there was room. */
uint64_t pool_charge(const struct pool *p, struct page_size size);
/* Is there room for one if nothing else is out? */
bool pool_could_take(const struct pool *p, struct page_size size);
/* A page of at least that size: striped, or on `node` (index), or on the nearest other one if there
 * is no room for that. -ENOSPC. Zeroed if it last belonged to another uid. Never blocks. */
int pool_take(struct pool *p, unsigned node, struct page_size size, uint32_t uid, page_ref *ret);
/* The same on that node, or with POOL_STRIPED in all, and nowhere else. */
int pool_take_there(struct pool *p, unsigned node, struct page_size size, uint32_t uid,
		    page_ref *ret);
/* One more holder of a page that the caller holds. */
void pool_ref(struct pool *p, page_ref page);
/* Is there a holder besides the caller? While the answer is no it stays no: only a holder makes
 * another one, and what former holders did with the page is over and seen. */
bool pool_is_shared(const struct pool *p, page_ref page);
/* Gives it back; its contents stay until the next owner of another uid. False: another holder has
 * it still. */
bool pool_put(struct pool *p, page_ref page);
/* Recovery: the page is out again, to this uid. -EUCLEAN if there is no such page, by its place,
 * its size or the note of its slab; or if it is another's; -EEXIST if it is out already, to this
 * uid (pool_ref, if it may have several holders). One thread. */
int pool_mark(struct pool *p, page_ref page, struct page_size size, uint32_t uid);
/* Of a striped one: its part on node 0. */
void *pool_data(const struct pool *p, page_ref page);
unsigned pool_node_of(page_ref page); /* or POOL_STRIPED */
bool pool_is_striped(page_ref page);
/* From a striped page's part on node 0 to that on `node`. */
ptrdiff_t pool_shift(const struct pool *p, unsigned node);
/* Index of the node whose arena has this address, UINT32_MAX: none has. */
uint32_t pool_node_at(const struct pool *p, const void *address);
/* All nodes, this one first, then by distance. */
const uint8_t *pool_order(const struct pool *p, unsigned node);
uint64_t pool_free_bytes(const struct pool *p);

/* ---- one node ---- */

uint64_t pool_node_bytes(const struct pool *p, unsigned node);
uint64_t pool_node_used_bytes(const struct pool *p, unsigned node);
/* Of slabs: what is left of the node is room for pages of any size. */
uint64_t pool_node_taken_bytes(const struct pool *p, unsigned node);
/* Pages that were wanted there and found no room, since the start. */
uint64_t pool_node_strayed(const struct pool *p, unsigned node);
/* One with much room: another one at every turn, while they are about equally full. */
unsigned pool_node_choose(const struct pool *p, unsigned turn);
