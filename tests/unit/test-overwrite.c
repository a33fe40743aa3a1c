/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence whose rows were corrected against one that had the right ones from the start, in every
 * format: users of OVERWRITE rely on it that attention does not know the difference, but for what a
 * second quantisation of a tile costs, and that sums of V are right behind the rows that changed.
 */
#include "daemon/overwrite.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/seq.h"
#include "shm/base.h"
#include "store-fixture.h"

#define DIM 64u
#define KV_HEADS 2u
#define GROUP 2u
#define WIDTH (2 * KV_HEADS * DIM)
#define EXTENTS 128u
#define LANE (16 * MIB)
#define ROWS 3000u
#define OF_SUMS 1e-3
#define MORE 700u /* sealed behind the correction */

static char why[SPARQ_ERROR_TEXT];

struct range {
	uint32_t row, n;
};

static const struct range ranges[] = {
	{ 3, 5 },      /* sinks */
	{ 10, 400 },   /* sinks, and tiles of short extents */
	{ 700, 1 },    /* within a tile */
	{ 1500, 512 }, /* long extents */
	{ 2700, 300 }, /* tiles, and all of the tail */
	{ 2995, 5 },   /* the tail alone */
};

struct world {
	struct store_fixture f;
	struct cache *cache;
	struct seq *seq;
	uint32_t rows;
};

struct answer {
	float y[KV_HEADS * GROUP * DIM];
};

/* ---- a sequence ------------------------------------------------------------------------- */

static void begin(struct world *w, const char *format, const char *policy)
{
	/* What is not attended has the mean of V, which is where the sums of tiles go. */
	const char *options = strcmp(policy, "sparq") ? "" : "mean=all";
	struct sparq_msg_cache_create m = fixture_request("c", options);

	*w = (struct world){ .rows = 0 };
	m.layers = 1;
	m.kv_heads = KV_HEADS;
	m.heads = KV_HEADS * GROUP;
	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	fixture_open(&w->f, 24 * MIB, 2 * MIB);
	if (cache_create(&w->f.store, w->f.user, &m, &w->cache, why) < 0 ||
	    seq_create(w->cache, "", FIXTURE_SESSION, &w->seq, why) < 0)
		fail_msg("%s", why);
}

static void end(struct world *w)
{
	assert_int_equal(seq_drop(w->seq, why), 0);
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
}

static float value(uint32_t row, uint32_t i)
{
	uint32_t x = row * 2654435761u ^ i * 2246822519u;

	x = (x ^ x >> 15) * 3266489917u;
	return (float)(int32_t)(x >> 8 & 0xfff) / 2048 - 1;
}

/* Wrong rows are of other sizes and signs: attention that still saw them would be far off. */
static void fill(float (*kv)[WIDTH], uint32_t row, uint32_t n, const struct range *wrong)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t c = 0; c < WIDTH; c++) {
			bool is_wrong = wrong && row + i - wrong->row < wrong->n;

			kv[i][c] = is_wrong ? 3 - value(row + i, c) : value(row + i, c);
		}
}

static void flush(struct world *w)
{
	while (seq_flush_due(w->seq, 0)) {
		struct kv_extent all[EXTENTS], extent;
		struct kv_view view;
		unsigned slot;

		assert_int_equal(seq_flush_begin(w->seq, 0, &extent, &slot), 0);
		assert_int_equal(seq_view(w->seq, 0, w->rows, all, EXTENTS, &view), 0);
		for (uint32_t h = 0; h < KV_HEADS; h++)
			kv_flush(cache_layer(w->cache, 0), &view, &extent, slot, h);
		seq_flush_commit(w->seq, 0);
	}
}

static void grow(struct world *w, uint32_t rows, const struct range *wrong)
{
	static float kv[128][WIDTH];

	while (w->rows < rows) {
		uint32_t n = MIN(rows - w->rows, (uint32_t)ARRAY_SIZE(kv));
		struct kv_extent extent[EXTENTS];
		struct kv_view view;

		assert_int_equal(seq_reserve(w->seq, 0, n), 0);
		assert_int_equal(seq_view(w->seq, 0, w->rows, extent, EXTENTS, &view), 0);
		fill(kv, w->rows, n, wrong);
		kv_write(cache_layer(w->cache, 0), &view, w->rows, n, kv, sizeof(kv[0]));
		seq_commit(w->seq, 0, w->rows + n);
		w->rows += n;
		flush(w);
	}
}

static void correct(struct world *w, const struct range *wrong)
{
	static float kv[KV_MAX_ENTRY_ROWS][WIDTH];
	struct kv_extent from[EXTENTS], to[EXTENTS];
	struct overwrite o;

	fill(kv, wrong->row, wrong->n, NULL);
	assert_int_equal(overwrite_begin(&o, w->seq, 0, wrong->row, wrong->n, from, to, EXTENTS),
			 0);
	overwrite_recent(&o, kv, sizeof(kv[0]));
	for (uint32_t h = 0; overwrite_has_heads(&o) && h < KV_HEADS; h++)
		overwrite_head(&o, h, kv, sizeof(kv[0]));
	overwrite_commit(&o);
}

static struct answer attend(struct world *w)
{
	static float q[KV_HEADS * GROUP * DIM];
	const struct kv_space *space = cache_layer(w->cache, 0);
	const struct kv_query query = { .q = q, .n_q = 1, .first_limit = w->rows };
	void *scratch = aligned_alloc(64, LANE);
	struct kv_extent extent[EXTENTS];
	struct answer a;
	struct kv_view view;
	struct kv_plan plan;

	for (size_t i = 0; i < ARRAY_SIZE(q); i++)
		q[i] = value(7, (uint32_t)i) * 2;
	assert_int_equal(seq_view(w->seq, 0, w->rows, extent, EXTENTS, &view), 0);
	assert_int_equal(kv_plan_step(space, &view, &query, 0, 1, false, &plan), 0);
	for (uint32_t h = 0; h < KV_HEADS; h++) {
		struct kv_exec e;

		kv_exec_init(&e, space, &plan, &view, &query, h, scratch);
		for (uint32_t i = 0; i < e.shares; i++)
			kv_exec_share(&e, i);
		kv_exec_finish(&e);
		memcpy(&a.y[h * GROUP * DIM], e.result.y, GROUP * DIM * sizeof(float));
	}
	free(scratch);
	return a;
}

/* ---- against one that was always right ------------------------------------------------------ */

/* wrong NULL: right from the start; corrected or not, grown to `rows`. */
static struct answer answer_of(const char *format, const char *policy, const struct range *wrong,
			       bool corrected, uint32_t rows)
{
	struct answer a;
	struct world w;

	begin(&w, format, policy);
	grow(&w, ROWS, wrong);
	if (corrected)
		correct(&w, wrong);
	grow(&w, rows, NULL);
	a = attend(&w);
	end(&w);
	return a;
}

static double distance(const struct answer *a, const struct answer *b)
{
	double off = 0, norm = 0;

	for (size_t i = 0; i < ARRAY_SIZE(a->y); i++) {
		off += pow((double)a->y[i] - (double)b->y[i], 2);
		norm += pow((double)b->y[i], 2);
	}
	return sqrt(off / norm);
}

/* By at most twice the format's error, and what a row that went differs from what was sent, which
 * stays in the sums of V. */
static void check(const char *format, const char *policy, uint32_t rows)
{
	struct answer exact = answer_of("f32", policy, NULL, false, rows);
	struct answer right = answer_of(format, policy, NULL, false, rows);
	double allowed = 2 * distance(&right, &exact) + OF_SUMS;

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct answer now = answer_of(format, policy, &ranges[i], true, rows);

		if (distance(&now, &exact) > allowed)
			fail_msg("%s, %s, rows %u to %u of %u: %g off, %g are allowed", format,
				 policy, ranges[i].row, ranges[i].row + ranges[i].n, rows,
				 distance(&now, &exact), allowed);
	}
}

static void as_if_always_right(void **state)
{
	static const char *const formats[] = { "f32", "f16", "bf16", "int8", "int4", "hier4" };
	static const char *const policies[] = { "dense", "sparq", "window" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(formats) * ARRAY_SIZE(policies); i++) {
		check(formats[i / 3], policies[i % 3], ROWS);
		check(formats[i / 3], policies[i % 3], ROWS + MORE);
	}
}

/* Else the test above says nothing. */
static void wrong_rows_are_seen(void **state)
{
	struct answer right = answer_of("f32", "dense", NULL, false, ROWS);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct answer wrong = answer_of("f32", "dense", &ranges[i], false, ROWS);

		assert_true(distance(&wrong, &right) > 0.3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_if_always_right),
		cmocka_unit_test(wrong_rows_are_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
