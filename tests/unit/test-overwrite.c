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

#include "grown.h"
#include "shm/base.h"

#define KV_HEADS 2u
#define ROWS 3000u
#define OF_SUMS 1e-3
#define MORE 700u /* sealed behind the correction */

static const struct grown_range ranges[] = {
	{ 3, 5 },      /* sinks */
	{ 10, 400 },   /* sinks, and tiles of short extents */
	{ 700, 1 },    /* within a tile */
	{ 1500, 512 }, /* long extents */
	{ 2700, 300 }, /* tiles, and all of the tail */
	{ 2995, 5 },   /* the tail alone */
};

static void begin(struct grown *w, const char *format, const char *policy)
{
	/* What is not attended has the mean of V, which is where the sums of tiles go. */
	const char *options = strcmp(policy, "sparq") ? "" : "mean=all";
	struct sparq_msg_cache_create m = grown_request(KV_HEADS, format, policy, options);

	grown_begin(w, &m, 24 * MIB, 2 * MIB);
}

static void correct(struct grown *w, const struct grown_range *wrong)
{
	static float kv[KV_MAX_ENTRY_ROWS * 2 * KV_HEADS * GROWN_DIM];
	const size_t stride = 2 * KV_HEADS * GROWN_DIM * sizeof(*kv);
	struct kv_extent from[GROWN_EXTENTS], to[GROWN_EXTENTS];
	struct overwrite o;

	grown_fill(w, kv, wrong->row, wrong->n, NULL);
	assert_int_equal(overwrite_begin(&o, w->seq, 0, wrong->row, wrong->n, from, to,
					 GROWN_EXTENTS),
			 0);
	overwrite_recent(&o, kv, stride);
	for (uint32_t h = 0; overwrite_has_heads(&o) && h < KV_HEADS; h++)
		overwrite_head(&o, h, kv, stride);
	overwrite_commit(&o);
}

/* ---- against one that was always right ------------------------------------------------------ */

/* wrong NULL: right from the start; corrected or not, grown to `rows`. */
static struct grown_answer answer_of(const char *format, const char *policy,
				     const struct grown_range *wrong, bool corrected, uint32_t rows)
{
	struct grown_answer a;
	struct grown w;

	begin(&w, format, policy);
	grown_append(&w, ROWS, wrong);
	if (corrected)
		correct(&w, wrong);
	grown_append(&w, rows, NULL);
	a = grown_attend(&w);
	grown_end(&w);
	return a;
}

static double distance(const struct grown_answer *a, const struct grown_answer *b)
{
	double off = 0, norm = 0;

	for (size_t i = 0; i < KV_HEADS * GROWN_GROUP * GROWN_DIM; i++) {
		off += pow((double)a->y[i] - (double)b->y[i], 2);
		norm += pow((double)b->y[i], 2);
	}
	return sqrt(off / norm);
}

/* By at most twice the format's error, and what a row that went differs from what was sent, which
 * stays in the sums of V. */
static void check(const char *format, const char *policy, uint32_t rows)
{
	struct grown_answer exact = answer_of("f32", policy, NULL, false, rows);
	struct grown_answer right = answer_of(format, policy, NULL, false, rows);
	double allowed = 2 * distance(&right, &exact) + OF_SUMS;

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct grown_answer now = answer_of(format, policy, &ranges[i], true, rows);

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
	struct grown_answer right = answer_of("f32", "dense", NULL, false, ROWS);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		struct grown_answer wrong = answer_of("f32", "dense", &ranges[i], false, ROWS);

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
