/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where pages of KV lie, put right while everybody works (move.h): what was taken while its node
 * was full comes home when there is room again, and a node that runs full hands pages to the
 * emptiest one, so that heads and rows which must lie there find room.
 *
 *   resting --(pages strayed, or some were left)--> homing: all sequences are gone through
 *   resting --(a node is full, another is not)----> relieving: until it is not
 *   homing, relieving --(all gone through)--------> resting, for longer if it was in vain
 *
 * Three marks of a node's memory, so that no page goes to and fro: from rebalance_full percent on
 * it is full; it is relieved at 5 points less; below 10 points less its pages may come home, and
 * others' may come to it.
 *
 * Who is relieved of what: whole pages on the full node, first of sequences that nobody is attached
 * to, then of those with placement=local. Striped pages stay: they are on all nodes alike.
 *
 * Control thread, a millisecond at a time at the most but for a page that takes longer, and slower
 * than rebalance_rate. With one node, or while nobody is connected and nothing is left to do, there
 * is no timer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/config.h"
#include "daemon/loop.h"
#include "daemon/move.h"

enum rebalance_state { REBALANCE_RESTING, REBALANCE_HOMING, REBALANCE_RELIEVING, REBALANCE_STATES };

struct rebalance {
	struct loop *loop;
	const struct config *config;
	const struct arena *arena; /* of the pool's nodes */
	struct mover mover;
	struct loop_timer timer;
	enum rebalance_state state;
	bool watched;                 /* there are sessions */
	bool attached;                /* relieving: sequences in use have their turn */
	bool told;                    /* that a node is full, and nothing could go */
	unsigned full;                /* relieving: the node */
	unsigned goal;                /* and where its pages go */
	int64_t room[POOL_MAX_NODES]; /* below the mark up to which pages may come */
	uint64_t relief;              /* bytes that are to go */
	uint32_t slot;                /* whose turn it is */
	struct move_at at;
	uint64_t strays;                     /* of the pool, when the last round over all began */
	uint64_t began_pages, began_refused; /* of the mover, when the round began */
	uint64_t away, left_away; /* pages not at home: seen in this round, after the last one */
	bool known;               /* left_away is: a round over all has ended */
	bool relieved;            /* since then */
	bool busy, again;         /* not all could be looked at: in this round, in the last one */
	struct rebalance_rest {
		uint64_t ns, until_ns;
	} rest[REBALANCE_STATES]; /* before it is done again */
};

/* `arena` is of the pool's nodes, in its order. */
void rebalance_init(struct rebalance *r, struct loop *loop, struct store *st,
		    const struct arena *arena, const struct config *c);
/* Workers have ended. */
void rebalance_end(struct rebalance *r);
/* There are sessions, or there are none any more. */
void rebalance_watch(struct rebalance *r, bool sessions);
/* Pages that do not lie where their placement says, after the last look at all; false: there was
 * none yet. */
bool rebalance_away(const struct rebalance *r, uint64_t *ret);
