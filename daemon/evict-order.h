/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes first: the sequences of a cache that nobody is attached to, in order. What decides
 * whether one may go is the same for all of a kind, so kinds stand apart, and the first of a kind
 * is all that has to be looked at; and by both orders, for a user who lacks room evicts among all
 * of his caches in the order of the one that lacks it. Control thread.
 */
#pragma once

#include "daemon/order.h"

struct cache;
struct seq;

enum evict_kind {
	KIND_PREFIX,  /* nobody's, kept for others to begin with */
	KIND_HERE,    /* parked, in memory */
	KIND_SPILLED, /* parked, in a file */
	EVICT_KINDS
};

enum evict_by { BY_LRU, BY_LFU, EVICT_BYS };

struct evict_queues {
	struct order by[EVICT_KINDS][EVICT_BYS];
};

void evict_queues_init(struct evict_queues *q);
/* Where it stands by what it is now, which has changed; nowhere if it is in use, pinned, or on its
 * way to a file or from one. */
void evict_place(struct seq *s);
/* Before it goes, or before a word changes that it is ordered by. */
void evict_displace(struct seq *s);
bool evict_is_placed(const struct seq *s);
/* NULL: none of that kind. */
struct seq *evict_first(const struct cache *c, enum evict_kind kind, enum evict_by by);
/* a goes before b. */
bool evict_goes_before(enum evict_by by, const struct seq *a, const struct seq *b);
