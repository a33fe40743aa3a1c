/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of sequences, moved to other nodes while everybody works: who decides what goes where is
 * rebalance.h.
 *
 * A move takes a page on its goal, copies, and stores the new name over the old one: one word, so
 * that a crash finds the rows in one place or the other. What nobody writes any more (a sealed
 * extent that is full) is copied while its sequence is used; all else (sinks, tail, the extent that
 * is being filled) while the sequence is held, which lasts as long as a flush. Workers that want it
 * wait, and are not told.
 *
 *   named in a table that others reach too  --(renamed)-->  waiting
 *   waiting --(each sequence was seen idle once)--> put
 *
 * A step reads names under the hold of its sequence and uses the pages until its end. So a page
 * that lost its name is put at once where the mover's hold is the only one that could reach it, and
 * else when every sequence has been without a holder once, and no audit goes on that a step has
 * begun before (audit.h). There are few of those at a time; while they wait, tables that others
 * reach too stay as they are.
 *
 * Not moved: a page with several holders (forks that share a tail, tables that share an extent),
 * the corrections of a table, and what a save or a spill has in hand.
 *
 * Control thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/page.h"

struct seq;
struct store;

#define MOVE_STAY UINT32_MAX
#define MOVE_WAITING 32u
/* What is copied while its sequence is held and has a session. */
#define MOVE_HELD_BYTES ((size_t)1 << 20)

/* A page that lost its name. */
struct move_left {
	page_ref page;
	uint64_t cache; /* id */
	uint64_t bytes; /* charged for it, if it turns out that another table has it */
};

struct mover {
	struct store *store;
	/* Where the page is to go: a node, POOL_STRIPED, or MOVE_STAY. `home` is what the placement
	 * of its cache says. */
	unsigned (*goal)(void *arg, const struct seq *s, unsigned home, page_ref page,
			 uint64_t bytes);
	void *arg;
	uint32_t round; /* a table that others reach too is gone through once in each */
	uint64_t moved_pages, moved_bytes; /* since the start */
	uint64_t refused; /* of what `goal` wanted: in use, shared, or no room after all */
	struct move_left left[MOVE_WAITING];
	uint32_t n_left, n_passing; /* the first of them are waited for */
	uint32_t slot;              /* the sequence that is looked at next for them */
};

/* A place in a sequence; zeroed: its beginning. */
struct move_at {
	uint32_t layer, page; /* of sinks and tail */
	uint32_t depth, entry;
};

/* Looks at the pages of a sequence from *at on, at *looks of them at most (counted down), and moves
 * one. Its bytes; 0: there is none any more; -EAGAIN: there may be, of which *at is the next;
 * -EBUSY: somebody is in it. */
int64_t move_next(struct mover *m, struct seq *s, struct move_at *at, uint32_t *looks);
/* Puts what nobody can have in hand any more; how many pages are left. */
uint32_t move_put_left(struct mover *m, uint32_t slots);
/* At the end: no worker runs. */
void move_end(struct mover *m);
