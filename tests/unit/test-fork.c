/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks share the pages of sinks and tail until one of them writes: whoever does must not be seen
 * by the others, and until then nothing is taken. Parallel samples of one prompt rest on both, and
 * everybody's quota on each page being paid by each who holds it.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/layer.h"
#include "daemon/seq.h"
#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"

static char why[SPARQ_ERROR_TEXT];

struct family {
	struct store_fixture f;
	struct cache *cache;
	struct model m[12];
	unsigned n;
	uint32_t tag; /* of the next fork's own rows */
};

static void begin(struct family *x, const char *options, size_t pool)
{
	struct sparq_msg_cache_create m = fixture_request("family", options);
	struct seq *s;

	*x = (struct family){ 0 };
	fixture_open(&x->f, pool, 16 * MIB);
	assert_int_equal(cache_create(&x->f.store, x->f.user, &m, &x->cache, why), 0);
	assert_int_equal(seq_create(x->cache, "", FIXTURE_SESSION, &s, why), 0);
	model_init(&x->m[x->n++], &x->f, s, 1);
}

static struct model *fork_of(struct family *x, const struct model *parent, uint32_t rows)
{
	struct model *m = &x->m[x->n];
	struct seq *s;

	assert_int_equal(seq_fork(parent->seq, rows, FIXTURE_SESSION, &s, why), 0);
	x->n++;
	x->tag += 1000000;
	model_fork(m, parent, s, rows, x->tag);
	return m;
}

static void drop(struct model *m)
{
	if (m->seq)
		assert_int_equal(seq_drop(m->seq, why), 0);
	m->seq = NULL;
	model_deinit(m);
	*m = (struct model){ 0 };
}

static void end(struct family *x)
{
	for (unsigned i = 0; i < x->n; i++)
		drop(&x->m[i]);
	assert_int_equal(x->cache->charged_bytes, 0);
	cache_unref(x->cache);
	fixture_assert_empty(&x->f);
	fixture_close(&x->f);
}

static void append(struct model *m, uint32_t n)
{
	while (n) {
		uint32_t part = MIN(n, SPARQ_MAX_ROWS);

		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			assert_int_equal(model_append(m, layer, part), 0);
		n -= part;
	}
}

static void assert_all(struct family *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const char *what = x->m[i].seq ? model_check(&x->m[i], UINT32_MAX) : NULL;

		if (!what && x->m[i].seq)
			what = model_check_record(&x->m[i]);
		if (what)
			fail_msg("sequence %u: %s", i, what);
	}
	assert_true(x->f.pool.used_bytes <= x->cache->charged_bytes);
}

/* ---- one by one -------------------------------------------------------------------- */

/* What the pool is short of for each: what is charged may be a few grains more. */
static uint64_t page_bytes(struct family *x)
{
	uint64_t used = x->f.pool.used_bytes;
	page_ref page;

	assert_int_equal(pool_take(&x->f.pool, 0, layer_chunk_size(x->m[0].seq), FIXTURE_UID,
				   &page),
			 0);
	used = x->f.pool.used_bytes - used;
	pool_put(&x->f.pool, page);
	return used;
}

/* A page a layer, and only by the one that writes first; the last one left writes in place. */
static void copied_by_who_writes(void **state)
{
	struct family x;
	struct model *child;
	uint64_t used;

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 16 + 500 + 7);
	used = x.f.pool.used_bytes;
	child = fork_of(&x, &x.m[0], 523);
	assert_int_equal(x.f.pool.used_bytes, used);
	append(child, 1);
	assert_int_equal(x.f.pool.used_bytes, used + MODEL_LAYERS * page_bytes(&x));
	append(&x.m[0], 1);
	append(child, 1);
	assert_int_equal(x.f.pool.used_bytes, used + MODEL_LAYERS * page_bytes(&x));
	assert_all(&x);
	drop(child);
	assert_int_equal(x.f.pool.used_bytes, used);
	append(&x.m[0], 1);
	assert_int_equal(x.f.pool.used_bytes, used);
	assert_all(&x);
	end(&x);
}

/* Whoever is left pays for what it has, whoever took it. */
static void each_is_charged(void **state)
{
	struct family x;
	struct model *child;
	uint64_t alone;

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 16 + 100);
	alone = x.m[0].seq->bytes;
	child = fork_of(&x, &x.m[0], 116);
	assert_int_equal(child->seq->bytes, alone);
	assert_int_equal(x.cache->charged_bytes, 2 * alone);
	append(child, 1);
	assert_int_equal(child->seq->bytes, alone);
	drop(&x.m[0]);
	assert_int_equal(x.cache->charged_bytes, alone);
	assert_true(x.f.pool.used_bytes <= alone);
	x.cache->budget_bytes = 2 * alone - 1;
	assert_int_equal(seq_fork(child->seq, 117, FIXTURE_SESSION, &x.m[0].seq, why), -ENOSPC);
	assert_non_null(strstr(why, "budget"));
	assert_null(x.m[0].seq);
	assert_int_equal(x.cache->charged_bytes, alone);
	end(&x);
}

/* In sinks, at their end, in each chunk, at chunks' and tiles' ends, in sealed tiles. */
static void forks_at_every_place(void **state)
{
	static const uint32_t at[] = { 0,   1,   15,  16,  17,  79,  80,  81,  143,
				       144, 145, 399, 400, 401, 463, 464, 500, 523 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		struct family x;
		struct model *child, *other;

		begin(&x, "", GIB);
		append(&x.m[0], 523);
		child = fork_of(&x, &x.m[0], at[i]);
		other = fork_of(&x, child, at[i]);
		assert_all(&x);
		append(child, 3);
		append(&x.m[0], 3);
		assert_all(&x);
		append(other, 150);
		append(child, 150);
		append(&x.m[0], 150);
		assert_all(&x);
		end(&x);
	}
}

/* Fewer rows of a page that another counts more rows of: the next row goes to a copy. */
static void cut_and_append(void **state)
{
	struct family x;
	struct model *child;

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 16 + 60);
	child = fork_of(&x, &x.m[0], 76);
	assert_int_equal(model_cut(child, SPARQ_LAYER_ALL, 40), 0);
	append(child, 10);
	assert_all(&x);
	child = fork_of(&x, child, 50);
	assert_int_equal(model_cut(child, SPARQ_LAYER_ALL, 5), 0);
	append(child, 30);
	assert_all(&x);
	assert_int_equal(model_cut(&x.m[0], SPARQ_LAYER_ALL, 0), 0);
	append(&x.m[0], 20);
	assert_all(&x);
	end(&x);
}

/* No page for the copy: refused, nothing is written, and it goes on when there is one. */
static void no_room_for_a_copy(void **state)
{
	static page_ref page[4096];
	struct family x;
	struct model *child;
	unsigned n = 0;

	(void)state;
	begin(&x, "", 8 * MIB);
	append(&x.m[0], 16 + 30);
	child = fork_of(&x, &x.m[0], 46);
	while (pool_take(&x.f.pool, 0, layer_chunk_size(child->seq), 1, &page[n]) == 0)
		n++;
	assert_true(n > 0);
	assert_int_equal(model_append(child, 0, 1), -ENOSPC);
	assert_int_equal(model_append(&x.m[0], 1, 1), -ENOSPC);
	while (n)
		pool_put(&x.f.pool, page[--n]);
	assert_all(&x);
	append(child, 1);
	append(&x.m[0], 1);
	assert_all(&x);
	end(&x);
}

/* ---- drafts ----------------------------------------------------------------------- */

/* A word for all that a cut in the tail must leave: tables and counted tiles. */
static void assert_only_rows_change(struct model *m, uint32_t drafts)
{
	struct layer_record before[MODEL_LAYERS];
	uint32_t rows = m->rows[0];

	append(m, drafts);
	for (uint32_t i = 0; i < MODEL_LAYERS; i++)
		before[i] = *m->seq->layer[i].record;
	assert_int_equal(model_cut(m, SPARQ_LAYER_ALL, rows), 0);
	for (uint32_t i = 0; i < MODEL_LAYERS; i++) {
		const struct layer_record *r = m->seq->layer[i].record;

		assert_int_equal(r->reach, before[i].reach);
		assert_int_equal(commit_unpack(r->commit).tiles,
				 commit_unpack(before[i].commit).tiles);
	}
}

/* The newest `rollback` rows are never sealed: drafts come and go by one store a layer. */
static void drafts_stay_in_the_tail(void **state)
{
	static const struct {
		const char *options;
		uint32_t rollback;
	} kind[] = { { "rollback=1", 1 }, { "", 16 }, { "rollback=128", 128 } };

	(void)state;
	for (unsigned k = 0; k < ARRAY_SIZE(kind); k++) {
		struct family x;

		begin(&x, kind[k].options, GIB);
		for (unsigned i = 0; i < 300; i++) {
			append(&x.m[0], 1 + i % 3);
			assert_only_rows_change(&x.m[0], kind[k].rollback);
		}
		assert_all(&x);
		end(&x);
	}
}

/* ---- other rows -------------------------------------------------------------------- */

static void overwrite(struct model *m, uint32_t row, uint32_t n)
{
	for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
		assert_int_equal(model_overwrite(m, layer, row, n), 0);
}

/* An extent of eight tiles that a fork sees through the old table and the parent through the new
 * one: a parent that cuts its rows and seals others must not seal them over the fork's. */
static void seals_beside_a_shared_page(void **state)
{
	struct family x;
	struct model *child;

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 16 + 1024 + 5 * 128 + 16);
	child = fork_of(&x, &x.m[0], 16 + 1024 + 5 * 128);
	overwrite(&x.m[0], 20, 3); /* the long extent stays, with a correction */
	assert_all(&x);
	/* Only in the new table: the old one is the fork's. */
	assert_int_equal(model_cut(&x.m[0], SPARQ_LAYER_ALL, 16 + 1024 + 2 * 128), 0);
	append(&x.m[0], 4 * 128);
	assert_all(&x);
	overwrite(child, 16 + 1024 + 130, 200);
	append(child, 300);
	assert_all(&x);
	drop(child);
	append(&x.m[0], 300);
	assert_all(&x);
	end(&x);
}

/* Rows in front change each time that an extent was added: each lacks something else, before and
 * behind the next rows that change. With TABLE_CORRECTIONS 2 this copies extents instead. */
static void many_corrections(void **state)
{
	struct family x;

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 16 + 8 * 128 + 16);
	for (unsigned i = 0; i < 7; i++) {
		append(&x.m[0], 1024);
		overwrite(&x.m[0], i, 1);
		assert_all(&x);
	}
	/* Each of these changes the first extent, and those before it lack something else. */
	for (unsigned i = 0; i < 8; i++) {
		overwrite(&x.m[0], 16 + 128 * (7 - i), 40);
		overwrite(&x.m[0], 16 + 1024 + 1024 * (i % 7) + 100, 40);
		assert_all(&x);
	}
	end(&x);
}

/* ---- random ------------------------------------------------------------------------ */

static uint32_t roll(uint32_t *seed, uint32_t below)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(*seed >> 4) * below >> 28);
}

static void change(struct model *m, uint32_t layer, uint32_t *seed)
{
	uint32_t rows = m->rows[layer], row = rows ? roll(seed, rows) : 0;

	if (rows)
		assert_int_equal(model_overwrite(m, layer, row,
						 1 + roll(seed, MIN(rows - row, 200))),
				 0);
}

/* Where forks are usual: most of them in the tail, a few rows after each other. */
static void step(struct family *x, uint32_t *seed)
{
	struct model *m = &x->m[roll(seed, x->n)];
	uint32_t rows = MIN(m->rows[0], m->rows[1]), few = roll(seed, 70);

	few = MIN(rows, few);
	switch (roll(seed, 10)) {
	case 0:
		assert_int_equal(model_cut(m, SPARQ_LAYER_ALL, rows - few), 0);
		break;
	case 1:
		if (x->n < ARRAY_SIZE(x->m))
			fork_of(x, m, rows - (roll(seed, 3) ? few : 0));
		break;
	case 2:
		if (x->n < 2)
			break;
		drop(m);
		*m = x->m[--x->n];
		break;
	case 3:
	case 4:
		change(m, roll(seed, MODEL_LAYERS), seed);
		break;
	default:
		append(m, 1 + roll(seed, roll(seed, 4) ? 5 : 150));
	}
}

static unsigned rounds(void)
{
	const char *more = getenv("SPARQ_TEST_ROUNDS");

	return more ? (unsigned)atoi(more) : 150;
}

static void random_family(void **state)
{
	static const char *const options[] = { "", "sinks=0 rollback=0", "sinks=5 rollback=128" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		uint32_t seed = i + 1;
		struct family x;

		begin(&x, options[i], GIB);
		for (unsigned round = 0; round < rounds(); round++) {
			step(&x, &seed);
			assert_all(&x);
		}
		end(&x);
	}
}

/* ---- at once ----------------------------------------------------------------------- */

struct actor {
	struct model *m;
	unsigned done; /* atomic */
	const char *wrong;
};

static void *act(void *arg)
{
	struct actor *a = arg;

	for (unsigned i = 0; i < 300 && !a->wrong; i++) {
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			while (model_append(a->m, layer, 1 + i % 4) == -EBUSY)
				sched_yield();
		if (i % 16 == 0)
			while ((a->wrong = model_check(a->m, UINT32_MAX)) != NULL &&
			       a->wrong[0] == 'n') /* not to be held */
				sched_yield();
		sched_yield();
	}
	store_release(&a->done, 1u);
	return NULL;
}

/* Forks at the row where both are, so that their next rows go to a page of both. */
static unsigned fork_while(struct family *x, struct actor actor[2])
{
	unsigned forks = 0;

	for (unsigned i = 0; !load_acquire(&actor[0].done) || !load_acquire(&actor[1].done); i++) {
		struct seq *from = actor[i % 2].m->seq, *child;
		struct sparq_msg_seq_stat st;

		assert_int_equal(seq_stat(from, SPARQ_LAYER_ALL, &st), 0);
		if (seq_fork(from, (uint32_t)st.rows_least, FIXTURE_SESSION, &child, why) < 0)
			continue;
		forks++;
		if (i % 4 == 0)
			sched_yield();
		assert_int_equal(seq_reserve(child, 0, 1), 0);
		assert_int_equal(seq_drop(child, why), 0);
	}
	(void)x;
	return forks;
}

static void at_once(void **state)
{
	struct family x;
	struct actor actor[2];
	pthread_t t[2];

	(void)state;
	begin(&x, "", GIB);
	append(&x.m[0], 300);
	actor[0] = (struct actor){ .m = &x.m[0] };
	actor[1] = (struct actor){ .m = fork_of(&x, &x.m[0], 300) };
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, act, &actor[i]), 0);
	assert_true(fork_while(&x, actor) > 0);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		if (actor[i].wrong)
			fail_msg("%u: %s", i, actor[i].wrong);
	}
	assert_all(&x);
	end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copied_by_who_writes),
		cmocka_unit_test(each_is_charged),
		cmocka_unit_test(forks_at_every_place),
		cmocka_unit_test(cut_and_append),
		cmocka_unit_test(no_room_for_a_copy),
		cmocka_unit_test(drafts_stay_in_the_tail),
		cmocka_unit_test(seals_beside_a_shared_page),
		cmocka_unit_test(many_corrections),
		cmocka_unit_test(random_family),
		cmocka_unit_test(at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
