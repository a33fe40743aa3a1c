/* SPDX-License-Identifier: Apache-2.0 */
/* The order of eviction: see evict-order.h. */
#include "daemon/evict-order.h"

#include "daemon/record.h"
#include "daemon/seq.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"

static const struct sequence_record *record_of(const struct seq *s)
{
	return s->record;
}

bool evict_goes_before(enum evict_by by, const struct seq *a, const struct seq *b)
{
	const struct sequence_record *x = record_of(a), *y = record_of(b);

	if (by == BY_LFU && x->uses != y->uses)
		return x->uses < y->uses;
	if (x->used_s != y->used_s)
		return x->used_s < y->used_s;
	return a->use < b->use;
}

static const struct seq *of_lru(const struct order_node *n)
{
	return container_of(n, const struct seq, order[BY_LRU]);
}

static const struct seq *of_lfu(const struct order_node *n)
{
	return container_of(n, const struct seq, order[BY_LFU]);
}

static bool before_lru(const struct order_node *a, const struct order_node *b)
{
	return evict_goes_before(BY_LRU, of_lru(a), of_lru(b));
}

static bool before_lfu(const struct order_node *a, const struct order_node *b)
{
	return evict_goes_before(BY_LFU, of_lfu(a), of_lfu(b));
}

void evict_queues_init(struct evict_queues *q)
{
	for (unsigned kind = 0; kind < EVICT_KINDS; kind++) {
		q->by[kind][BY_LRU] = (struct order){ .before = before_lru };
		q->by[kind][BY_LFU] = (struct order){ .before = before_lfu };
	}
}

/* Nobody is attached to it, or is about to be. */
static bool is_idle(const struct seq *s)
{
	uint32_t flags = load_relaxed(&record_of(s)->flags);

	if (load_relaxed(&s->session) || s->spilling || flags & SEQUENCE_PINNED)
		return false;
	/* Only a restart has ended its session. */
	return !(flags & SEQUENCE_IN_USE && s->cache->store->reattaching);
}

static enum evict_kind kind_of(const struct seq *s)
{
	if (seq_is_prefix(s))
		return KIND_PREFIX;
	return seq_is_spilled(s) ? KIND_SPILLED : KIND_HERE;
}

void evict_displace(struct seq *s)
{
	for (unsigned by = 0; by < EVICT_BYS; by++)
		order_remove(&s->order[by]);
}

void evict_place(struct seq *s)
{
	struct evict_queues *q = &s->cache->queues;

	evict_displace(s);
	if (!s->link || !is_idle(s))
		return;
	for (unsigned by = 0; by < EVICT_BYS; by++)
		order_insert(&q->by[kind_of(s)][by], &s->order[by]);
}

bool evict_is_placed(const struct seq *s)
{
	return s->order[BY_LRU].in;
}

struct seq *evict_first(const struct cache *c, enum evict_kind kind, enum evict_by by)
{
	struct order_node *n = c->queues.by[kind][by].first;

	if (!n)
		return NULL;
	return by == BY_LRU ? container_of(n, struct seq, order[BY_LRU])
			    : container_of(n, struct seq, order[BY_LFU]);
}
