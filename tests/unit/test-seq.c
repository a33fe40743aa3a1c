/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences against a model: append, flush, fork, truncate and drop in random order; what kernels
 * read through the view is what was written, and everything taken comes back. The engine's results
 * rest on the first, everybody else's memory on the second.
 */
#include "daemon/seq.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define CHUNK_BYTES (fixture_kv_heads() * 35000ull) /* and a bit: f32, 64 channels */
#define N 8 /* sequences at once */

static char why[SPARQ_ERROR_TEXT];

static struct cache *make_mixed(struct store_fixture *f, const char *name, const char *options,
				const char *v_format, uint64_t budget)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;

	m.budget_bytes = budget;
	strcpy(m.v_format, v_format);
	assert_int_equal(cache_create(&f->store, f->user, &m, &c, why), 0);
	return c;
}

static struct cache *make_cache(struct store_fixture *f, const char *name, const char *options,
				uint64_t budget)
{
	return make_mixed(f, name, options, "f32", budget);
}

static struct seq *make_seq(struct cache *c, const char *name)
{
	struct seq *s = NULL;

	assert_int_equal(seq_create(c, name, FIXTURE_SESSION, &s, why), 0);
	return s;
}

static void assert_ok(const char *what, unsigned seed, unsigned round)
{
	if (what)
		fail_msg("%s (seed %u, round %u)", what, seed, round);
}

/* ---- random -------------------------------------------------------------------- */

struct walk {
	struct store_fixture f;
	struct cache *cache;
	struct model model[N];
	bool live[N];
	uint32_t state, tag;
	unsigned refused, forks, cuts;
};

static uint32_t roll(struct walk *w, uint32_t below)
{
	w->state = w->state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(w->state >> 4) * below >> 28);
}

static uint32_t least(const struct model *m)
{
	return MIN(m->rows[0], m->rows[1]);
}

static void step_append(struct walk *w, struct model *m)
{
	static const uint32_t most[] = { 4, 70, 300, 512 };
	uint32_t n = 1 + roll(w, most[roll(w, 4)]);
	uint32_t first = roll(w, 8) ? 0 : 1; /* mostly both layers */
	int r;

	for (uint32_t layer = first; layer < MODEL_LAYERS; layer++) {
		r = model_append(m, layer, n);
		assert_true(r == 0 || r == -E2BIG || r == -ENOSPC);
		w->refused += r == -ENOSPC;
	}
}

static void step_cut(struct walk *w, struct model *m)
{
	uint32_t rows = least(m), layer = roll(w, 3) ? SPARQ_LAYER_ALL : roll(w, MODEL_LAYERS);

	/* A few drafts, somewhere, a tile's end, sinks, all. */
	switch (roll(w, 6)) {
	case 0:
	case 1:
		rows -= MIN(rows, roll(w, 12));
		break;
	case 2:
	case 3:
		rows = roll(w, rows + 1);
		break;
	case 4:
		rows = 16 + roll(w, rows / 128 + 1) * 128;
		break;
	default:
		rows = roll(w, 18);
	}
	rows = MIN(rows, least(m));
	assert_int_equal(model_cut(m, layer, rows), 0);
	w->cuts++;
}

static void step_fork(struct walk *w, unsigned from, unsigned to)
{
	struct model *m = &w->model[from];
	uint32_t rows = roll(w, 3) ? least(m) : roll(w, least(m) + 1);
	struct seq *s;
	int r;

	r = seq_fork(m->seq, rows, FIXTURE_SESSION, &s, why);
	if (r < 0) {
		assert_true(r == -EDQUOT || r == -ENOSPC);
		w->refused++;
		return;
	}
	model_fork(&w->model[to], m, s, rows, w->tag);
	w->live[to] = true;
	w->forks++;
}

static void step_begin(struct walk *w, unsigned i)
{
	struct seq *s;
	int r;

	r = seq_create(w->cache, "", FIXTURE_SESSION, &s, why);
	if (r < 0) {
		w->refused++;
		return;
	}
	model_init(&w->model[i], &w->f, s, w->tag);
	w->live[i] = true;
}

static void step_drop(struct walk *w, unsigned i)
{
	assert_int_equal(seq_drop(w->model[i].seq, why), 0);
	model_deinit(&w->model[i]);
	w->live[i] = false;
}

static void step(struct walk *w)
{
	unsigned i = roll(w, N), what = roll(w, 100);
	struct model *m = &w->model[i];

	/* Every row of the whole walk is made of another number. */
	w->tag += 1024;
	if (!w->live[i]) {
		unsigned from = roll(w, N);

		if (w->live[from])
			step_fork(w, from, i);
		else
			step_begin(w, i);
		return;
	}
	m->next_tag = w->tag;
	if (what < 70)
		step_append(w, m);
	else if (what < 95)
		step_cut(w, m);
	else
		step_drop(w, i);
}

static void check_some(struct walk *w, unsigned seed, unsigned round)
{
	unsigned i = roll(w, N);

	for (unsigned j = 0; j < N; j++)
		if (w->live[j])
			assert_ok(model_check_record(&w->model[j]), seed, round);
	if (!w->live[i])
		return;
	if (roll(w, 4) == 0)
		assert_ok(model_check(&w->model[i], roll(w, least(&w->model[i]) + 1)), seed, round);
	else
		assert_ok(model_check(&w->model[i], UINT32_MAX), seed, round);
}

static void walk(unsigned seed, const char *options, const char *v_format, uint64_t budget,
		 size_t pool, size_t catalogue, unsigned rounds, bool refusals)
{
	struct walk *w = calloc(1, sizeof(*w));

	w->state = seed;
	fixture_open(&w->f, pool, catalogue);
	w->cache = make_mixed(&w->f, "walk", options, v_format, budget);
	for (unsigned round = 0; round < rounds; round++) {
		step(w);
		check_some(w, seed, round);
	}
	for (unsigned i = 0; i < N; i++) {
		if (!w->live[i])
			continue;
		assert_ok(model_check(&w->model[i], UINT32_MAX), seed, rounds);
		step_drop(w, i);
	}
	assert_int_equal(w->cache->charged_bytes, 0);
	assert_true(w->forks > 0 && w->cuts > 0);
	assert_int_equal(w->refused > 0, refusals);
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
	free(w);
}

static unsigned rounds(void)
{
	const char *more = getenv("SPARQ_TEST_ROUNDS");

	return more ? (unsigned)atoi(more) : 600;
}

static void random_walk(void **state)
{
	(void)state;
	walk(1, "", "f32", 0, GIB, 16 * MIB, rounds(), false);
	walk(2, "rollback=0", "f32", 0, GIB, 16 * MIB, rounds(), false);
	walk(3, "sinks=0 rollback=128", "f32", 0, GIB, 16 * MIB, rounds(), false);
	walk(4, "sinks=3 rollback=1", "f32", 0, GIB, 16 * MIB, rounds(), false);
	/* Pages of two sizes: the rows of the model are exact in f16 as well. */
	walk(8, "", "f32,f16:1", 0, GIB, 16 * MIB, rounds(), false);
}

/* The same where something is always short: each refusal leaves what was there. */
static void random_walk_short_of(void **state)
{
	(void)state;
	walk(5, "", "f32", 6 * MIB, GIB, 16 * MIB, rounds(), true);
	walk(6, "", "f16,f32:1", 0, 16 * MIB, 16 * MIB, rounds(), true);
	walk(7, "", "f32", 0, GIB, CATALOGUE_BLOCK * 20, rounds(), true);
}

/* ---- one by one ------------------------------------------------------------------- */

struct single {
	struct store_fixture f;
	struct cache *cache;
	struct model m;
};

static int setup(void **state)
{
	struct single *x = calloc(1, sizeof(*x));

	fixture_open(&x->f, GIB, 16 * MIB);
	x->cache = make_cache(&x->f, "one", "on_disconnect=park", 0);
	model_init(&x->m, &x->f, make_seq(x->cache, "s"), 1);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct single *x = *state;

	if (x->m.seq)
		assert_int_equal(seq_drop(x->m.seq, why), 0);
	model_deinit(&x->m);
	cache_unref(x->cache);
	fixture_assert_empty(&x->f);
	fixture_close(&x->f);
	free(x);
	return 0;
}

static void append_both(struct model *m, uint32_t n)
{
	while (n) {
		uint32_t part = MIN(n, SPARQ_MAX_ROWS);

		assert_int_equal(model_append(m, 0, part), 0);
		assert_int_equal(model_append(m, 1, part), 0);
		n -= part;
	}
}

/* 16 sinks, a flush when 128 rows have 16 newer ones, eight short extents, then long ones. */
static void layout(void **state)
{
	struct single *x = *state;
	struct kv_extent extent[16];
	struct kv_view view;

	append_both(&x->m, 16 + 128 + 15);
	assert_int_equal(seq_extents(x->m.seq, 0), 0);
	append_both(&x->m, 1);
	assert_int_equal(seq_extents(x->m.seq, 0), 1);
	append_both(&x->m, 9 * 128);
	assert_int_equal(seq_view(x->m.seq, 0, x->m.rows[0], extent, 16, &view), 0);
	assert_int_equal(view.n_extents, 9);
	assert_int_equal(view.n_sinks, 16);
	assert_int_equal(view.tail_rows, 16);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(extent[i].tiles, 1);
	assert_int_equal(extent[8].tiles, KV_EXTENT_TILES);
	assert_int_equal(extent[8].used, 2);
	assert_int_equal(seq_view(x->m.seq, 0, x->m.rows[0], extent, 8, &view), -E2BIG);
}

static void row_limit(void **state)
{
	struct single *x = *state;

	x->f.store.max_rows = 100;
	append_both(&x->m, 99);
	assert_int_equal(model_append(&x->m, 0, 2), -E2BIG);
	assert_int_equal(model_append(&x->m, 0, 1), 0);
	assert_int_equal(model_append(&x->m, 0, 1), -E2BIG);
}

/* A tile counted in part is followed by another table: many of them, one upon the other. */
static void cut_in_tiles(void **state)
{
	struct single *x = *state;
	uint64_t before = x->m.seq->bytes;

	for (unsigned i = 0; i < 40; i++) {
		append_both(&x->m, 150);
		assert_int_equal(model_cut(&x->m, SPARQ_LAYER_ALL, x->m.rows[0] - 130), 0);
		assert_ok(model_check_record(&x->m), 0, i);
	}
	assert_ok(model_check(&x->m, UINT32_MAX), 0, 0);
	assert_int_equal(model_cut(&x->m, SPARQ_LAYER_ALL, 0), 0);
	assert_int_equal(x->m.seq->bytes, before);
}

/* Rows without contents: what is taken for them is all that matters here. */
static int append_bare(struct seq *s, uint32_t n)
{
	struct kv_extent extent;
	unsigned slot;
	int r = seq_reserve(s, 0, n);

	if (r < 0)
		return r;
	seq_commit(s, 0, seq_rows(s, 0) + n);
	while (r == 0 && seq_flush_due(s, 0)) {
		r = seq_flush_begin(s, 0, &extent, &slot);
		if (r == 0)
			seq_flush_commit(s, 0);
	}
	return r;
}

static void assert_extents(struct seq *s, uint32_t n)
{
	static struct kv_extent extent[600];
	struct kv_view view;

	assert_int_equal(seq_extents(s, 0), n);
	assert_int_equal(seq_view(s, 0, seq_rows(s, 0), extent, 600, &view), 0);
	assert_int_equal(view.n_extents, n);
	for (uint32_t i = 1; i < n; i++) {
		const struct kv_extent *e = &extent[i - 1];

		assert_int_equal(extent[i].first_row,
				 e->first_row + (e->used - 1) * KV_TILE_ROWS + e->last_rows);
	}
}

/* A catalogue block holds 254 entries: tables are chains, and shrink to what is left of them. */
static void long_table(void **state)
{
	struct single *x = *state;
	struct seq *s = x->m.seq, *child;
	uint64_t at_full, at_more;

	while (seq_extents(s, 0) < 254 || (seq_rows(s, 0) - 16) / 128 < 8 + 246 * 8)
		assert_int_equal(append_bare(s, 128), 0);
	at_full = s->bytes;
	/* The next extent needs a block and a page; there is room for the block alone. */
	x->cache->budget_bytes = x->cache->charged_bytes + CATALOGUE_BLOCK + 3 * CHUNK_BYTES;
	while (append_bare(s, 16) == 0)
		;
	assert_int_equal(seq_extents(s, 0), 254);
	assert_true(s->bytes - at_full < CATALOGUE_BLOCK + 3 * CHUNK_BYTES);
	at_full = s->bytes;
	assert_true(seq_flush_due(s, 0));
	assert_int_equal(append_bare(s, 0), -ENOSPC);
	assert_int_equal(s->bytes, at_full);
	x->cache->budget_bytes = 0;
	while (seq_extents(s, 0) < 520)
		assert_int_equal(append_bare(s, 512), 0);
	assert_extents(s, 520);
	at_more = s->bytes;
	assert_int_equal(seq_cut(s, 0, 16 + 1024 + 250 * 1024 + 128), 0);
	assert_extents(s, 259);
	assert_true(s->bytes < at_more / 2 + CATALOGUE_BLOCK * 4);
	assert_int_equal(append_bare(s, 512), 0);
	assert_int_equal(append_bare(s, 512), 0);
	assert_extents(s, 259);
	/* Layer 1 has no rows, so a fork has none; a cut to the middle leaves the table. */
	assert_int_equal(seq_fork(s, 0, FIXTURE_SESSION, &child, why), 0);
	assert_int_equal(seq_drop(child, why), 0);
	assert_int_equal(seq_cut(s, 0, 16 + 77), 0);
	assert_extents(s, 1);
	while (seq_extents(s, 0) < 300)
		assert_int_equal(append_bare(s, 512), 0);
	assert_extents(s, 300);
}

static void cut_refused(void **state)
{
	struct single *x = *state;

	append_both(&x->m, 10);
	assert_int_equal(model_append(&x->m, 0, 5), 0);
	assert_int_equal(model_cut(&x->m, SPARQ_LAYER_ALL, 12), -EINVAL);
	assert_int_equal(seq_rows(x->m.seq, 0), 15);
	assert_int_equal(seq_truncate(x->m.seq, 12, why), -EINVAL);
	assert_non_null(strstr(why, "12"));
	assert_int_equal(model_cut(&x->m, 0, 12), 0);
	assert_int_equal(seq_truncate(x->m.seq, 10, why), 0);
	assert_int_equal(seq_rows(x->m.seq, 0), 10);
}

/* Both sides go on where they parted; neither sees the other's rows. */
static void fork_parts(void **state)
{
	struct single *x = *state;
	struct model child, grandchild;
	struct seq *s;

	append_both(&x->m, 2500);
	assert_int_equal(seq_fork(x->m.seq, 2501, FIXTURE_SESSION, &s, why), -EINVAL);
	assert_int_equal(seq_fork(x->m.seq, 2400, FIXTURE_SESSION, &s, why), 0);
	model_fork(&child, &x->m, s, 2400, 100000);
	append_both(&child, 1500);
	append_both(&x->m, 1500);
	assert_int_equal(seq_fork(child.seq, 3000, FIXTURE_SESSION, &s, why), 0);
	model_fork(&grandchild, &child, s, 3000, 200000);
	/* The parent goes below what it shares: it must not write those slots again. */
	assert_int_equal(model_cut(&x->m, SPARQ_LAYER_ALL, 1200), 0);
	append_both(&x->m, 2000);
	append_both(&grandchild, 700);
	assert_ok(model_check(&child, UINT32_MAX), 0, 0);
	assert_ok(model_check(&grandchild, UINT32_MAX), 0, 0);
	assert_ok(model_check(&x->m, UINT32_MAX), 0, 0);
	assert_int_equal(seq_drop(child.seq, why), 0);
	assert_ok(model_check(&grandchild, UINT32_MAX), 0, 0);
	assert_int_equal(seq_drop(x->m.seq, why), 0);
	x->m.seq = NULL;
	assert_ok(model_check(&grandchild, UINT32_MAX), 0, 0);
	assert_int_equal(seq_drop(grandchild.seq, why), 0);
	model_deinit(&child);
	model_deinit(&grandchild);
}

/* A fork shares what is sealed: it must not cost what its parent cost. */
static void fork_is_cheap(void **state)
{
	struct single *x = *state;
	uint64_t before;
	struct seq *s;

	append_both(&x->m, 5000);
	before = x->cache->charged_bytes;
	assert_int_equal(seq_fork(x->m.seq, 5000, FIXTURE_SESSION, &s, why), 0);
	assert_true(x->cache->charged_bytes - before < before / 8);
	assert_int_equal(x->cache->charged_bytes - before, s->bytes);
	assert_int_equal(seq_drop(s, why), 0);
	assert_int_equal(x->cache->charged_bytes, before);
}

/* ---- names, sessions, holds ---------------------------------------------------------- */

static void names(void **state)
{
	struct single *x = *state;
	struct seq *s = NULL;

	assert_int_equal(seq_create(x->cache, "s", FIXTURE_SESSION, &s, why), -EEXIST);
	assert_int_equal(seq_create(x->cache, "a/b", FIXTURE_SESSION, &s, why), -EINVAL);
	assert_int_equal(seq_attach(x->cache, "s", FIXTURE_SESSION + 1, &s, why), -EBUSY);
	assert_int_equal(seq_attach(x->cache, "t", FIXTURE_SESSION + 1, &s, why), -ENOENT);
	assert_int_equal(seq_attach(x->cache, "", FIXTURE_SESSION + 1, &s, why), -EINVAL);
	assert_null(s);
	/* Parked: another session of the owner may have it, and then it alone. */
	append_both(&x->m, 20);
	seq_release_session(&x->f.store, FIXTURE_SESSION);
	assert_int_equal(model_append(&x->m, 0, 1), -ENOENT);
	assert_int_equal(seq_attach(x->cache, "s", FIXTURE_SESSION, &s, why), 0);
	assert_ptr_equal(s, x->m.seq);
	assert_ok(model_check(&x->m, UINT32_MAX), 0, 0);
}

static void dropped_with_session(void **state)
{
	struct single *x = *state;
	struct cache *c = make_cache(&x->f, "drop", "", 0);
	struct seq *a = make_seq(c, "a"), *b = make_seq(c, "");

	(void)a, (void)b;
	cache_unref(c);
	assert_non_null(cache_find(&x->f.store, x->f.user, c->id));
	seq_release_session(&x->f.store, FIXTURE_SESSION + 1);
	assert_int_equal(c->n_sequences, 2);
	seq_release_session(&x->f.store, FIXTURE_SESSION);
	/* And the cache with its last sequence. */
	assert_ptr_equal(x->f.store.caches, x->cache);
	assert_null(x->cache->next);
	assert_int_equal(seq_attach(x->cache, "s", FIXTURE_SESSION, &a, why), 0);
}

static void stale_ids(void **state)
{
	struct single *x = *state;
	struct seq *s, *held;
	uint64_t id;

	s = make_seq(x->cache, "t");
	id = s->id;
	assert_ptr_equal(seq_find(&x->f.store, x->f.user, FIXTURE_SESSION, id), s);
	assert_null(seq_find(&x->f.store, x->f.stranger, FIXTURE_SESSION, id));
	assert_null(seq_find(&x->f.store, x->f.user, FIXTURE_SESSION + 1, id));
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION + 1, id, 1, &held), -ENOENT);
	assert_int_equal(seq_drop(s, why), 0);
	for (uint64_t wrong = 0; wrong < 40; wrong++) {
		assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, wrong, 1, &held), -ENOENT);
		assert_null(seq_find(&x->f.store, x->f.user, FIXTURE_SESSION, wrong));
	}
	/* Around all slots: the same one again is another id. */
	for (unsigned i = 0; i < 64; i++) {
		s = make_seq(x->cache, "u");
		assert_int_not_equal(s->id, id);
		assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 1, &held), -ENOENT);
		assert_null(seq_find(&x->f.store, x->f.user, FIXTURE_SESSION, id));
		assert_int_equal(seq_drop(s, why), 0);
	}
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, UINT64_MAX, 1, &held), -ENOENT);
}

static void busy(void **state)
{
	struct single *x = *state;
	struct seq *s = x->m.seq, *held, *child = NULL;
	uint64_t id = s->id;

	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 1, &held), 0);
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 1, &held), 0);
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 2, &held), -EBUSY);
	seq_release(s);
	/* Still one entry of ring 1. */
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 2, &held), -EBUSY);
	assert_false(seq_try_control(s));
	assert_int_equal(seq_fork(s, 0, FIXTURE_SESSION, &child, why), -EBUSY);
	assert_int_equal(seq_truncate(s, 0, why), -EBUSY);
	assert_int_equal(seq_drop(s, why), -EBUSY);
	assert_null(child);
	seq_release(s);
	assert_true(seq_try_control(s));
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 1, &held), -EBUSY);
	assert_int_equal(seq_truncate(s, 0, why), -EBUSY);
	seq_end_control(s);
	assert_int_equal(seq_hold(&x->f.store, FIXTURE_SESSION, id, 2, &held), 0);
	seq_release(held);
	assert_int_equal(s->owner, 0);
}

static void stat(void **state)
{
	struct single *x = *state;
	struct sparq_msg_seq_stat st;
	struct sparq_msg_cache_stat cst;

	append_both(&x->m, 30);
	assert_int_equal(model_append(&x->m, 1, 4), 0);
	assert_int_equal(seq_stat(x->m.seq, SPARQ_LAYER_ALL, &st), 0);
	assert_int_equal(st.rows_least, 30);
	assert_int_equal(st.rows_most, 34);
	assert_int_equal(st.bytes, x->cache->charged_bytes);
	assert_int_equal(st.bytes, x->f.user->charged[USER_BYTES]);
	assert_int_equal(seq_stat(x->m.seq, 1, &st), 0);
	assert_int_equal(st.rows_least, 34);
	assert_int_equal(seq_stat(x->m.seq, 2, &st), -EINVAL);
	cache_stat(x->cache, &cst);
	assert_int_equal(cst.sequences, 1);
	assert_int_equal(cst.rows, 30);
	assert_int_equal(cst.bytes, st.bytes);
	assert_int_equal(cst.dense_row_bytes, 2 * fixture_kv_heads() * 128 * 2);
}

/* ---- quotas ---------------------------------------------------------------------------- */

static void sequence_quota(void **state)
{
	struct single *x = *state;
	struct seq *s[32], *none = NULL;
	unsigned n = 0;

	while (seq_create(x->cache, "", FIXTURE_SESSION, &s[n], why) == 0)
		n++;
	assert_int_equal(n, 23); /* of 24, and one is there */
	assert_non_null(strstr(why, "24"));
	assert_int_equal(seq_fork(x->m.seq, 0, FIXTURE_SESSION, &none, why), -EDQUOT);
	assert_null(none);
	while (n)
		assert_int_equal(seq_drop(s[--n], why), 0);
	assert_int_equal(x->f.user->charged[USER_SEQUENCES], 1);
}

/* When nothing more can be had the rows that are there stay, and room made lets it go on. */
static void tail_waits_for_room(void **state)
{
	struct single *x = *state;
	struct cache *c = make_cache(&x->f, "tight", "", fixture_kv_heads() * MIB);
	struct model m, other;
	int r = 0;

	model_init(&m, &x->f, make_seq(c, ""), 1);
	model_init(&other, &x->f, make_seq(c, ""), 500000);
	append_both(&other, 600);
	for (unsigned i = 0; i < 4000 && r == 0; i++)
		r = model_append(&m, i % 2, 7);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(m.seq->shortage.limit, LIMIT_BUDGET);
	assert_ok(model_check(&m, UINT32_MAX), 0, 0);
	assert_int_equal(seq_drop(other.seq, why), 0);
	assert_int_equal(model_append(&m, 0, 7), 0);
	assert_int_equal(model_append(&m, 1, 7), 0);
	assert_ok(model_check(&m, UINT32_MAX), 0, 0);
	assert_int_equal(seq_drop(m.seq, why), 0);
	assert_int_equal(c->charged_bytes, 0);
	model_deinit(&m);
	model_deinit(&other);
	cache_unref(c);
}

/* ---- at once ------------------------------------------------------------------------------ */

struct actor {
	struct model *m;
	unsigned seed;
	unsigned done; /* atomic */
	const char *wrong;
};

/* One worker on one sequence, whose table others read and refer to. */
static void *act(void *arg)
{
	struct actor *a = arg;
	uint32_t x = a->seed;

	for (unsigned round = 0; !a->wrong && round < 120; round++) {
		uint32_t rows = a->m->rows[0], to;

		x = x * 1664525u + 1013904223u;
		to = rows - MIN(rows, (x >> 8) % 700);
		if (rows > 3000 || (x >> 4) % 4 == 0) {
			while (model_cut(a->m, SPARQ_LAYER_ALL, to) == -EBUSY)
				;
		} else {
			for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
				while (model_append(a->m, layer, 1 + (x >> 16) % 300) == -EBUSY)
					;
		}
		if (round % 8 == 0)
			while ((a->wrong = model_check(a->m, UINT32_MAX)) != NULL &&
			       !strcmp(a->wrong, "not to be held"))
				;
		sched_yield(); /* or the control thread never finds it idle */
	}
	store_release(&a->done, 1u);
	return NULL;
}

/* Workers append and cut both sides of a fork while the control thread forks and drops more. */
static void threads(void **state)
{
	struct single *x = *state;
	struct model child;
	struct actor actor[2] = { { .m = &x->m, .seed = 1 }, { .m = &child, .seed = 2 } };
	pthread_t t[2];
	struct seq *s;
	unsigned forks = 0;

	append_both(&x->m, 1800);
	assert_int_equal(seq_fork(x->m.seq, 1800, FIXTURE_SESSION, &s, why), 0);
	model_fork(&child, &x->m, s, 1800, 1000000);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, act, &actor[i]), 0);
	for (unsigned i = 0; !load_acquire(&actor[0].done) || !load_acquire(&actor[1].done); i++) {
		struct sparq_msg_seq_stat st;
		struct seq *from = i % 2 ? x->m.seq : child.seq, *extra;

		assert_int_equal(seq_stat(from, SPARQ_LAYER_ALL, &st), 0);
		if (seq_fork(from, (uint32_t)st.rows_least / 2, FIXTURE_SESSION, &extra, why) < 0)
			continue;
		forks++;
		assert_int_equal(seq_drop(extra, why), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		assert_ok(actor[i].wrong, i, 0);
		assert_ok(model_check(actor[i].m, UINT32_MAX), i, 0);
		assert_ok(model_check_record(actor[i].m), i, 0);
	}
	assert_true(forks > 0);
	assert_int_equal(seq_drop(child.seq, why), 0);
	model_deinit(&child);
}

struct holder {
	struct store *st;
	uint64_t id;          /* atomic */
	unsigned stop;        /* atomic */
	uint64_t held, wrong; /* atomic */
};

static void *hold_all(void *arg)
{
	struct holder *h = arg;

	while (!load_acquire(&h->stop)) {
		uint64_t id = load_acquire(&h->id);
		struct seq *s;

		if (seq_hold(h->st, FIXTURE_SESSION, id, 9, &s) < 0)
			continue;
		fetch_add(&h->wrong, (uint64_t)(load_acquire(&s->id) != id));
		fetch_add(&h->held, (uint64_t)1);
		seq_release(s);
	}
	return NULL;
}

/* A worker that is late finds the sequence gone, never another one in its place. */
static void hold_and_drop(void **state)
{
	struct single *x = *state;
	struct holder h = { .st = &x->f.store };
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, hold_all, &h), 0);
	for (unsigned i = 0; i < 20000 || load_acquire(&h.held) < 100; i++) {
		struct seq *s = make_seq(x->cache, "");

		store_release(&h.id, s->id);
		if (i % 64 == 0)
			sched_yield();
		while (seq_drop(s, why) == -EBUSY)
			;
	}
	store_release(&h.stop, 1u);
	pthread_join(t, NULL);
	assert_true(h.held > 0);
	assert_int_equal(h.wrong, 0);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_walk),
		cmocka_unit_test(random_walk_short_of),
		ONE(layout),
		ONE(row_limit),
		ONE(cut_in_tiles),
		ONE(long_table),
		ONE(cut_refused),
		ONE(fork_parts),
		ONE(fork_is_cheap),
		ONE(names),
		ONE(dropped_with_session),
		ONE(stale_ids),
		ONE(busy),
		ONE(stat),
		ONE(sequence_quota),
		ONE(tail_waits_for_room),
		ONE(threads),
		ONE(hold_and_drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
