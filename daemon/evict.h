/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction: who lacks room gets that of sequences which nobody is attached to. Parked
 * ones go if their cache says in which order (evict=lru, evict=lfu); prefixes, which
 * were kept on nobody's order, go from any. What is pinned or in use stays.
 *
 * A cache that has spent its budget evicts in itself. A user who has spent the quota,
 * or who meets a full pool or catalogue, evicts among all of his own caches, never
 * another's: that somebody else takes much is no reason to lose what one has.
 *
 * Where there is a spill directory, what is parked goes there rather than away, whatever
 * its cache says of eviction: nothing is lost by it. That takes a while, so who can wait
 * is told LATER, and looks again when a spill has ended.
 *
 * The control thread alone attaches, forks and evicts, so none of these meets another
 * half-way. A worker that still looks for a dropped id finds another one under its hold,
 * as with any drop; and a crash finds the sequence there whole or DYING, which is none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/log.h"
#include "daemon/seq.h"
#include "daemon/shortage.h"

struct session;

struct evict_sum {
	uint64_t sequences, bytes;
};

struct evictor {
	struct store *store;
	struct evict_sum sum[LIMITS]; /* by what room was made for; LIMIT_NONE: ahead of need */
	struct log_limit log;
};

/* All of it on the control thread. Workers ask from here on; -errno. */
int evict_init(struct evictor *e, struct store *st);
void evict_deinit(struct evictor *e);

enum evicted {
	EVICTED_NOTHING, /* nothing may go */
	EVICTED_SOME,    /* it is worth trying again */
	EVICTED_LATER,   /* enough is on its way to a file */
};

/* Makes room at once, without spilling; true: it is worth trying again. */
bool evict_for(struct evictor *e, struct user *u, const struct shortage *s);
/* The same for a control call that has just failed, by what it left in the store. */
bool evict_again(struct evictor *e, struct user *u);
/* For one that can wait; and the same for a control call, by what it left. */
enum evicted evict_or_spill_for(struct evictor *e, struct user *u, const struct shortage *s);
enum evicted evict_or_spill(struct evictor *e, struct user *u);
/* Answers the rings of a session that wait for room; true: its worker is to be woken. Those for
 * whom it comes later stay, and are looked at again by the next call. */
bool evict_answer(struct evictor *e, struct session *s);
/* What is above its mark; a part of it at a time, and calls itself again if there is more. */
void evict_ahead(struct evictor *e);

/* All who wait are looked at again, from the control loop. */
void evict_call(const struct evictor *e);

/* The sequence is used now: an order of eviction depends on it. */
void evict_touch(struct seq *s);
/* Nobody is attached to it any more: it may be evicted. */
void evict_offer(struct seq *s);
/* There may be something in the cache that was not there to be evicted before. */
void evict_allow(struct cache *c);
bool evict_is_pinned(const struct seq *s);
void evict_pin(struct seq *s, bool pinned);
