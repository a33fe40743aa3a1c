/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that begin with what the cache holds: the rows that one gets are those of its tokens,
 * bit by bit, as many as anybody has, and never another user's. A wrong row here is a wrong answer
 * that nobody notices, so rows are made of their tokens and checked against them.
 */
#include "daemon/prefix.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/recover.h"
#include "daemon/seq-make.h"
#include "daemon/seq.h"
#include "daemon/store.h"
#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define MOST 3000 /* rows */
#define N 10

static char why[SPARQ_ERROR_TEXT];

/* A sequence, and the ids that were told of it; a row is made of its id and its layer. */
struct text {
	struct model m;
	uint32_t id[MOST];
};

struct shelf {
	struct store_fixture f;
	struct cache *cache;
	struct text *text[N];
	unsigned n;
	uint32_t seed;
};

/* Ids go up by one from what they begin with; at `split` they go on as another text. */
static void write_ids(uint32_t id[MOST], uint32_t from, uint32_t split, uint32_t other)
{
	for (uint32_t i = 0; i < MOST; i++)
		id[i] = (i < split ? from : other) * 10000 + i;
}

static struct cache *make_cache(struct shelf *x, const struct user *user, const char *name,
				const char *options)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;

	if (cache_create(&x->f.store, (struct user *)(uintptr_t)user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

static void begin(struct shelf *x, const char *options)
{
	*x = (struct shelf){ .seed = 1 };
	fixture_open(&x->f, GIB, 16 * MIB);
	x->cache = make_cache(x, x->f.user, "shelf", options);
}

static void forget(struct shelf *x, unsigned i)
{
	model_deinit(&x->text[i]->m);
	free(x->text[i]);
	x->text[i] = x->text[--x->n];
}

static void end(struct shelf *x)
{
	while (x->n)
		forget(x, 0);
	while (x->cache->first)
		assert_int_equal(seq_drop(x->cache->first, why), 0);
	assert_int_equal(x->cache->charged_bytes, 0);
	cache_leave(x->cache);
	fixture_assert_empty(&x->f);
	fixture_close(&x->f);
}

/* With the first n of the ids; *ret_rows were there. */
static struct text *create(struct shelf *x, const uint32_t *id, uint32_t n, uint32_t *ret_rows)
{
	struct text *t = calloc(1, sizeof(*t));
	struct seq *s;
	int r = prefix_create(x->cache, "", id, n, FIXTURE_SESSION, &s, ret_rows, why);

	if (r < 0)
		fail_msg("%d: %s", r, why);
	memcpy(t->id, id, sizeof(t->id));
	model_init(&t->m, &x->f, s, 1);
	for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++) {
		t->m.rows[layer] = *ret_rows;
		for (uint32_t i = 0; i < *ret_rows; i++)
			t->m.tag[layer][i] = id[i] * 2 + layer * 500000000;
	}
	x->text[x->n++] = t;
	return t;
}

static void append_row(struct text *t, uint32_t layer)
{
	t->m.next_tag = t->id[t->m.rows[layer]] * 2 + layer * 500000000;
	assert_int_equal(model_append(&t->m, layer, 1), 0);
}

static void append(struct text *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			append_row(t, layer);
}

static void tell(struct text *t, uint32_t end_row)
{
	uint32_t have = tokens_rows(t->m.seq), told;

	assert_int_equal(tokens_put(t->m.seq, have, t->id + have, end_row - have, &told), 0);
	assert_int_equal(told, end_row);
}

static void assert_whole(struct text *t)
{
	const char *what = model_check(&t->m, UINT32_MAX);

	if (!what)
		what = model_check_record(&t->m);
	if (what)
		fail_msg("%s", what);
}

/* ---- one by one --------------------------------------------------------------------- */

/* Sinks and whole tiles, as far as rows are there in every layer, of the one that has the most. */
static void longest(void **state)
{
	static uint32_t a[MOST], b[MOST];
	struct text *first, *second;
	struct shelf x;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	write_ids(b, 1, 700, 2);
	first = create(&x, a, 1500, &rows);
	assert_int_equal(rows, 0);
	create(&x, a, 1500, &rows);
	assert_int_equal(rows, 0); /* told, but not there */
	append(first, 1000);
	append_row(first, 0);
	create(&x, a, 1500, &rows);
	assert_int_equal(rows, 912);
	create(&x, a, 528, &rows);
	assert_int_equal(rows, 528);
	create(&x, a, 527, &rows);
	assert_int_equal(rows, 400);
	create(&x, a, 0, &rows);
	assert_int_equal(rows, 0);
	second = create(&x, b, 1500, &rows);
	assert_int_equal(rows, 656);
	append(second, 500);
	create(&x, b, 1500, &rows);
	assert_int_equal(rows, 1040);
	append(x.text[2], 300);
	for (unsigned i = 0; i < x.n; i++)
		assert_whole(x.text[i]);
	end(&x);
}

/* One id that differs is a difference, wherever it is. */
static void each_id_counts(void **state)
{
	static uint32_t a[MOST];
	struct shelf x;
	struct text *t;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 600, &rows);
	append(t, 600);
	for (uint32_t i = 0; i < 400; i += i % 16 == 0 ? 15 : 1) {
		a[i] ^= 1u << i % 32;
		t = create(&x, a, 400, &rows);
		assert_int_equal(rows, i < 144 ? 0 : i < 272 ? 144 : 272);
		a[i] ^= 1u << i % 32;
		assert_int_equal(seq_drop(t->m.seq, why), 0);
		forget(&x, 1);
	}
	end(&x);
}

/* Who says nothing of its tokens shares nothing, and neither does a cache that was told not to. */
static void off(void **state)
{
	static uint32_t a[MOST];
	struct text *t;
	struct shelf x;
	uint32_t rows;

	(void)state;
	begin(&x, "share=off");
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 1000, &rows);
	append(t, 600);
	assert_int_equal(tokens_rows(t->m.seq), 0);
	create(&x, a, 1000, &rows);
	assert_int_equal(rows, 0);
	end(&x);
	begin(&x, "");
	t = create(&x, a, 0, &rows);
	append(t, 600);
	create(&x, a, 1000, &rows);
	assert_int_equal(rows, 0);
	end(&x);
}

/* Nothing passes from one user to another, or between caches of one. */
static void apart(void **state)
{
	static uint32_t a[MOST];
	struct cache *others[2], *mine;
	struct text *t;
	struct shelf x;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	mine = x.cache;
	others[0] = make_cache(&x, x.f.stranger, "shelf", "");
	others[1] = make_cache(&x, x.f.user, "other", "");
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 1000, &rows);
	append(t, 600);
	for (unsigned i = 0; i < 2; i++) {
		struct seq *s;

		assert_int_equal(prefix_create(others[i], "", a, 1000, FIXTURE_SESSION, &s, &rows,
					       why),
				 0);
		assert_int_equal(rows, 0);
		assert_int_equal(seq_drop(s, why), 0);
		cache_leave(others[i]);
	}
	x.cache = mine;
	end(&x);
}

/* Other tokens in the place of those that were cut: told again, or not told any more. */
static void cut(void **state)
{
	static uint32_t a[MOST], b[MOST];
	struct shelf x;
	struct text *t;
	uint32_t rows, told = 0;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	write_ids(b, 1, 420, 2);
	t = create(&x, a, 1000, &rows);
	append(t, 1000);
	/* A few drafts: their ids are told again. */
	assert_int_equal(model_cut(&t->m, SPARQ_LAYER_ALL, 990), 0);
	assert_int_equal(tokens_rows(t->m.seq), 990);
	tell(t, 1100);
	append(t, 100);
	create(&x, a, 1500, &rows);
	assert_int_equal(rows, 1040);
	/* Far back, in one layer: what is known goes back to the hash before. */
	assert_int_equal(model_cut(&t->m, 1, 420), 0);
	assert_int_equal(tokens_rows(t->m.seq), 400);
	assert_int_equal(tokens_put(t->m.seq, 420, b + 420, 10, &told), -ENODATA);
	assert_int_equal(told, 400);
	assert_int_equal(tokens_put(t->m.seq, 401, b + 401, 1, &told), -ENODATA);
	assert_int_equal(model_cut(&t->m, 0, 420), 0);
	memcpy(t->id, b, sizeof(b));
	append(t, 500);
	/* Rows of nobody knows what, where known ones were. */
	create(&x, a, 600, &rows);
	assert_int_equal(rows, 528); /* of the one before */
	assert_int_equal(seq_drop(x.text[1]->m.seq, why), 0);
	assert_int_equal(seq_drop(x.text[2]->m.seq, why), 0);
	forget(&x, 2);
	forget(&x, 1);
	create(&x, a, 600, &rows);
	assert_int_equal(rows, 400);
	tell(t, 920);
	create(&x, b, 1500, &rows);
	assert_int_equal(rows, 912);
	for (unsigned i = 0; i < x.n; i++)
		assert_whole(x.text[i]);
	end(&x);
}

/* Kept when its client gives it up, if its cache may evict it later, and not twice. */
static void kept(void **state)
{
	static uint32_t a[MOST], b[MOST];
	struct shelf x;
	struct text *t;
	uint32_t rows;
	uint64_t id;

	(void)state;
	begin(&x, "evict=lru");
	write_ids(a, 1, MOST, 0);
	write_ids(b, 1, 450, 2);
	t = create(&x, a, 1000, &rows);
	append(t, 700);
	id = t->m.id;
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	assert_int_equal(x.cache->n_sequences, 1);
	assert_true(seq_is_prefix(x.cache->first));
	assert_int_equal(seq_least_rows(x.cache->first), 656);
	assert_null(seq_find(&x.f.store, x.f.user, FIXTURE_SESSION, id));
	assert_int_equal(seq_adopt(&x.f.store, x.f.user, id, FIXTURE_SESSION, &t->m.seq, why),
			 -ENOENT);
	t = create(&x, a, 1000, &rows);
	assert_int_equal(rows, 656);
	assert_whole(t);
	/* What another one offers is not kept again; what is longer takes its place. */
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	assert_int_equal(x.cache->n_sequences, 1);
	t = create(&x, a, 1000, &rows);
	append(t, 300);
	seq_release_session(&x.f.store, FIXTURE_SESSION);
	forget(&x, 0);
	assert_int_equal(x.cache->n_sequences, 2);
	t = create(&x, a, 0, &rows);
	assert_int_equal(x.cache->n_sequences, 2);
	assert_int_equal(seq_drop(t->m.seq, why), 0);
	forget(&x, 0);
	/* And one that goes another way stays beside it. */
	t = create(&x, b, 1000, &rows);
	assert_int_equal(rows, 400);
	append(t, 300);
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	assert_int_equal(x.cache->n_sequences, 2);
	t = create(&x, a, 1000, &rows);
	assert_int_equal(rows, 912);
	assert_whole(t);
	end(&x);
}

static void not_kept(void **state)
{
	static uint32_t a[MOST];
	struct cache *unnamed, *named;
	struct shelf x;
	struct text *t;
	uint32_t rows;

	(void)state;
	begin(&x, ""); /* evict=none: nothing would ever make room again */
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 1000, &rows);
	append(t, 700);
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	assert_int_equal(x.cache->n_sequences, 0);
	/* Without a name it lives as long as somebody has it. */
	named = x.cache;
	x.cache = unnamed = make_cache(&x, x.f.user, "", "evict=lfu");
	t = create(&x, a, 1000, &rows);
	append(t, 700);
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	assert_int_equal(unnamed->n_sequences, 1);
	cache_leave(unnamed);
	assert_ptr_equal(x.f.store.caches, named);
	assert_null(named->next);
	x.cache = named;
	end(&x);
}

/* Ids without room for their hashes: those before are known, and nothing is out of order. */
static void no_room(void **state)
{
	static uint32_t a[MOST];
	struct shelf x;
	struct seq *s;
	struct text *t;
	uint32_t rows, told = 7;
	uint64_t before;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 0, &rows);
	before = x.cache->charged_bytes;
	x.cache->budget_bytes = before + CATALOGUE_BLOCK;
	assert_int_equal(tokens_put(t->m.seq, 0, a, 300, &told), -ENOSPC);
	assert_int_equal(told, 7);
	assert_int_equal(tokens_rows(t->m.seq), 0);
	assert_int_equal(x.cache->charged_bytes, before);
	x.cache->budget_bytes = 2 * before;
	assert_int_equal(prefix_create(x.cache, "", a, 1000, FIXTURE_SESSION, &s, &rows, why),
			 -ENOSPC);
	assert_int_equal(x.cache->charged_bytes, before);
	x.cache->budget_bytes = 0;
	tell(t, 1000);
	append(t, 500);
	create(&x, a, 1000, &rows);
	assert_int_equal(rows, 400);
	end(&x);
}

/* A chain of several blocks: 187 hashes, then 255 each. */
static void long_chain(void **state)
{
	const uint32_t n = 128 * (187 + 255 + 10) + 21;
	uint32_t *a = calloc(n, sizeof(*a)), told, rows;
	struct shelf x;
	struct text *t;
	struct seq *fork;

	(void)state;
	begin(&x, "");
	for (uint32_t i = 0; i < n; i++)
		a[i] = i * 7;
	t = create(&x, a, 0, &rows);
	for (uint32_t i = 0; i < n; i += 1000)
		assert_int_equal(tokens_put(t->m.seq, i, a + i, MIN(n - i, 1000u), &told), 0);
	append(t, 600); /* of other ids than these, which nobody checks */
	assert_int_equal(seq_fork(t->m.seq, 600, FIXTURE_SESSION, &fork, why), 0);
	assert_int_equal(tokens_rows(fork), 528);
	assert_int_equal(seq_drop(fork, why), 0);
	assert_int_equal(prefix_create(x.cache, "", a, n, FIXTURE_SESSION, &fork, &rows, why), 0);
	assert_int_equal(rows, 528);
	assert_int_equal(tokens_rows(fork), n);
	for (uint32_t i = 0; i < n / 128; i++) {
		const struct token_hash *one = tokens_hash(t->m.seq, i),
					*two = tokens_hash(fork, i);

		assert_memory_equal(one, two, sizeof(*one));
	}
	end(&x);
	free(a);
}

/* ---- after a restart ------------------------------------------------------------------- */

static void recovered(void **state)
{
	static uint32_t a[MOST];
	struct recovered count;
	struct shelf x;
	struct text *t;
	uint32_t rows;

	(void)state;
	begin(&x, "evict=lru on_disconnect=park");
	write_ids(a, 1, MOST, 0);
	t = create(&x, a, 1000, &rows);
	append(t, 700);
	assert_int_equal(seq_retire(t->m.seq, why), 0);
	forget(&x, 0);
	t = create(&x, a, 1000, &rows);
	append(t, 1000 - rows);
	forget(&x, 0);
	fixture_restart(&x.f, &count);
	assert_int_equal(count.sequences, 2);
	x.cache = x.f.store.caches;
	x.cache->n_sessions++;
	t = create(&x, a, 1500, &rows);
	assert_int_equal(rows, 912);
	assert_whole(t);
	recover_expire(&x.f.store);
	assert_int_equal(x.cache->n_sequences, 3);
	end(&x);
}

/* A chain that cannot be: forgotten, and its sequence stays if somebody could want it. */
static void damaged(void **state)
{
	static uint32_t a[MOST];

	(void)state;
	for (unsigned what = 0; what < 4; what++) {
		struct recovered count;
		struct sequence_record *r;
		struct token_header *h;
		struct shelf x;
		uint32_t rows;

		begin(&x, "evict=lru on_disconnect=park");
		write_ids(a, 1, MOST, 0);
		append(create(&x, a, 1000, &rows), 700);
		r = x.text[0]->m.seq->record;
		h = catalogue_block(x.f.catalogue, r->tokens);
		if (what == 0)
			r->tokens = 1u << 30;
		else if (what == 1)
			h->next = r->tokens; /* a circle */
		else if (what == 2)
			r->token_rows = 1u << 20; /* more than the chain has */
		else
			h->next = r->block[0]; /* another's block */
		forget(&x, 0);
		fixture_restart(&x.f, &count);
		assert_int_equal(count.sequences, 1);
		x.cache = x.f.store.caches;
		x.cache->n_sessions++;
		assert_int_equal(tokens_rows(x.cache->first), 0);
		assert_int_equal(seq_least_rows(x.cache->first), 700);
		create(&x, a, 1000, &rows);
		assert_int_equal(rows, 0);
		end(&x);
	}
}

/* ---- random ----------------------------------------------------------------------------- */

static uint32_t roll(struct shelf *x, uint32_t below)
{
	x->seed = x->seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(x->seed >> 4) * below >> 28);
}

/* What the best of those that the test knows could offer. */
static uint32_t best(const struct shelf *x, const uint32_t *id, uint32_t n)
{
	uint32_t most = 0;

	for (unsigned i = 0; i < x->n; i++) {
		struct seq *s = x->text[i]->m.seq;
		uint32_t end = MIN(seq_least_rows(s), tokens_rows(s)), same = 0;

		end = MIN(end, n);
		while (same < end && x->text[i]->id[same] == id[same])
			same++;
		same = tokens_end(x->cache, tokens_hashes(x->cache, same));
		most = MAX(most, same);
	}
	return most;
}

static void step(struct shelf *x)
{
	static uint32_t id[MOST];
	struct text *t = x->n ? x->text[roll(x, x->n)] : NULL;
	uint32_t what = roll(x, 10), n, rows, expected;

	if (!t || (what < 3 && x->n < N)) {
		write_ids(id, 1, roll(x, 900), 2 + roll(x, 2));
		n = roll(x, 1000);
		expected = best(x, id, n);
		t = create(x, id, n, &rows);
		assert_int_equal(rows, expected);
		assert_whole(t);
	} else if (what < 7) {
		append(t, MIN(MOST - t->m.rows[0], roll(x, 300)));
		if (tokens_rows(t->m.seq) < t->m.rows[0] && roll(x, 2))
			tell(t, t->m.rows[0]);
	} else if (what < 9) {
		n = roll(x, 2) ? t->m.rows[0] - MIN(t->m.rows[0], 20u) : t->m.rows[0];
		assert_int_equal(model_cut(&t->m, SPARQ_LAYER_ALL, roll(x, n + 1)), 0);
		if (t->m.rows[0] < tokens_rows(t->m.seq))
			fail_msg("ids of rows that are cut");
		/* It goes on as another text. */
		for (uint32_t i = tokens_rows(t->m.seq); i < MOST; i++)
			if (i >= t->m.rows[0])
				t->id[i] = (2 + x->seed % 3) * 10000 + i;
	} else {
		unsigned i = 0;

		while (x->text[i] != t)
			i++;
		assert_int_equal(seq_drop(t->m.seq, why), 0);
		forget(x, i);
	}
}

static unsigned rounds(void)
{
	const char *more = getenv("SPARQ_TEST_ROUNDS");

	return more ? (unsigned)atoi(more) : 250;
}

static void random_texts(void **state)
{
	struct shelf x;

	(void)state;
	begin(&x, "");
	x.seed = 3;
	for (unsigned round = 0; round < rounds(); round++)
		step(&x);
	for (unsigned i = 0; i < x.n; i++)
		assert_whole(x.text[i]);
	end(&x);
}

/* ---- at once ------------------------------------------------------------------------------ */

struct writer {
	struct text *text;
	unsigned stop; /* atomic */
	unsigned busy; /* how often it was told that somebody else has its sequence */
	unsigned steps; /* atomic */
};

static void *write_on(void *arg)
{
	struct writer *w = arg;
	struct model *m = &w->text->m;

	while (!load_acquire(&w->stop)) {
		uint32_t layer = load_relaxed(&w->steps) % MODEL_LAYERS;
		int r;

		if (m->rows[layer] == MOST) {
			w->busy += model_cut(m, SPARQ_LAYER_ALL, 1500) < 0;
			continue;
		}
		m->next_tag = w->text->id[m->rows[layer]] * 2 + layer * 500000000;
		r = model_append(m, layer, 1);
		w->busy += r == -EBUSY;
		store_relaxed(&w->steps, w->steps + (r == 0));
	}
	return NULL;
}

/* A busy owner is not disturbed by those who begin with its rows, and they get them. */
static void while_it_grows(void **state)
{
	static uint32_t a[MOST];
	struct shelf x;
	struct writer w = { 0 };
	pthread_t t;
	unsigned shared = 0;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	w.text = create(&x, a, MOST, &rows);
	append(w.text, 600);
	assert_int_equal(pthread_create(&t, NULL, write_on, &w), 0);
	for (unsigned i = 0; i < 300; i++) {
		struct text *child = create(&x, a, 528, &rows);

		shared += rows == 528;
		if (i % 32 == 0) {
			/* Of a busy machine, not all threads have begun. */
			for (unsigned n = load_relaxed(&w.steps); load_relaxed(&w.steps) == n;)
				sched_yield();
			assert_whole(child);
		}
		assert_int_equal(seq_drop(child->m.seq, why), 0);
		forget(&x, 1);
	}
	store_release(&w.stop, 1u);
	pthread_join(t, NULL);
	assert_int_equal(w.busy, 0);
	/* Not all: it may be at work for as long as one is waited for. */
	if (shared <= 270)
		fail_msg("%u of 300", shared);
	assert_whole(w.text);
	end(&x);
}

struct waiter {
	struct text *text;
	unsigned there; /* atomic */
	int error;
};

static void *hold_once(void *arg)
{
	struct waiter *w = arg;
	struct seq *s = w->text->m.seq;

	store_release(&w->there, 1u);
	w->error = seq_hold(s->cache->store, FIXTURE_SESSION, w->text->m.id, MODEL_RING, &s);
	store_release(&w->there, 2u);
	return NULL;
}

/* Its client's entries wait for as long as another begins with it: they are not refused. */
static void borrowed(void **state)
{
	static uint32_t a[MOST];
	struct shelf x;
	struct waiter w = { 0 };
	pthread_t t;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	w.text = create(&x, a, 0, &rows);
	assert_true(seq_try_borrow(w.text->m.seq, 0));
	assert_int_equal(pthread_create(&t, NULL, hold_once, &w), 0);
	while (!load_acquire(&w.there))
		sched_yield();
	usleep(20000);
	assert_int_equal(load_acquire(&w.there), 1);
	seq_end_borrow(w.text->m.seq);
	pthread_join(t, NULL);
	assert_int_equal(w.error, 0);
	/* Somebody is in it now, and a borrower waits no longer than it said. */
	assert_false(seq_try_borrow(w.text->m.seq, 0));
	seq_release(w.text->m.seq);
	assert_true(seq_try_borrow(w.text->m.seq, 0));
	seq_end_borrow(w.text->m.seq);
	end(&x);
}

/* Lets go of its sequence only to take it again. */
static void *hold_on(void *arg)
{
	struct writer *w = arg;
	struct seq *s = w->text->m.seq;

	while (!load_acquire(&w->stop)) {
		if (seq_hold(s->cache->store, FIXTURE_SESSION, w->text->m.id, MODEL_RING, &s) < 0) {
			w->busy++;
			continue;
		}
		for (unsigned i = 0; i < 200; i++)
			cpu_pause();
		seq_release(s);
		w->steps++;
	}
	return NULL;
}

/* One that is hardly ever idle lets others begin with its rows all the same. */
static void from_a_busy_one(void **state)
{
	static uint32_t a[MOST];
	struct shelf x;
	struct writer w = { 0 };
	pthread_t t;
	unsigned shared = 0;
	uint32_t rows;

	(void)state;
	begin(&x, "");
	write_ids(a, 1, MOST, 0);
	w.text = create(&x, a, MOST, &rows);
	append(w.text, 600);
	assert_int_equal(pthread_create(&t, NULL, hold_on, &w), 0);
	for (unsigned i = 0; i < 200; i++) {
		struct text *child = create(&x, a, 528, &rows);

		shared += rows == 528;
		assert_int_equal(seq_drop(child->m.seq, why), 0);
		forget(&x, 1);
	}
	store_release(&w.stop, 1u);
	pthread_join(t, NULL);
	assert_int_equal(w.busy, 0);
	if (shared <= 150)
		fail_msg("%u of 200", shared);
	end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(longest),
		cmocka_unit_test(each_id_counts),
		cmocka_unit_test(off),
		cmocka_unit_test(apart),
		cmocka_unit_test(cut),
		cmocka_unit_test(kept),
		cmocka_unit_test(not_kept),
		cmocka_unit_test(no_room),
		cmocka_unit_test(long_chain),
		cmocka_unit_test(recovered),
		cmocka_unit_test(damaged),
		cmocka_unit_test(random_texts),
		cmocka_unit_test(while_it_grows),
		cmocka_unit_test(borrowed),
		cmocka_unit_test(from_a_busy_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
