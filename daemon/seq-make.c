/* SPDX-License-Identifier: Apache-2.0 */
/* How sequences come to be and cease to be: see seq-make.h. */
#include "daemon/seq-make.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "daemon/census.h"
#include "daemon/charge.h"
#include "daemon/evict.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/spill.h"
#include "daemon/stats.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"

static const char *name_of(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->name;
}

static uint32_t slot_of(const struct seq *s)
{
	const struct store *st = s->cache->store;
	const struct sequence_record *first = catalogue_sequence(st->catalogue, 0);

	return (uint32_t)((const struct sequence_record *)s->record - first);
}

void seq_unmake(struct seq *s)
{
	struct cache *c = s->cache;
	struct sequence_record *r = s->record;
	uint32_t slot = slot_of(s);

	store_release(&r->state, RECORD_DYING);
	POINT(drop_begin);
	tokens_clear(s);
	if (r->spilled)
		spill_forget(c->store->spill, s);
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
	if (s->stats)
		stats_page_begin(s->stats, 0, 0, 0, "");
	s->stats = NULL;
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

int seq_fail_make(struct cache *c, int error, const struct shortage *s, const char *what, char *why)
{
	if (error != -ENOSPC)
		return why_fail(why, -error, "%s: %s", what, strerror(-error));
	c->store->shortage = *s;
	return shortage_fail(s, c, what, why);
}

int seq_fail_made(struct seq *s, int error, const char *what, char *why)
{
	/* Else there would seem to be room for the last of it, without any being made. */
	s->shortage.bytes += load_relaxed(&s->bytes);
	seq_unmake(s);
	return seq_fail_make(s->cache, error, &s->shortage, what, why);
}

static int take_slot(struct cache *c, uint32_t *ret_slot, char *why)
{
	const struct shortage of_user = { LIMIT_SEQUENCES, c->id, 0 };
	const struct shortage of_all = { LIMIT_SLOTS, c->id, 0 };
	int r;

	if (user_charge(c->user, USER_SEQUENCES, 1) < 0)
		return seq_fail_make(c, -ENOSPC, &of_user, "sequences", why);
	r = catalogue_take_sequence(c->store->catalogue, ret_slot);
	if (r < 0) {
		user_refund(c->user, USER_SEQUENCES, 1);
		return seq_fail_make(c, r, &of_all, "sequences", why);
	}
	return 0;
}

int seq_make(struct cache *c, const char *name, unsigned node, struct seq **ret, char *why)
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
	s->tokens = (struct tokens){ 0 };
	s->record = catalogue_sequence(st->catalogue, slot);
	fill_record(s->record, c, name, node);
	POINT(create_filled);
	r = make_layers(s);
	if (r < 0)
		return seq_fail_made(s, r, "sequence", why);
	*ret = s;
	return 0;
}

/* From here on its steps are counted, from 0. */
static void begin_stats(struct seq *s)
{
	const struct sequence_record *r = s->record;
	const struct cache *c = s->cache;

	s->stats = stats_page_block(c->store->stats, STATS_SEQUENCE, slot_of(s));
	if (s->stats)
		stats_page_begin(s->stats, id_make(slot_of(s), r->generation), c->id, c->user->uid,
				 r->name);
}

static void enlist(struct seq *s, uint64_t session)
{
	const struct sequence_record *r = s->record;

	begin_stats(s);
	store_relaxed(&s->session, session);
	census_enter(s);
	/* Last: a worker that sees the id sees everything before it. */
	store_release(&s->id, id_make(slot_of(s), r->generation));
}

void seq_publish(struct seq *s, uint64_t session)
{
	POINT(create_made);
	catalogue_publish_sequence(s->cache->store->catalogue, slot_of(s));
	POINT(create_published);
	enlist(s, session);
	evict_touch(s);
}

void seq_unname(struct seq *s, uint32_t flags)
{
	struct sequence_record *r = s->record;

	census_unname(s);
	census_pin(s, flags & SEQUENCE_PINNED);
	store_release(&r->state, RECORD_BUILDING);
	memset(r->name, 0, sizeof(r->name));
	r->flags = flags;
	catalogue_publish_sequence(s->cache->store->catalogue, slot_of(s));
	evict_place(s);
}

int seq_check_new(struct cache *c, const char *name, char *why)
{
	int r = *name ? name_check("sequence", name, why) : 0;

	if (r < 0)
		return r;
	if (names_find(c, name))
		return why_fail(why, EEXIST, "sequence \"%s\" exists; attach to it, or drop it",
				name);
	return 0;
}

int seq_make_next(struct cache *c, const char *name, struct seq **ret, char *why)
{
	struct store *st = c->store;
	int r = seq_make(c, name, pool_node_choose(st->pool, st->next_node), ret, why);

	st->next_node += r == 0;
	return r;
}

int seq_build(struct cache *c, const char *name, struct seq **ret, char *why)
{
	int r = seq_check_new(c, name, why);

	if (r == 0)
		r = seq_make_next(c, name, ret, why);
	if (r < 0)
		return r;
	/* So that the cache stays, and stays as it is. */
	c->n_sequences++;
	return 0;
}

int seq_build_end(struct seq *s, uint64_t session, char *why)
{
	/* Somebody else may have taken the name meanwhile. */
	int r = seq_check_new(s->cache, name_of(s), why);

	if (r < 0)
		return r;
	s->cache->n_sequences--;
	seq_publish(s, session);
	return 0;
}

void seq_build_drop(struct seq *s)
{
	struct cache *c = s->cache;

	seq_unmake(s);
	s->cache = NULL;
	c->n_sequences--;
	cache_drop_unused(c);
}

int seq_create(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why)
{
	int r = seq_build(c, name, ret, why);

	return r < 0 ? r : seq_build_end(*ret, session, why);
}

int seq_find_named(struct cache *c, const char *name, struct seq **ret, char *why)
{
	struct seq *s;
	int r;

	r = name_check("sequence", name, why);
	if (r < 0)
		return r;
	s = names_find(c, name);
	if (!s)
		return why_fail(why, ENOENT, "no sequence \"%s\" in this cache", name);
	*ret = s;
	return 0;
}

/* ---- after a restart ---------------------------------------------------------------- */

int seq_revive(struct cache *c, uint32_t slot, struct seq **ret)
{
	struct sequence_record *r = catalogue_sequence(c->store->catalogue, slot);
	struct seq *s = seq_of_slot(c->store, slot);
	struct seq_layer *layer = calloc(r->layers, sizeof(*layer));

	if (!s || !layer) {
		free(layer);
		return -ENOMEM;
	}
	s->cache = c;
	s->node = r->node;
	s->bytes = 0;
	s->record = r;
	s->layer = layer;
	s->tokens = (struct tokens){ 0 };
	user_restore(c->user, USER_SEQUENCES, 1);
	*ret = s;
	return 0;
}

void seq_park(struct seq *s)
{
	enlist(s, 0);
	evict_allow(s->cache);
}
