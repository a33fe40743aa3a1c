/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences as the control thread sees them: cut, dropped, asked; and the hold
 * under which a worker or the control thread is the only writer.
 *
 * owner: 0 idle; CONTROL; SETTLING; or ring << 32 | entries in flight.
 */
#include "daemon/seq.h"

#include <assert.h>
#include <sched.h>

#include "daemon/audit.h"
#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/prefix.h"
#include "daemon/seq-make.h"
#include "daemon/spill.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define OWNER_CONTROL ((uint64_t)UINT32_MAX << 32)
#define OWNER_SETTLING (OWNER_CONTROL + 1)
#define PAUSES_BEFORE_YIELD 100

/* ---- holding ---------------------------------------------------------------------- */

/* A worker is writing the tile that its last entry completed; it waits for nobody. */
static uint64_t settled_owner(const struct seq *s)
{
	uint64_t owner;

	for (uint32_t i = 0; (owner = load_relaxed(&s->owner)) == OWNER_SETTLING; i++) {
		if (i < PAUSES_BEFORE_YIELD)
			cpu_pause();
		else
			sched_yield();
	}
	return owner;
}

/* Another client begins with its rows: that takes a few microseconds, when it is idle. */
static void let_borrow(const struct seq *s)
{
	for (uint32_t i = 0; load_relaxed(&s->wanted); i++) {
		if (i < PAUSES_BEFORE_YIELD)
			cpu_pause();
		else
			sched_yield();
	}
}

bool seq_try_borrow(struct seq *s, int64_t until_ns)
{
	uint64_t owner = load_relaxed(&s->owner);
	uint32_t i = 0;

	/* Its worker stops at its next entry; without that, one that is always busy would always
	 * be first. */
	store_relaxed(&s->wanted, 1u);
	while (owner || !compare_exchange(&s->owner, &owner, OWNER_SETTLING)) {
		/* Our own long hold: nobody ends it while this waits. */
		if (owner == OWNER_CONTROL || clock_now_ns() > until_ns)
			break;
		if (i++ < PAUSES_BEFORE_YIELD)
			cpu_pause();
		else
			sched_yield();
		owner = load_relaxed(&s->owner);
	}
	store_relaxed(&s->wanted, 0u);
	return owner == 0;
}

void seq_end_borrow(struct seq *s)
{
	assert(load_relaxed(&s->owner) == OWNER_SETTLING);
	store_release(&s->owner, 0);
}

bool seq_try_control(struct seq *s)
{
	uint64_t idle = 0;

	if (settled_owner(s))
		return false;

	/* Acquires what the holder before did to the layers. */
	return compare_exchange(&s->owner, &idle, OWNER_CONTROL);
}

void seq_end_control(struct seq *s)
{
	assert(load_relaxed(&s->owner) == OWNER_CONTROL);
	store_release(&s->owner, 0);
}

static bool is_of(const struct seq *s, uint64_t session, uint64_t id)
{
	return load_acquire(&s->id) == id && load_relaxed(&s->session) == session;
}

int seq_hold(struct store *st, uint64_t session, uint64_t id, uint32_t ring, struct seq **ret)
{
	uint64_t owner, mine = (uint64_t)ring << 32;
	struct seq *s;

	assert(ring && ring != UINT32_MAX);
	if (!session || !id || id_slot(id) >= st->max_sequences)
		return -ENOENT;
	s = load_acquire(&st->seq_by_slot[id_slot(id)]);
	/* Before it is touched: who may not have it must not be in its owner's way. */
	if (!s || !is_of(s, session, id))
		return -ENOENT;
	owner = settled_owner(s);
	do {
		if (owner == OWNER_SETTLING)
			owner = settled_owner(s);
		if (owner && (owner >> 32 != ring || (uint32_t)owner == UINT32_MAX))
			return -EBUSY;
		if (!owner && unlikely(load_relaxed(&s->wanted)))
			let_borrow(s);
	} while (!compare_exchange(&s->owner, &owner, (owner ? owner : mine) + 1));
	/* It may have been dropped, and the slot used again, in between. */
	if (!is_of(s, session, id)) {
		seq_release(s);
		return -ENOENT;
	}
	*ret = s;
	return 0;
}

void seq_settle(struct seq *s)
{
	assert((uint32_t)load_relaxed(&s->owner) == 1 && load_relaxed(&s->owner) < OWNER_CONTROL);
	store_release(&s->owner, OWNER_SETTLING);
}

void seq_release(struct seq *s)
{
	uint64_t owner = load_relaxed(&s->owner), to;

	if (owner == OWNER_SETTLING) {
		store_release(&s->owner, 0);
		return;
	}
	do {
		assert((uint32_t)owner > 0 && owner < OWNER_CONTROL);
		to = (uint32_t)owner == 1 ? 0 : owner - 1;
	} while (!compare_exchange(&s->owner, &owner, to));
}

int seq_take_control(struct seq *s, char *why)
{
	if (seq_try_control(s))
		return 0;
	return why_fail(why, EBUSY, "the sequence has entries in flight");
}

uint32_t seq_least_rows(const struct seq *s)
{
	uint32_t least = UINT32_MAX;

	for (uint32_t i = 0; i < s->cache->record->layers; i++)
		least = MIN(least, layer_commit(&s->layer[i]).rows);
	return least;
}

/* ---- cutting, dropping ------------------------------------------------------------- */

int seq_truncate(struct seq *s, uint32_t rows, char *why)
{
	int r;

	r = seq_take_control(s, why);
	if (r < 0)
		return r;
	r = seq_cut(s, SPARQ_LAYER_ALL, rows);
	if (r < 0)
		why_fail(why, -r, "rows %u: the sequence has %u in every layer", rows,
			 seq_least_rows(s));
	seq_end_control(s);
	return r;
}

void seq_remove(struct seq *s)
{
	struct cache *c = s->cache;

	audit_drop(c->store->auditor, s);
	census_leave(s);
	/* From here on no worker takes it; one that was about to finds another id under its hold.
	 */
	store_release(&s->id, 0);
	store_relaxed(&s->session, 0);
	seq_unmake(s);
	POINT(drop_end);
	s->cache = NULL;
	seq_end_control(s);
	cache_drop_unused(c);
}

int seq_drop(struct seq *s, char *why)
{
	int r;

	r = seq_take_control(s, why);
	if (r < 0)
		return r;
	seq_remove(s);
	return 0;
}

/* Held by the control thread; it is no longer then. */
static void retire_held(struct seq *s)
{
	if (prefix_keep(s))
		seq_end_control(s);
	else
		seq_remove(s);
}

int seq_retire(struct seq *s, char *why)
{
	int r;

	r = seq_take_control(s, why);
	if (r < 0)
		return r;
	retire_held(s);
	return 0;
}

void seq_release_session(struct store *st, uint64_t session)
{
	struct cache *c, *next_cache;

	for (c = st->caches; c; c = next_cache) {
		struct seq *s, *next;

		next_cache = c->next;
		for (s = c->attached; s; s = next) {
			next = s->next_attached;
			if (load_relaxed(&s->session) != session)
				continue;
			census_attach(s, 0);
			if (c->on_disconnect == ON_DISCONNECT_PARK) {
				evict_offer(s);
				continue;
			}
			/* Fenced: nobody is in it, but for a worker that looked up what its slot
			 * held before and is about to find another id. c lives as long as next
			 * does. */
			while (!seq_try_control(s))
				sched_yield();
			retire_held(s);
		}
	}
}

bool seq_is_known(const struct seq *s)
{
	const struct sequence_record *r = s->record;

	return r->name[0] || r->tokens != BLOCK_NONE;
}

bool seq_expire(struct seq *s)
{
	if (load_relaxed(&s->session) || seq_is_prefix(s) || !seq_try_control(s))
		return false;
	retire_held(s);
	return true;
}

void seq_forget(struct seq *s)
{
	if (!s)
		return;
	prefix_free(s);
	free(s->layer);
	free(s);
}

/* ---- asking ------------------------------------------------------------------------ */

bool seq_is_prefix(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->flags & SEQUENCE_PREFIX;
}

struct seq *seq_find(struct store *st, const struct user *user, uint64_t session, uint64_t id)
{
	struct seq *s;

	if (!id || id_slot(id) >= st->max_sequences)
		return NULL;
	s = st->seq_by_slot[id_slot(id)];
	if (!s || s->id != id || s->cache->user != user || load_relaxed(&s->session) != session)
		return NULL;
	return s;
}

uint32_t seq_told(const struct seq *s, uint32_t layer)
{
	const struct seq_layer *l = &s->layer[layer];

	return seq_is_spilled(s) ? l->record->spilled_rows : layer_commit(l).rows;
}

int seq_stat(struct seq *s, uint32_t layer, struct sparq_msg_seq_stat *ret)
{
	uint32_t layers = s->cache->record->layers, least = UINT32_MAX, most = 0;

	if (layer >= layers && layer != SPARQ_LAYER_ALL)
		return -EINVAL;
	for (uint32_t i = 0; i < layers; i++) {
		uint32_t rows = seq_told(s, i);

		if (layer != SPARQ_LAYER_ALL && layer != i)
			continue;
		least = MIN(least, rows);
		most = MAX(most, rows);
	}
	ret->sequence = s->id;
	ret->rows_least = least;
	ret->rows_most = most;
	ret->bytes = load_relaxed(&s->bytes);
	ret->node = (int32_t)s->node;
	ret->flags = evict_is_pinned(s) ? SPARQ_SEQ_PINNED : 0;
	return 0;
}
