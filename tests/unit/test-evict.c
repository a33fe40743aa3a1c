/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes when there is no room, and who never does: the owner of a parked sequence relies on
 * the order that his cache names, on pins, and on nobody else's want touching what is his;
 * everybody relies on sums that are right to the byte afterwards.
 */
#include "daemon/census.h"
#include "daemon/evict.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/prefix.h"
#include "daemon/record.h"
#include "daemon/room.h"
#include "daemon/seq-make.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "store-fixture.h"

#define PARKED 9000u /* sessions that ended: one for each sequence */

static char why[SPARQ_ERROR_TEXT];

struct fixture {
	struct store_fixture f;
	struct evictor e;
	uint64_t next_session;
};

static struct cache *make_cache(struct fixture *x, const char *name, const char *options,
				uint64_t budget)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;

	m.budget_bytes = budget;
	if (cache_create(&x->f.store, x->f.user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

static struct seq *begin(struct cache *c, const char *name, uint64_t session)
{
	struct seq *s = NULL;

	if (seq_create(c, name, session, &s, why) < 0)
		fail_msg("%s", why);
	return s;
}

static int flush(struct seq *s, uint32_t layer)
{
	struct kv_extent extent;
	unsigned slot;
	int r = 0;

	while (r == 0 && seq_flush_due(s, layer)) {
		r = seq_flush_begin(s, layer, &extent, &slot);
		if (r == 0)
			seq_flush_commit(s, layer);
	}
	return r;
}

/* Rows without contents, of both layers: what they take is all that matters here. */
static int grow(struct seq *s, uint32_t rows)
{
	int r = 0;

	for (uint32_t layer = 0; r == 0 && layer < 2; layer++) {
		flush(s, layer);
		r = seq_reserve(s, layer, rows);
		if (r < 0)
			return r;
		seq_commit(s, layer, seq_rows(s, layer) + rows);
		r = flush(s, layer);
	}
	return r;
}

static struct seq *park(struct fixture *x, struct cache *c, const char *name, uint32_t rows)
{
	uint64_t session = ++x->next_session;
	struct seq *s = begin(c, name, session);

	assert_int_equal(grow(s, rows), 0);
	seq_release_session(&x->f.store, session);
	return s;
}

static bool is_there(struct cache *c, const char *name)
{
	for (const struct seq *s = c->first; s; s = s->next)
		if (!strcmp(((const struct sequence_record *)s->record)->name, name))
			return true;
	return false;
}

/* Attached and left again. */
static void use(struct fixture *x, struct cache *c, const char *name)
{
	uint64_t session = ++x->next_session;
	struct seq *s;

	assert_int_equal(seq_attach(c, name, session, &s, why), 0);
	seq_release_session(&x->f.store, session);
}

static bool want(struct fixture *x, struct cache *c, enum limit limit, uint64_t bytes)
{
	struct shortage s = { limit, c->id, bytes };

	return evict_for(&x->e, c->user, &s);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	fixture_open(&x->f, 64 << 20, 4 << 20);
	assert_int_equal(evict_init(&x->e, &x->f.store), 0);
	x->next_session = PARKED;
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	while (x->f.store.caches) {
		struct cache *c = x->f.store.caches;

		c->n_sessions++;
		while (c->first)
			assert_int_equal(seq_drop(c->first, why), 0);
		c->n_sessions = 1;
		cache_unref(c);
	}
	fixture_assert_empty(&x->f);
	evict_deinit(&x->e);
	fixture_close(&x->f);
	free(x);
	return 0;
}

/* ---- order ------------------------------------------------------------------------- */

/* A budget of three: one byte more, and the one goes that was used the longest time ago. */
static void oldest_goes(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);

	park(x, c, "one", 300);
	park(x, c, "two", 300);
	park(x, c, "three", 300);
	use(x, c, "one");
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "two"));
	assert_true(is_there(c, "one") && is_there(c, "three"));
	/* There is room now: nobody else has to go. */
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_int_equal(c->n_sequences, 2);
	assert_int_equal(c->evicted_sequences, 1);
	assert_true(c->evicted_bytes > 0);
	assert_int_equal(x->e.sum[LIMIT_BUDGET].sequences, 1);
	assert_int_equal(x->e.sum[LIMIT_BUDGET].bytes, c->evicted_bytes);
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "three"));
	assert_true(is_there(c, "one"));
	/* What a restart finds has no order but the seconds in its record. */
	park(x, c, "four", 10);
	for (struct seq *s = c->first; s; s = s->next) {
		evict_displace(s);
		s->use = 0;
		((struct sequence_record *)s->record)->used_s -= s == c->first ? 5 : 0;
		evict_place(s);
	}
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "four"));
}

static void least_used_goes(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lfu", 0);
	struct seq *child, *parent;

	park(x, c, "one", 300);
	park(x, c, "two", 300);
	park(x, c, "three", 300);
	use(x, c, "one");
	use(x, c, "one");
	/* To be forked from is to be used, and so is to be attached to for that. */
	assert_int_equal(seq_attach(c, "two", ++x->next_session, &parent, why), 0);
	assert_int_equal(seq_fork(parent, 300, 1, &child, why), 0);
	seq_release_session(&x->f.store, x->next_session);
	use(x, c, "three");
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "three")); /* the newest, but used twice only */
	assert_int_equal(c->n_sequences, 3);
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_true(is_there(c, "two") != is_there(c, "one")); /* three times each: the older */
	assert_true(is_there(c, "two"));
}

/* More than is taken in one look. */
static void many_go(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	uint64_t limit[USER_WHATS];
	char name[16];

	memcpy(limit, x->f.users.limit, sizeof(limit));
	limit[USER_SEQUENCES] = 32;
	users_limit(&x->f.users, limit);
	for (unsigned i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		park(x, c, name, 1 + i * 10);
	}
	for (unsigned i = 0; i < 32; i += 2) {
		snprintf(name, sizeof(name), "s%u", 31 - i);
		use(x, c, name);
	}
	c->budget_bytes = c->charged_bytes;
	/* The even ones were not used again. */
	while (c->n_sequences > 16)
		assert_true(want(x, c, LIMIT_SEQUENCES, 0));
	for (unsigned i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		assert_true(is_there(c, name) == (i % 2 == 1));
	}
	assert_true(want(x, c, LIMIT_BUDGET, c->budget_bytes));
	assert_int_equal(c->n_sequences, 0);
	assert_int_equal(c->charged_bytes, 0);
}

/* ---- how much is wanted -------------------------------------------------------------- */

static uint32_t ids[KV_TILE_ROWS + 1];

static int make_deep(struct seq *s, struct seq **ret)
{
	return seq_create(s->cache, "new", 1, ret, why);
}

static int make_fork(struct seq *s, struct seq **ret)
{
	return seq_fork(s, 10, 1, ret, why);
}

static int make_told(struct seq *s, struct seq **ret)
{
	uint32_t rows;

	return prefix_create(s->cache, "new", ids, ARRAY_SIZE(ids), 1, ret, &rows, why);
}

static int tell(struct seq *s, struct seq **ret)
{
	uint32_t rows;
	int r = tokens_put(s, 0, ids, ARRAY_SIZE(ids), &rows);

	*ret = NULL;
	return r < 0 ? seq_fail_make(s->cache, r, &s->shortage, "token ids", why) : r;
}

/* Who makes a thing of several parts, and gives back those that there was room for, is not told
 * that there is room for the last one: the control thread tries again for as long as it is told. */
static void all_parts_are_wanted(void **state)
{
	int (*const makes[])(struct seq *s, struct seq **ret) = { make_deep, make_fork, make_told,
								   tell };
	struct fixture *x = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(makes); i++) {
		struct sparq_msg_cache_create m = fixture_request("deep", "share=on");
		struct seq *used, *made;
		struct cache *c;
		uint64_t before, all;

		m.layers = LAYERS_PER_BLOCK + 1;
		assert_int_equal(cache_create(&x->f.store, x->f.user, &m, &c, why), 0);
		used = begin(c, "used", 7);
		for (uint32_t layer = 0; layer < m.layers; layer++) {
			assert_int_equal(seq_reserve(used, layer, 10), 0);
			seq_commit(used, layer, 10);
		}
		before = c->charged_bytes;
		assert_int_equal(makes[i](used, &made), 0);
		all = c->charged_bytes - before;
		if (made)
			assert_int_equal(seq_drop(made, why), 0);
		else
			tokens_clear(used);
		for (uint64_t lacks = 1; lacks < all; lacks += 100) {
			c->budget_bytes = before + all - lacks;
			assert_int_equal(makes[i](used, &made), -ENOSPC);
			assert_false(evict_again(&x->e, x->f.user));
			assert_int_equal(c->charged_bytes, before);
		}
		assert_int_equal(seq_drop(used, why), 0);
		cache_unref(c);
	}
}

/* ---- who stays ---------------------------------------------------------------------- */

static void in_use_and_pinned_stay(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct seq *pinned, *used, *held;

	pinned = park(x, c, "pinned", 300);
	evict_pin(pinned, true);
	used = park(x, c, "used", 300);
	assert_int_equal(seq_attach(c, "used", 7, &used, why), 0);
	held = park(x, c, "held", 300);
	assert_true(seq_try_control(held));
	c->budget_bytes = c->charged_bytes;
	/* A worker may be about to leave it: worth trying again, and nothing lost. */
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_int_equal(c->n_sequences, 3);
	seq_end_control(held);
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "held"));
	c->budget_bytes = c->charged_bytes;
	assert_false(want(x, c, LIMIT_BUDGET, 1));
	assert_int_equal(c->n_sequences, 2);
	evict_pin(pinned, false);
	assert_false(evict_is_pinned(pinned));
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "pinned"));
	assert_true(is_there(c, "used"));
}

/* A restart ended its session: until clients had time to come back it counts as in use. */
static void in_use_when_the_daemon_died(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct seq *used = begin(c, "used", 7);

	assert_int_equal(grow(used, 300), 0);
	x->f.store.reattaching = true;
	census_attach(used, 0); /* as recovery finds it */
	park(x, c, "parked", 300);
	c->budget_bytes = c->charged_bytes;
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_true(is_there(c, "used"));
	assert_false(is_there(c, "parked"));
	c->budget_bytes = c->charged_bytes;
	assert_false(want(x, c, LIMIT_BUDGET, 1));
	x->f.store.reattaching = false;
	evict_place(used);
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_false(is_there(c, "used"));
}

/* By default parked sequences stay, whatever happens. Prefixes are nobody's. */
static void parked_stay_by_default(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park", 0);
	struct sequence_record *r;
	struct seq *two;

	park(x, c, "one", 300);
	two = park(x, c, "two", 300);
	r = two->record;
	c->budget_bytes = c->charged_bytes;
	assert_false(want(x, c, LIMIT_BUDGET, 1));
	assert_int_equal(c->n_sequences, 2);
	evict_displace(two);
	r->flags |= SEQUENCE_PREFIX;
	evict_place(two);
	assert_true(want(x, c, LIMIT_BUDGET, 1));
	assert_int_equal(c->n_sequences, 1);
	assert_true(is_there(c, "one"));
	/* What never fits makes nobody go. */
	c->evict = EVICT_LRU;
	assert_false(want(x, c, LIMIT_BUDGET, c->budget_bytes + 1));
	assert_int_equal(c->n_sequences, 1);
}

/* A budget is its cache's, a quota its user's; another user's sequences are not touched. */
static void scopes(void **state)
{
	struct fixture *x = *state;
	struct cache *a = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct cache *b = make_cache(x, "b", "on_disconnect=park evict=lru", 0), *c;
	struct sparq_msg_cache_create m = fixture_request("a", "on_disconnect=park evict=lru");

	assert_int_equal(cache_create(&x->f.store, x->f.stranger, &m, &c, why), 0);
	park(x, c, "stranger", 300);
	park(x, b, "older", 300);
	park(x, a, "newer", 300);
	a->budget_bytes = a->charged_bytes;
	assert_true(want(x, a, LIMIT_BUDGET, 1));
	assert_false(is_there(a, "newer"));
	assert_false(want(x, a, LIMIT_BUDGET, a->budget_bytes + 1));
	park(x, a, "newer", 100);
	x->f.user->limit[USER_BYTES] = x->f.user->charged[USER_BYTES];
	assert_true(want(x, a, LIMIT_QUOTA, 1));
	assert_false(is_there(b, "older"));
	assert_true(want(x, a, LIMIT_POOL, 1));
	assert_false(is_there(a, "newer"));
	assert_false(want(x, a, LIMIT_POOL, 1));
	assert_false(want(x, a, LIMIT_CATALOGUE, CATALOGUE_BLOCK));
	assert_true(is_there(c, "stranger"));
	assert_int_equal(x->f.user->evicted_sequences, 3);
	assert_int_equal(x->f.stranger->evicted_sequences, 0);
}

/* The last sequence of a cache that no session has any more takes its cache along. */
static void last_of_a_cache(void **state)
{
	struct fixture *x = *state;
	struct cache *a = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct cache *b = make_cache(x, "b", "on_disconnect=park evict=lru", 0);

	park(x, b, "one", 300);
	cache_unref(b);
	assert_ptr_equal(x->f.store.caches, b);
	assert_true(want(x, a, LIMIT_SLOTS, 0));
	assert_ptr_equal(x->f.store.caches, a);
	assert_int_equal(x->f.user->charged[USER_BYTES], 0);
}

/* ---- asking ------------------------------------------------------------------------- */

/* A control call that failed leaves what it lacked, and succeeds after it was made. */
static void again(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct seq *s = NULL, *child = NULL;

	park(x, c, "one", 300);
	s = begin(c, "two", 1);
	assert_int_equal(grow(s, 100), 0);
	c->budget_bytes = c->charged_bytes;
	assert_int_equal(seq_fork(s, 100, 1, &child, why), -ENOSPC);
	assert_non_null(strstr(why, "budget_bytes"));
	assert_int_equal(x->f.store.shortage.limit, LIMIT_BUDGET);
	assert_true(evict_again(&x->e, x->f.user));
	assert_int_equal(x->f.store.shortage.limit, LIMIT_NONE);
	assert_int_equal(seq_fork(s, 100, 1, &child, why), 0);
	assert_int_equal(c->n_sequences, 2);
	assert_false(evict_again(&x->e, x->f.user)); /* nobody lacks anything */
	x->f.user->limit[USER_SEQUENCES] = 2;
	assert_int_equal(seq_create(c, "three", 1, &child, why), -EDQUOT);
	assert_int_equal(x->f.store.shortage.limit, LIMIT_SEQUENCES);
	assert_false(evict_again(&x->e, x->f.user));
	x->f.user->limit[USER_SEQUENCES] = 24;
}

static uint64_t calls(struct fixture *x)
{
	uint64_t n = 0;

	return read(x->f.store.room_fd, &n, sizeof(n)) < 0 ? 0 : n;
}

/* Whoever charges beyond the mark calls, once; the control thread makes room before it is asked. */
static void ahead(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct seq *s;

	park(x, c, "one", 300);
	park(x, c, "two", 300);
	s = begin(c, "used", 1);
	assert_int_equal(grow(s, 900), 0);
	while (room_mark(c->budget_bytes) <= c->charged_bytes)
		c->budget_bytes += 10000;
	assert_int_equal(calls(x), 0);
	while (c->charged_bytes <= room_mark(c->budget_bytes))
		assert_int_equal(grow(s, 1), 0);
	assert_int_equal(calls(x), 1);
	assert_int_equal(c->pressure.high, 1);
	assert_int_equal(grow(s, 1), 0);
	assert_int_equal(calls(x), 0);
	evict_ahead(&x->e);
	assert_false(is_there(c, "one"));
	assert_true(is_there(c, "two"));
	assert_int_equal(x->e.sum[LIMIT_NONE].sequences, 1);
	while (grow(s, 1) == 0 || evict_for(&x->e, x->f.user, &s->shortage))
		evict_ahead(&x->e);
	/* Nothing more can go: nobody calls for it. */
	assert_int_equal(s->shortage.limit, LIMIT_BUDGET);
	assert_int_equal(c->n_sequences, 1);
	assert_int_equal(c->pressure.may_evict, 0);
	calls(x);
	assert_int_equal(grow(s, 60), -ENOSPC);
	assert_int_equal(calls(x), 0);
	/* The quota and the pool are the user's. */
	c->budget_bytes = 0;
	park(x, c, "three", 300);
	x->f.user->limit[USER_BYTES] = x->f.user->charged[USER_BYTES] / 24 * 25;
	assert_int_equal(x->f.user->pressure.high, 0);
	begin(c, "four", 1);
	assert_int_equal(x->f.user->pressure.high, 1);
	evict_ahead(&x->e);
	assert_false(is_there(c, "three"));
	x->f.user->limit[USER_BYTES] = UINT64_MAX;
}

#define IN_AND_OUT_BYTES 64u
#define TIMES_IN_AND_OUT 50000u

struct in_and_out {
	struct cache *cache;
	uint32_t over; /* atomic */
};

/* A worker that is at its budget: an append takes what it needs one after the other, and gives it
 * back when the last is not there. */
static void *take_and_give_back(void *arg)
{
	struct in_and_out *o = arg;

	for (uint32_t n = 0; n < TIMES_IN_AND_OUT; n++) {
		if (cache_charge(o->cache, IN_AND_OUT_BYTES) == 0)
			cache_refund(o->cache, IN_AND_OUT_BYTES);
		for (uint32_t i = 0; i < 20; i++)
			cpu_pause();
	}
	store_relaxed(&o->over, 1);
	return NULL;
}

/* Room that comes about while somebody looks for it is no reason to tell the worker, and all who
 * ask later, that nobody can go. */
static void room_by_itself(void **state)
{
	struct fixture *x = *state;
	struct cache *c = make_cache(x, "a", "on_disconnect=park evict=lru", 0);
	struct in_and_out o = { .cache = c };
	uint32_t vain = 0, hopeless = 0;
	pthread_t thread;
	char name[16];

	for (uint32_t i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		park(x, c, name, 1);
	}
	c->budget_bytes = c->charged_bytes + IN_AND_OUT_BYTES;
	assert_int_equal(pthread_create(&thread, NULL, take_and_give_back, &o), 0);
	for (uint32_t i = 0; !load_relaxed(&o.over); i++) {
		vain += !want(x, c, LIMIT_BUDGET, IN_AND_OUT_BYTES);
		hopeless += !load_relaxed(&c->pressure.may_evict);
		if (c->n_sequences < 20) {
			snprintf(name, sizeof(name), "r%u", i);
			park(x, c, name, 1);
		}
	}
	pthread_join(thread, NULL);
	assert_int_equal(vain, 0);
	assert_int_equal(hopeless, 0);
}

/* ---- sums --------------------------------------------------------------------------- */

/* Bytes of the tables that a layer reaches and that no sequence owns, each once. */
static uint64_t left_behind(struct store *st, struct cache *c, bool *seen)
{
	uint64_t bytes = 0;

	for (struct seq *s = c->first; s; s = s->next)
		for (uint32_t i = 0; i < c->record->layers; i++) {
			const struct sequence_record *r = s->record;
			const struct layer_record *l =
				(struct layer_record *)catalogue_block(
					st->catalogue, r->block[i / LAYERS_PER_BLOCK]) +
				i % LAYERS_PER_BLOCK;
			struct reach reach = reach_unpack(l->reach);

			/* What it owns is in its own sum. */
			if (reach.table && !reach.limit)
				seen[reach.table] = true;
		}
	for (struct seq *s = c->first; s; s = s->next)
		for (uint32_t i = 0; i < c->record->layers; i++) {
			const struct sequence_record *r = s->record;
			const struct layer_record *l =
				(struct layer_record *)catalogue_block(
					st->catalogue, r->block[i / LAYERS_PER_BLOCK]) +
				i % LAYERS_PER_BLOCK;
			uint32_t table = reach_unpack(l->reach).table;

			while (table) {
				const struct table_header *h =
					catalogue_block(st->catalogue, table);

				if (!seen[table])
					bytes += st->tables[table].bytes;
				seen[table] = true;
				table = h->base;
			}
		}
	return bytes;
}

static void assert_sums(struct fixture *x)
{
	struct store *st = &x->f.store;
	uint32_t n_blocks = catalogue_header(st->catalogue)->n_blocks;
	uint64_t of_user = 0;

	for (struct cache *c = st->caches; c; c = c->next) {
		bool *seen = calloc(n_blocks, sizeof(*seen));
		uint64_t bytes = left_behind(st, c, seen);

		for (struct seq *s = c->first; s; s = s->next)
			bytes += s->bytes;
		assert_int_equal(bytes, c->charged_bytes);
		of_user += c->charged_bytes;
		free(seen);
	}
	assert_int_equal(of_user, x->f.user->charged[USER_BYTES]);
}

static uint32_t roll(uint32_t *state, uint32_t below)
{
	*state = *state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(*state >> 4) * below >> 28);
}

static struct seq *any(struct cache *c, uint32_t *state)
{
	struct seq *s = c->first;

	for (uint32_t i = roll(state, c->n_sequences + 1); s && s->next && i > 0; i--)
		s = s->next;
	return s;
}

static void random_step(struct fixture *x, struct cache *c, uint32_t *random)
{
	uint32_t what = roll(random, 10);
	struct seq *s = any(c, random), *child;
	char name[16];

	if (!s || what == 0) {
		snprintf(name, sizeof(name), "n%u", roll(random, 1u << 20));
		if (seq_create(c, name, ++x->next_session, &child, why) < 0)
			evict_again(&x->e, x->f.user);
	} else if (what <= 5 && s->session) {
		if (grow(s, 1 + roll(random, 500)) == -ENOSPC)
			evict_for(&x->e, x->f.user, &s->shortage);
	} else if (what == 6) {
		if (seq_fork(s, roll(random, MIN(seq_rows(s, 0), seq_rows(s, 1)) + 1),
			     ++x->next_session, &child, why) < 0)
			evict_again(&x->e, x->f.user);
	} else if (what == 7) {
		assert_int_equal(seq_cut(s, SPARQ_LAYER_ALL,
					 roll(random, MIN(seq_rows(s, 0), seq_rows(s, 1)) + 1)),
				 0);
	} else if (what == 8 && s->session) {
		seq_release_session(&x->f.store, s->session);
	} else {
		evict_pin(s, roll(random, 8) == 0);
	}
	evict_ahead(&x->e);
}

static void sums(void **state)
{
	struct fixture *x = *state;
	struct cache *c[2] = {
		make_cache(x, "a", "on_disconnect=park evict=lru", 6 << 20),
		make_cache(x, "b", "on_disconnect=park evict=lfu", 0),
	};
	uint32_t random = 1;
	uint64_t evicted = 0;

	x->f.user->limit[USER_BYTES] = 10 << 20;
	for (unsigned i = 0; i < 6000; i++) {
		random_step(x, c[roll(&random, 2)], &random);
		if (i % 16 == 0)
			assert_sums(x);
	}
	for (unsigned i = 0; i < LIMITS; i++)
		evicted += x->e.sum[i].sequences;
	assert_true(evicted > 100);
	assert_int_equal(evicted, x->f.user->evicted_sequences);
	assert_int_equal(evicted, c[0]->evicted_sequences + c[1]->evicted_sequences);
	x->f.user->limit[USER_BYTES] = UINT64_MAX;
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(oldest_goes),
		ONE(least_used_goes),
		ONE(many_go),
		ONE(all_parts_are_wanted),
		ONE(in_use_and_pinned_stay),
		ONE(in_use_when_the_daemon_died),
		ONE(parked_stay_by_default),
		ONE(scopes),
		ONE(last_of_a_cache),
		ONE(again),
		ONE(ahead),
		ONE(room_by_itself),
		ONE(sums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
