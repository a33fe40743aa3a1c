/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters of a cache against a look at all of its sequences, after anything that can happen to
 * them. What an administrator reads of rows, parked and pinned sequences is these counters, and who
 * asks for a sequence by name gets the one that the index says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/prefix.h"
#include "daemon/record.h"
#include "daemon/seq-make.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "spill-world.h"

#define MOST 24u
#define SESSIONS 3u

static char why[SPARQ_ERROR_TEXT];
static uint32_t random_state = 1;

static uint32_t roll(uint32_t below)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(random_state >> 8) * below >> 24);
}

/* ---- the long way ------------------------------------------------------------------- */

static bool is_listed(const struct seq *first, const struct seq *s)
{
	for (; first; first = first->next_attached)
		if (first == s)
			return true;
	return false;
}

/* Eviction finds those that it may choose, and no other. */
static void check_placed(const struct cache *c, const struct seq *s)
{
	const struct sequence_record *r = s->record;
	bool in_use = r->flags & SEQUENCE_IN_USE && c->store->reattaching;
	bool idle = !load_relaxed(&s->session) && !s->spilling && !evict_is_pinned(s) && !in_use;
	enum evict_kind kind = seq_is_prefix(s)	   ? KIND_PREFIX
			       : seq_is_spilled(s) ? KIND_SPILLED
						   : KIND_HERE;

	assert_int_equal(evict_is_placed(s), idle);
	for (unsigned by = 0; by < EVICT_BYS; by++) {
		assert_ptr_equal(s->order[by].in, idle ? &c->queues.by[kind][by] : NULL);
		if (idle)
			assert_false(evict_goes_before(by, s, evict_first(c, kind, by)));
	}
}

static void check_seq(struct cache *c, struct seq *s)
{
	const struct sequence_record *r = s->record;
	char name[sizeof(r->name)];

	assert_ptr_equal(*s->link, s);
	assert_int_equal(is_listed(c->attached, s), !!load_relaxed(&s->session));
	check_placed(c, s);
	memcpy(name, r->name, sizeof(name));
	if (*name)
		assert_ptr_equal(names_find(c, name), s);
}

static void check_cache(struct cache *c)
{
	uint64_t rows = 0, attached = 0;
	uint32_t n = 0, parked = 0, pinned = 0;

	for (struct seq *s = c->first; s; s = s->next) {
		struct sparq_msg_seq_stat stat;

		assert_int_equal(seq_stat(s, SPARQ_LAYER_ALL, &stat), 0);
		rows += stat.rows_least;
		parked += !load_relaxed(&s->session);
		pinned += evict_is_pinned(s);
		n++;
		check_seq(c, s);
	}
	for (const struct seq *s = c->attached; s; s = s->next_attached)
		attached++;
	assert_int_equal(load_relaxed(&c->rows), rows);
	assert_int_equal(c->parked, parked);
	assert_int_equal(c->pinned, pinned);
	assert_int_equal(c->n_sequences, n);
	assert_int_equal(attached, n - parked);
}

/* Nobody stands in the index who has no name, or no more. */
static void check_names(const struct store *st)
{
	uint32_t indexed = 0, named = 0;

	for (uint32_t i = 0; i <= st->name_mask; i++)
		for (const struct seq *s = st->by_name[i]; s && indexed < 1000; s = s->next_named)
			indexed++;
	for (const struct cache *c = st->caches; c; c = c->next)
		for (const struct seq *s = c->first; s; s = s->next)
			named += ((const struct sequence_record *)s->record)->name[0] != '\0';
	assert_int_equal(indexed, named);
}

static void check_all(const struct world *w)
{
	for (struct cache *c = w->f.store.caches; c; c = c->next)
		check_cache(c);
	check_names(&w->f.store);
}

/* ---- anything ------------------------------------------------------------------------- */

static struct seq *any(struct cache *c)
{
	uint32_t n = 0, at;
	struct seq *s = c->first;

	for (struct seq *i = c->first; i; i = i->next)
		n++;
	for (at = n ? roll(n) : 0; at && s; at--)
		s = s->next;
	return s;
}

/* So many rows in one layer, as a worker adds them: layers are not in step. */
static void append(struct seq *s, uint32_t layer, uint32_t n)
{
	struct kv_extent extent;
	unsigned slot;
	uint32_t rows;

	if (!seq_try_control(s))
		return;
	rows = seq_rows(s, layer);
	if (seq_reserve(s, layer, n) == 0)
		seq_commit(s, layer, rows + n);
	while (seq_flush_due(s, layer) && seq_flush_begin(s, layer, &extent, &slot) == 0)
		seq_flush_commit(s, layer);
	seq_end_control(s);
}

static void create(struct world *w, uint64_t session)
{
	uint32_t token = roll(1u << 20), n_tokens = roll(2) * 300, told;
	char name[16] = "";
	struct seq *s;

	if (w->cache->n_sequences >= MOST)
		return;
	if (roll(4))
		snprintf(name, sizeof(name), "s%u", roll(40));
	if (seq_create(w->cache, name, session, &s, why) < 0)
		return;
	/* What is worth keeping as a prefix when its client gives it up. */
	for (uint32_t i = 0; i < n_tokens; i++, token++)
		tokens_put(s, i, &token, 1, &told);
}

static void fork_one(struct world *w, struct seq *s, uint64_t session)
{
	struct seq *child;

	if (w->cache->n_sequences < MOST && seq_try_control(s)) {
		uint32_t rows = seq_told(s, 0);

		for (uint32_t i = 1; i < MODEL_LAYERS; i++)
			rows = MIN(rows, seq_told(s, i));
		seq_end_control(s);
		if (!s->record || ((struct sequence_record *)s->record)->spilled)
			return;
		seq_fork(s, rows ? roll(rows + 1) : 0, session, &child, why);
	}
}

static void release(struct world *w, uint64_t session)
{
	seq_release_session(&w->f.store, session);
}

static void spill_or_load(struct world *w, struct seq *s)
{
	if (seq_is_spilled(s))
		assert_int_equal(spill_load(w->spill, s, why), 0);
	else if (!load_relaxed(&s->session))
		spill_sequence(w->spill, s);
	while (s->spilling) {
		assert_int_equal(loop_step(w->loop, SECOND / 1000), 0);
		check_all(w);
	}
}

static void step(struct world *w)
{
	struct seq *s = any(w->cache), *got;
	uint64_t session = 1 + roll(SESSIONS);
	uint32_t what = roll(16);
	bool here = s && !seq_is_spilled(s);

	if (!s || what < 2)
		create(w, session);
	else if (what < 6 && here)
		append(s, roll(MODEL_LAYERS), 1 + roll(150));
	else if (what == 6 && here)
		seq_truncate(s, roll(seq_least_rows(s) + 1), why);
	else if (what == 7 && here && seq_try_control(s)) {
		uint32_t layer = roll(MODEL_LAYERS);

		seq_cut(s, layer, roll(seq_rows(s, layer) + 1));
		seq_end_control(s);
	} else if (what == 8)
		fork_one(w, s, session);
	else if (what == 9)
		seq_drop(s, why);
	else if (what == 10 && here) {
		evict_pin(s, roll(2)); /* what becomes a prefix is not pinned any more */
		seq_retire(s, why);
	} else if (what == 10 || what == 15)
		evict_pin(s, roll(2));
	else if (what == 11)
		release(w, session);
	else if (what == 12)
		spill_or_load(w, s);
	else
		seq_adopt(&w->f.store, w->f.user, s->id, session, &got, why);
}

static void whatever_happens(void **state)
{
	struct world *w = *state;
	uint32_t restarts = 0, prefixes = 0, spilled = 0;

	cache_unref(w->cache);
	w->cache = world_cache(w, "census", "f32", "f32", "dense",
			       "sinks=4 rollback=0 on_disconnect=park evict=lru share=on");
	for (uint32_t i = 0; i < 8000; i++) {
		step(w);
		check_all(w);
		for (const struct seq *s = w->cache->first; s; s = s->next)
			prefixes += seq_is_prefix(s);
		spilled += spill_stat(w->spill).sequences > 0;
		if (roll(400) == 0) {
			world_restart(w);
			check_all(w);
			/* Clients had time to come back: what was in use is not any more. */
			recover_expire(&w->f.store);
			check_all(w);
			restarts++;
		}
	}
	/* Each kind of life was lived. */
	print_message("%u restarts, %u prefixes, %u spilled\n", restarts, prefixes, spilled);
	assert_true(restarts > 5 && prefixes > 10 && spilled > 500);
	for (uint64_t session = 1; session <= SESSIONS; session++)
		release(w, session);
	while (w->cache->first)
		assert_int_equal(seq_drop(w->cache->first, why), 0);
	check_all(w);
	assert_int_equal(w->cache->rows, 0);
}

/* A step goes through the layers in turn: all but the last leave the sum as it is. */
static void a_token_counts_once(void **state)
{
	struct world *w = *state;
	struct seq *s;

	assert_int_equal(seq_create(w->cache, "a", 1, &s, why), 0);
	for (uint32_t token = 1; token <= 40; token++) {
		for (uint32_t i = 0; i < MODEL_LAYERS; i++) {
			assert_int_equal(w->cache->rows, token - 1);
			append(s, i, 1);
		}
		assert_int_equal(w->cache->rows, token);
	}
	/* As one that takes back drafts does, layer by layer. */
	assert_true(seq_try_control(s));
	for (uint32_t i = 0; i < MODEL_LAYERS; i++) {
		assert_int_equal(seq_cut(s, i, 30), 0);
		assert_int_equal(w->cache->rows, 30);
		assert_int_equal(s->n_least, i + 1);
	}
	seq_end_control(s);
	check_cache(w->cache);
	assert_int_equal(seq_drop(s, why), 0);
	assert_int_equal(w->cache->rows, 0);
}

/* What is kept for others to begin with has lost its name and its pin. */
static void a_prefix_is_nobodys(void **state)
{
	struct world *w = *state;
	struct cache *c = world_cache(w, "p", "f32", "f32", "dense",
				      "on_disconnect=park evict=lru share=on rollback=0");
	struct seq *s;

	assert_int_equal(seq_create(c, "a", 1, &s, why), 0);
	for (uint32_t i = 0, told; i < 2 * KV_TILE_ROWS; i++)
		assert_int_equal(tokens_put(s, i, &i, 1, &told), 0);
	for (uint32_t i = 0; i < 2 * MODEL_LAYERS; i++)
		append(s, i / 2, KV_TILE_ROWS);
	evict_pin(s, true);
	assert_int_equal(c->pinned, 1);
	assert_int_equal(seq_retire(s, why), 0);
	assert_true(seq_is_prefix(s));
	assert_int_equal(c->pinned, 0);
	assert_int_equal(c->parked, 1);
	assert_int_equal(c->rows, seq_told(s, 0));
	assert_null(names_find(c, "a"));
	check_all(w);
	assert_int_equal(seq_drop(s, why), 0);
	cache_unref(c);
}

/* Names of one cache are not another's, and a name is free again when its owner has gone. */
static void names(void **state)
{
	struct world *w = *state;
	struct cache *other = world_cache(w, "d", "f32", "f32", "dense", "on_disconnect=park");
	struct seq *s[24];
	char name[64];

	w->f.store.name_mask = 0; /* all of them in one bucket */
	for (unsigned i = 0; i < ARRAY_SIZE(s); i++) {
		memset(name, 'x',
		       sizeof(name) - 1); /* as long as they can be, alike but for the end */
		snprintf(name + 59, 5, "%04u", i / 2);
		assert_int_equal(seq_create(i % 2 ? other : w->cache, name, 1, &s[i], why), 0);
	}
	assert_int_equal(seq_create(other, name, 1, &s[0], why), -EEXIST);
	assert_ptr_equal(names_find(other, name), s[23]);
	assert_ptr_equal(names_find(w->cache, name), s[22]);
	assert_null(names_find(other, ""));
	assert_int_equal(seq_drop(s[23], why), 0);
	assert_null(names_find(other, name));
	assert_ptr_equal(names_find(w->cache, name), s[22]);
	assert_int_equal(seq_create(other, name, 1, &s[23], why), 0);
	seq_release_session(&w->f.store, 1);
	while (w->cache->first)
		seq_drop(w->cache->first, why);
	while (other->first)
		seq_drop(other->first, why);
	cache_unref(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whatever_happens, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(a_token_counts_once, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(a_prefix_is_nobodys, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(names, world_set_up, world_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
