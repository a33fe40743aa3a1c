/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goes round the pool and asks where its pages are: what was verified when it was made may
 * have been moved since (migratepages(8), a cpuset that shrank, memory taken offline).
 *
 *   resting --(a minute is over, steps were made)--> under way, a slice each 250 ms
 *   resting, under way --(asked)--> hurried, a slice each millisecond
 *   under way, hurried --(all seen)--> resting
 *
 * Control thread, in slices of a fraction of a millisecond. While no step is made nothing is
 * done, unless somebody asks.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/loop.h"
#include "daemon/placement.h"

struct patrol {
	struct loop *loop;
	struct placement *placement;
	uint64_t (*steps)(void *arg); /* made so far, by anybody */
	void *arg;

	struct loop_timer timer;
	unsigned node; /* where it is: index of the arena, and page in it */
	size_t page;
	size_t found;     /* of this arena, so far */
	uint64_t seen;    /* steps when it last looked */
	uint64_t rest_ns; /* until then */
	bool hurried, repairs, watched;
	bool told;   /* that pages are misplaced */
	bool broken; /* it cannot ask; goes on only when asked */

	uint64_t rounds, ended_ns; /* complete ones; the last one's end, CLOCK_MONOTONIC */
};
#define PATROL_NULL ((struct patrol){ .timer = LOOP_TIMER_NULL })

void patrol_init(struct patrol *p, struct loop *loop, struct placement *placement,
		 uint64_t (*steps)(void *arg), void *arg);
/* There are sessions, or there are none any more. */
void patrol_watch(struct patrol *p, bool sessions);
/* A round now; `repair`: brings pages back to their nodes. One that is under way begins anew. */
void patrol_ask(struct patrol *p, bool repair);
/* A round that was asked for has not ended. */
bool patrol_is_hurried(const struct patrol *p);
