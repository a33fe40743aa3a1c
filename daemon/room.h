/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room, as the token path sees it. An entry that finds none is put aside, and the
 * control thread, which alone evicts, is asked; nothing of the entry is held in the
 * meantime, so it is as if its worker had not read it yet. Only its own ring waits.
 *
 *   NONE --(worker asks)--> ASKED --(control thread)--> MADE or NOTHING
 *   MADE, NOTHING --(worker, which runs the entry again)--> NONE
 *
 * After NOTHING it fails if it still finds no room, and so it does when its deadline
 * has come first; the answer that is then under way is the next one's to see.
 *
 * That this is rare is what the marks are for: whoever charges beyond one tells
 * the control thread, once, and that makes room before it is needed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/shortage.h"
#include "shm/base.h"
#include "shm/sparq-abi.h"

struct queue;
struct seq;
struct store;

enum room_answer { ROOM_NONE, ROOM_ASKED, ROOM_MADE, ROOM_NOTHING };

struct room {                   /* of a queue */
	/* the worker's */
	bool waits; /* `entry` is put aside */
	bool asked; /* the answer will be about it */
	bool last;  /* it is run for the last time */

	uint32_t answer;        /* atomic: enum room_answer */
	struct shortage wanted; /* the worker's while NONE, the control thread's to read else */
	uint64_t deadline_ns;   /* the worker's, like what follows */
	struct sparq_sqe entry;
};

/* Above it the control thread begins to evict: a twentieth of the limit, at most 64 MiB, is what
 * steps may take until it has. */
static inline uint64_t room_mark(uint64_t limit)
{
	return limit - MIN(limit / 20, 64 * MIB);
}

/* Worker: `e` found no room for a row of `s`. True: it was put aside, and is not to be answered
 * yet. False: nobody would make any. */
bool room_wait(struct store *st, struct queue *q, const struct sparq_sqe *e, uint64_t deadline_ns,
	       const struct seq *s);
/* Worker, of a queue that waits: is it time to run the entry again? */
bool room_is_due(struct queue *q);
/* Worker: it was, and was answered; or its session has ended. */
void room_done(struct queue *q);

/* Whoever has just charged `s`: tells the control thread of a mark that was passed. */
void room_watch(const struct seq *s);
