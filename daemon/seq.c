/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences as the control thread sees them: made, forked, cut, dropped; and the
 * hold under which a worker or the control thread is the only writer.
 *
 * owner: 0 idle; CONTROL; SETTLING; or ring << 32 | entries in flight.
 */
#include "daemon/seq.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "daemon/charge.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

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

static int take_control(struct seq *s, char *why)
{
	if (seq_try_control(s))
		return 0;
	return why_fail(why, EBUSY, "the sequence has entries in flight");
}

/* ---- making ----------------------------------------------------------------------- */

static const char *name_of(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->name;
}

static struct seq *find_named(struct cache *c, const char *name)
{
	for (struct seq *s = c->first; s; s = s->next)
		if (*name && !strcmp(name_of(s), name))
			return s;
	return NULL;
}

/* What is out of a slot's sequence, back; the record FREE again. Takes half-built ones. */
static void unmake(struct seq *s, uint32_t slot)
{
	struct cache *c = s->cache;
	struct sequence_record *r = s->record;

	store_release(&r->state, RECORD_DYING);
	POINT(drop_begin);
	for (uint32_t i = 0; s->layer && i < r->layers; i++)
		if (s->layer[i].record)
			layer_clear(s, &s->layer[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(r->block); i++)
		if (r->block[i])
			charge_block_put(s, r->block[i]);
	POINT(drop_blocks);
	assert(load_relaxed(&s->bytes) == 0);
	free(s->layer);
	s->layer = NULL;
	s->record = NULL;
	catalogue_drop_sequence(c->store->catalogue, slot);
	user_refund(c->user, USER_SEQUENCES, 1);
}

static int make_layers(struct seq *s)
{
	struct sequence_record *r = s->record;
	struct layer_record *record = NULL;

	s->layer = calloc(r->layers, sizeof(*s->layer));
	if (!s->layer)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->layers; i++) {
		if (i % LAYERS_PER_BLOCK == 0) {
			uint32_t *block = &r->block[i / LAYERS_PER_BLOCK];
			int error;

			error = charge_block(s, block);
			if (error < 0)
				return error;
			record = catalogue_block(s->cache->store->catalogue, *block);
			memset(record, 0, CATALOGUE_BLOCK);
		}
		layer_init(s, &s->layer[i], record++);
	}
	return 0;
}

/* The heap's part of a slot: there from its first sequence on. */
static struct seq *seq_of_slot(struct store *st, uint32_t slot)
{
	struct seq *s = st->seq_by_slot[slot];

	if (!s) {
		s = calloc(1, sizeof(*s));
		/* A worker that looks sees no id in it yet. */
		store_release(&st->seq_by_slot[slot], s);
	}
	return s;
}

static void fill_record(struct sequence_record *r, const struct cache *c, const char *name,
			unsigned node)
{
	r->cache_slot = id_slot(c->id);
	r->cache_generation = c->record->generation;
	r->layers = c->record->layers;
	r->node = node;
	snprintf(r->name, sizeof(r->name), "%s", name);
}

/* Says why, and leaves the limit where who can make room finds it. */
static int fail_make(struct cache *c, int error, const struct shortage *s, const char *what,
		     char *why)
{
	if (error != -ENOSPC)
		return why_fail(why, -error, "%s: %s", what, strerror(-error));
	c->store->shortage = *s;
	return shortage_fail(s, c, what, why);
}

static int take_slot(struct cache *c, uint32_t *ret_slot, char *why)
{
	int r;

	if (user_charge(c->user, USER_SEQUENCES, 1) < 0)
		return fail_make(c, -ENOSPC, &(struct shortage){ LIMIT_SEQUENCES, 0 }, "sequences",
				 why);
	r = catalogue_take_sequence(c->store->catalogue, ret_slot);
	if (r < 0) {
		user_refund(c->user, USER_SEQUENCES, 1);
		return fail_make(c, r, &(struct shortage){ LIMIT_SLOTS, 0 }, "sequences", why);
	}
	return 0;
}

/* An empty sequence that nobody can see yet. */
static int make(struct cache *c, const char *name, unsigned node, struct seq **ret, char *why)
{
	struct store *st = c->store;
	struct seq *s;
	uint32_t slot;
	int r;

	r = take_slot(c, &slot, why);
	if (r < 0)
		return r;
	s = seq_of_slot(st, slot);
	if (!s) {
		catalogue_drop_sequence(st->catalogue, slot);
		user_refund(c->user, USER_SEQUENCES, 1);
		return why_fail(why, ENOMEM, "out of memory");
	}
	s->cache = c;
	s->node = node;
	s->bytes = 0;
	s->record = catalogue_sequence(st->catalogue, slot);
	fill_record(s->record, c, name, node);
	POINT(create_filled);
	r = make_layers(s);
	if (r < 0) {
		unmake(s, slot);
		return fail_make(c, r, &s->shortage, "sequence", why);
	}
	*ret = s;
	return 0;
}

static uint32_t slot_of(const struct seq *s)
{
	const struct store *st = s->cache->store;
	const struct sequence_record *first = catalogue_sequence(st->catalogue, 0);

	return (uint32_t)((const struct sequence_record *)s->record - first);
}

static void publish(struct seq *s, uint64_t session)
{
	struct cache *c = s->cache;
	struct sequence_record *r = s->record;
	uint32_t slot = slot_of(s);

	POINT(create_made);
	catalogue_publish_sequence(c->store->catalogue, slot);
	POINT(create_published);
	s->next = c->first;
	c->first = s;
	c->n_sequences++;
	store_relaxed(&s->session, session);
	/* Last: a worker that sees the id sees everything before it. */
	store_release(&s->id, id_make(slot, r->generation));
}

int seq_create(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why)
{
	struct store *st = c->store;
	struct seq *s;
	int r;

	r = *name ? name_check("sequence", name, why) : 0;
	if (r < 0)
		return r;
	if (find_named(c, name))
		return why_fail(why, EEXIST, "sequence \"%s\" exists; attach to it, or drop it",
				name);
	r = make(c, name, st->next_node % st->pool->n_nodes, &s, why);
	if (r < 0)
		return r;
	st->next_node++;
	publish(s, session);
	*ret = s;
	return 0;
}

int seq_attach(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why)
{
	struct seq *s;
	int r;

	r = name_check("sequence", name, why);
	if (r < 0)
		return r;
	s = find_named(c, name);
	if (!s)
		return why_fail(why, ENOENT, "no sequence \"%s\" in this cache", name);
	if (load_relaxed(&s->session))
		return why_fail(why, EBUSY, "sequence \"%s\" is attached to %s session", name,
				load_relaxed(&s->session) == session ? "this" : "another");
	store_release(&s->session, session);
	*ret = s;
	return 0;
}

static uint32_t least_rows(const struct seq *s)
{
	uint32_t least = UINT32_MAX;

	for (uint32_t i = 0; i < s->cache->record->layers; i++)
		least = MIN(least, layer_commit(&s->layer[i]).rows);
	return least;
}

static int fork_held(struct seq *parent, uint32_t rows, struct seq **ret, char *why)
{
	struct cache *c = parent->cache;
	struct seq *s = NULL;
	int r;

	if (rows > least_rows(parent))
		return why_fail(why, EINVAL, "rows %u: the parent has %u in every layer", rows,
				least_rows(parent));
	r = make(c, "", parent->node, &s, why);
	if (r < 0)
		return r;
	for (uint32_t i = 0; r == 0 && i < c->record->layers; i++)
		r = layer_fork(parent, s, i, rows);
	if (r < 0) {
		unmake(s, slot_of(s));
		return fail_make(c, r, &s->shortage, "fork", why);
	}
	POINT(fork_made);
	*ret = s;
	return 0;
}

int seq_fork(struct seq *parent, uint32_t rows, uint64_t session, struct seq **ret, char *why)
{
	struct seq *s = NULL;
	int r;

	r = take_control(parent, why);
	if (r < 0)
		return r;
	r = fork_held(parent, rows, &s, why);
	seq_end_control(parent);
	if (r < 0)
		return r;
	publish(s, session);
	POINT(fork_end);
	*ret = s;
	return 0;
}

/* ---- cutting, dropping ------------------------------------------------------------- */

int seq_truncate(struct seq *s, uint32_t rows, char *why)
{
	int r;

	r = take_control(s, why);
	if (r < 0)
		return r;
	r = seq_cut(s, SPARQ_LAYER_ALL, rows);
	if (r < 0)
		why_fail(why, -r, "rows %u: the sequence has %u in every layer", rows,
			 least_rows(s));
	seq_end_control(s);
	return r;
}

static void drop_held(struct seq *s)
{
	struct cache *c = s->cache;
	struct seq **at = &c->first;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	c->n_sequences--;
	/* From here on no worker takes it; one that was about to finds another id under its hold.
	 */
	store_release(&s->id, 0);
	store_relaxed(&s->session, 0);
	unmake(s, slot_of(s));
	POINT(drop_end);
	s->cache = NULL;
	s->next = NULL;
	seq_end_control(s);
	cache_drop_unused(c);
}

int seq_drop(struct seq *s, char *why)
{
	int r;

	r = take_control(s, why);
	if (r < 0)
		return r;
	drop_held(s);
	return 0;
}

void seq_release_session(struct store *st, uint64_t session)
{
	struct cache *c, *next_cache;

	for (c = st->caches; c; c = next_cache) {
		struct seq *s, *next;

		next_cache = c->next;
		for (s = c->first; s; s = next) {
			next = s->next;
			if (load_relaxed(&s->session) != session)
				continue;
			store_release(&s->session, 0);
			if (c->on_disconnect == ON_DISCONNECT_PARK)
				continue;
			/* Fenced: nobody is in it, but for a worker that looked up what its slot
			 * held before and is about to find another id. c lives as long as next
			 * does. */
			while (!seq_try_control(s))
				sched_yield();
			drop_held(s);
		}
	}
}

void seq_forget(struct seq *s)
{
	if (!s)
		return;
	free(s->layer);
	free(s);
}

/* ---- asking ------------------------------------------------------------------------ */

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

int seq_stat(struct seq *s, uint32_t layer, struct sparq_msg_seq_stat *ret)
{
	uint32_t layers = s->cache->record->layers, least = UINT32_MAX, most = 0;

	if (layer >= layers && layer != SPARQ_LAYER_ALL)
		return -EINVAL;
	for (uint32_t i = 0; i < layers; i++) {
		uint32_t rows = layer_commit(&s->layer[i]).rows;

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
	ret->rsv = 0;
	return 0;
}
