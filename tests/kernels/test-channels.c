/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channel tables: an order of channels changes no result, outlier channels are
 * as exact as f16, and nothing of either is lost by a flush, a cut or a copy.
 * The random shapes of test-exec meet the same tables at every corner; here a
 * sequence with a table is compared with one without.
 *
 *   KERNEL_ISA=ISA test-channels
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/channels.h"
#include "kernels/outliers.h"
#include "shm/base.h"
#include "tests/kernels/rig.h"

#define DIM 128u
#define HEADS 4u
#define KV_HEADS 2u
#define ROWS 3000u
#define PROMPT 40u /* queries */
#define WIDTH (2 * KV_HEADS * DIM)

static float *kv, *q; /* the same rows and queries for every sequence */

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

/* Channels of K with ranges from 1/4 to 4. */
static int make_rows(void **state)
{
	uint64_t random = 5;

	for (size_t i = 0; i < (size_t)ROWS * WIDTH; i++)
		kv[i] = uniform(&random) * (float)(1 << i * 29 % 5) / 4;
	for (size_t i = 0; i < PROMPT * HEADS * DIM; i++)
		q[i] = i < HEADS * DIM ? uniform(&random) : q[i - HEADS * DIM];
	return 0;
}

static int setup(void **state)
{
	const char *isa = getenv("KERNEL_ISA");

	kv = malloc((size_t)ROWS * WIDTH * sizeof(*kv));
	q = malloc(PROMPT * HEADS * DIM * sizeof(*q));
	assert_true(kv && q);
	if (kv_isa_limit(isa) == -EOPNOTSUPP) {
		printf("this CPU lacks %s\n", isa);
		exit(77);
	}
	return 0;
}

static int teardown(void **state)
{
	free(kv);
	free(q);
	return 0;
}

static struct kv_channels plain_order(void)
{
	struct kv_channels t = { 0 };

	for (unsigned i = 0; i < KV_MAX_DIM; i++)
		t.k[i] = t.v[i] = (uint8_t)i;
	return t;
}

static void swap(uint8_t *channel, uint32_t i, uint32_t j)
{
	uint8_t was = channel[i];

	channel[i] = channel[j];
	channel[j] = was;
}

/* Within spans. */
static struct kv_channels some_order(uint64_t random, uint32_t span)
{
	struct kv_channels t = plain_order();

	for (uint32_t i = 0; i < DIM; i++) {
		uint32_t first = i / span * span;

		swap(t.k, i, first + (uint32_t)((uniform(&random) + 1) / 2 * (float)(i - first)));
		swap(t.v, i, first + (uint32_t)((uniform(&random) + 1) / 2 * (float)(i - first)));
	}
	return t;
}

static struct kv_space space_of(const char *format, const char *policy, uint32_t outliers)
{
	static uint8_t args[KV_POLICY_ARGS_BYTES] __attribute__((aligned(8)));
	struct kv_space_params p = { .heads = HEADS,
				     .kv_heads = KV_HEADS,
				     .k_dim = DIM,
				     .v_dim = DIM,
				     .dtype = KV_F32,
				     .k_format = format,
				     .v_format = format,
				     .policy = kv_policy_find(policy),
				     .args = args,
				     .sinks = 16,
				     .outliers = outliers };
	struct kv_space s;
	char why[KV_ERROR_TEXT];

	kv_policy_defaults(p.policy, args);
	assert_int_equal(kv_space_init(&s, &p, why), 0);
	return s;
}

/* A client is told which place is wrong. */
static void test_checked(void **state)
{
	struct kv_space s = space_of("hier4", "dense", 3);
	struct kv_channels t = some_order(1, DIM);
	char why[KV_ERROR_TEXT] = "";

	t.n_outliers = 3;
	assert_int_equal(kv_channels_check(&s, &t, why), 0);
	t.n_outliers = 4;
	assert_int_equal(kv_channels_check(&s, &t, why), -EINVAL);
	assert_string_equal(why, "n_outliers=4: the cache was made with room for outliers=3");
	t = plain_order();
	t.k[127] = 128;
	assert_int_equal(kv_channels_check(&s, &t, why), -EINVAL);
	assert_string_equal(why, "k_channels[127]=128: each channel from 0 to 127 must stand once");
	t = plain_order();
	t.v[9] = 8;
	assert_int_equal(kv_channels_check(&s, &t, why), -EINVAL);
	assert_string_equal(why, "v_channels[9]=8: each channel from 0 to 127 must stand once");
}

static void test_room(void **state)
{
	struct kv_space none = space_of("hier4", "dense", 0), some = space_of("hier4", "dense", 8);
	struct kv_space plain = space_of("f16", "dense", 0), same = space_of("f16", "dense", 8);
	size_t more = kv_extent_bytes(&some, 8) - kv_extent_bytes(&none, 8);

	assert_in_range(more, 8 * 8 * 128 * 2 - 64, 8 * 8 * 128 * 2 + 64); /* the stagger */
	assert_int_equal(kv_chunk_bytes(&some, 64), kv_chunk_bytes(&none, 64));
	/* A format of plain elements has them as they are already. */
	assert_int_equal(kv_extent_bytes(&plain, 8), kv_extent_bytes(&same, 8));
}

/* ---- sequences --------------------------------------------------------------- */

struct answer {
	float y[HEADS * DIM], lse[HEADS];
	uint32_t n_selected;
	uint64_t bytes;
};

/* The last of n_q equal queries. */
static void attend_many(const struct rig *r, uint32_t n_q, unsigned level, bool dense,
			struct answer *ret)
{
	const struct kv_query query = { .q = q, .n_q = n_q, .full = true, .level = level };
	const size_t group = HEADS / KV_HEADS, last = (n_q - 1) * group;
	struct kv_result result[KV_HEADS];
	struct kv_plan plan;
	uint64_t bytes;
	char *scratch;

	assert_int_equal(kv_plan_step(r->space, &r->view, &query, 0, 1, dense, &plan), 0);
	bytes = kv_exec_scratch_bytes(r->space, &plan, &r->view, &query);
	scratch = aligned_alloc(64, KV_HEADS * bytes);
	assert_non_null(scratch);
	rig_attend(r, &plan, &query, scratch, false, result);
	*ret = (struct answer){ .n_selected = result[0].n_selected };
	for (unsigned h = 0; h < KV_HEADS; h++) {
		memcpy(ret->y + h * group * DIM, result[h].y + last * DIM,
		       group * DIM * sizeof(float));
		memcpy(ret->lse + h * group, result[h].lse + last, group * sizeof(float));
		for (unsigned i = 0; i < KV_PLANES; i++)
			ret->bytes += result[h].bytes[i];
	}
	free(scratch);
}

static void attend(const struct rig *r, unsigned level, bool dense, struct answer *ret)
{
	attend_many(r, 1, level, dense, ret);
}

/* Relative to the largest of `b`. */
static double distance(const float *a, const float *b, size_t n)
{
	double most = 0, size = 0;

	for (size_t i = 0; i < n; i++) {
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
		size = fmax(size, fabs((double)b[i]));
	}
	return most / size;
}

static void grow(struct rig *r, const struct kv_space *s, const struct kv_channels *const *tables)
{
	assert_int_equal(rig_init(r, s, ROWS + 1024, 16), 0);
	r->view.channels = tables;
	rig_append(r, kv, ROWS, 96);
}

/* Cut inside a tile and grown again: by the same rows. */
static void regrow(struct rig *r, uint32_t keep)
{
	rig_cut(r, keep);
	rig_append(r, kv + (size_t)keep * WIDTH, ROWS - keep, 64);
}

static void assert_same(const char *format, const struct answer *a, const struct answer *b)
{
	if (distance(a->y, b->y, HEADS * DIM) > 1e-5 || distance(a->lse, b->lse, HEADS) > 1e-5)
		fail_msg("%s: y %g, lse %g", format, distance(a->y, b->y, HEADS * DIM),
			 distance(a->lse, b->lse, HEADS));
	assert_int_equal(a->n_selected, b->n_selected);
	assert_int_equal(a->bytes, b->bytes);
}

/* Formats with groups along a row see the same group in any order within it. */
static uint32_t span_of(const char *format)
{
	return !strcmp(format, "int4") ? 64 : DIM;
}

/* Whoever loads a table to help one format must not change what the others answer. */
static void test_order_changes_nothing(void **state)
{
	const char *format;

	for (unsigned i = 0; (format = kv_format_at(i)); i++) {
		const struct kv_channels t[] = { some_order(2, span_of(format)),
						 some_order(3, span_of(format)) };
		const struct kv_channels *const tables[] = { &t[0], &t[1] };
		struct kv_space s = space_of(format, "sparq", 0);
		struct answer want, got;
		struct rig without, with;

		grow(&without, &s, NULL);
		grow(&with, &s, tables);
		for (unsigned n = 0; n < 4; n++) {
			if (n == 2) {
				regrow(&without, 1500);
				regrow(&with, 1500);
			}
			attend(&without, 0, n & 1, &want);
			attend(&with, 0, n & 1, &got);
			assert_same(format, &got, &want);
		}
		rig_deinit(&without);
		rig_deinit(&with);
	}
}

/* Rows as sent move between views (a fork's tail) without a table being needed. */
static void test_copied(void **state)
{
	const struct kv_channels t[] = { some_order(4, DIM), some_order(5, DIM) };
	const struct kv_channels *const tables[] = { &t[0], &t[1] };
	struct kv_space s = space_of("hier4", "sparq", 0);
	struct answer want, got;
	struct rig from, to;

	assert_int_equal(rig_init(&from, &s, 4096, 16), 0);
	from.view.channels = tables;
	rig_append(&from, kv, 100, 50);
	assert_int_equal(rig_clone(&to, &from), 0);
	for (unsigned i = 0; i < 2; i++)
		memset(to.view.chunk[i], 0xff, s.kv_heads * kv_chunk_bytes(&s, KV_CHUNK_ROWS));
	memset(to.view.sinks, 0xff, s.kv_heads * kv_chunk_bytes(&s, KV_MAX_SINKS));
	kv_copy(&s, &from.view, &to.view, 0, 100);
	rig_append(&from, kv + 100 * WIDTH, 400, 50);
	rig_append(&to, kv + 100 * WIDTH, 400, 50);
	attend(&from, 0, true, &want);
	attend(&to, 0, true, &got);
	assert_memory_equal(&got, &want, sizeof(got));
	rig_deinit(&from);
	rig_deinit(&to);
}

/* ---- outliers ----------------------------------------------------------------- */

enum { N_WIDE = 4 };
static const uint8_t wide[N_WIDE] = { 3, 40, 41, 127 };

/* Ranges that no group of 16 or 256 steps can hold, in a few channels. */
static void widen_channels(void)
{
	for (uint32_t row = 0; row < ROWS; row++)
		for (uint32_t h = 0; h < KV_HEADS; h++)
			for (unsigned j = 0; j < N_WIDE; j++)
				kv[(size_t)row * WIDTH + h * DIM + wide[j]] *= 300;
	for (uint32_t i = 0; i < PROMPT * HEADS * DIM; i++)
		q[i] *= 0.05f; /* logits that leave more than one row a weight */
}

/* The wide ones first, the others as they come. */
static struct kv_channels wide_first(void)
{
	struct kv_channels t = plain_order();
	uint32_t at = N_WIDE;

	for (uint32_t c = 0; c < DIM; c++)
		if (!memchr(wide, (int)c, N_WIDE))
			t.k[at++] = (uint8_t)c;
	memcpy(t.k, wide, N_WIDE);
	t.n_outliers = N_WIDE;
	return t;
}

/* Distance from the same rows in f32, of y; V in f32 as well, so that only K counts. */
static double error_of(struct kv_space s, const struct kv_channels *const *tables, unsigned level,
		       bool dense)
{
	struct kv_space exact = space_of("f32", "sparq", 0);
	struct answer want, got;
	struct rig a, b;

	s.v = exact.v;
	if (level)
		s.v = s.k; /* drafts need two levels of both */
	grow(&a, &exact, NULL);
	grow(&b, &s, tables);
	attend(&a, 0, dense, &want);
	attend(&b, level, dense, &got);
	rig_deinit(&a);
	rig_deinit(&b);
	return distance(got.y, want.y, HEADS * DIM);
}

/* Channels of one range in one group, as sparq_cache_table(3) advises (PEG, arXiv 2109.12948). */
static void test_order_helps(void **state)
{
	struct kv_space s = space_of("int4", "sparq", 0);
	struct kv_channels t = plain_order();
	const struct kv_channels *const tables[] = { &t, &t };
	double without, with;

	for (size_t i = 0; i < (size_t)ROWS * WIDTH; i++)
		kv[i] *= i % 2 ? 0.05f : 1;
	for (uint32_t i = 0; i < DIM; i++)
		t.k[i] = (uint8_t)(i < DIM / 2 ? 2 * i : 2 * (i - DIM / 2) + 1);
	for (uint32_t i = 0; i < HEADS * DIM; i++)
		q[i] *= i % 2 ? 20 : 0.2f; /* what is small is looked at */
	without = error_of(s, NULL, 0, true);
	with = error_of(s, tables, 0, true);
	print_message("int4: error %.3g as they come, %.3g by range\n", without, with);
	assert_true(with * 3 < without);
}

/* What the option is for. Without quantisation there is nothing to win. */
static void test_outliers_help(void **state)
{
	const struct kv_channels t = wide_first();
	const struct kv_channels *const tables[] = { &t, &t };
	const char *format;

	widen_channels();
	for (unsigned i = 0; (format = kv_format_at(i)); i++) {
		struct kv_space s = space_of(format, "sparq", N_WIDE);
		double without, with;

		for (unsigned level = 0; level < s.k->levels; level++) {
			without = error_of(s, NULL, level, true);
			with = error_of(s, tables, level, true);
			print_message("%s level %u: error %.3g without, %.3g with outliers\n",
				      format, level, without, with);
			if (s.k->plain)
				assert_true(with <= without * 1.01 + 1e-5);
			else if (level)
				assert_true(with < without); /* V is coarse, too */
			else
				assert_true(with * 3 < without); /* f16 has steps, too */
		}
	}
}

/* Rows that stand out in the outliers alone: scoring must see them there, in every block of rows,
 * whole extents, parts of them and rows as sent. */
static void test_outliers_score(void **state)
{
	const struct kv_channels t = wide_first();
	const struct kv_channels *const tables[] = { &t, &t };
	const char *format;

	for (uint32_t row = 0; row < ROWS; row++)
		for (uint32_t h = 0; h < KV_HEADS; h++)
			for (unsigned j = 0; j < N_WIDE; j++)
				kv[(size_t)row * WIDTH + h * DIM + wide[j]] = row % 37 ? 0 : 16;
	for (uint32_t h = 0; h < HEADS; h++)
		for (unsigned j = 0; j < N_WIDE; j++)
			q[h * DIM + wide[j]] = 2;
	for (unsigned i = 0; (format = kv_format_at(i)); i++) {
		struct kv_space s = space_of(format, "sparq", N_WIDE);
		struct answer scored, dense;
		struct rig r;

		grow(&r, &s, tables);
		attend(&r, 0, false, &scored);
		attend(&r, 0, true, &dense);
		rig_deinit(&r);
		assert_in_range(scored.n_selected, 100, 500);
		/* 82 rows have all but 1e-3 of the weight. */
		if (distance(scored.y, dense.y, HEADS * DIM) > 0.02)
			fail_msg("%s: %g", format, distance(scored.y, dense.y, HEADS * DIM));
	}
}

/* The blocked product of many queries is completed as that of one is. */
static void test_outliers_in_prompts(void **state)
{
	const struct kv_channels t = wide_first();
	const struct kv_channels *const tables[] = { &t, &t };
	const char *format;

	widen_channels();
	for (unsigned i = 0; (format = kv_format_at(i)); i++) {
		struct kv_space s = space_of(format, "sparq", N_WIDE);
		struct answer one, last;
		struct rig r;

		grow(&r, &s, tables);
		attend(&r, 0, true, &one);
		attend_many(&r, PROMPT, 0, true, &last);
		rig_deinit(&r);
		if (distance(last.y, one.y, HEADS * DIM) > 1e-4)
			fail_msg("%s: %g", format, distance(last.y, one.y, HEADS * DIM));
	}
}

/* A row reads back what f16 makes of what was sent, wherever it lies, and nothing else moves. */
static void test_outliers_read_back(void **state)
{
	const struct kv_channels t = wide_first();
	const struct kv_channels *const tables[] = { NULL, &t };
	struct kv_space s = space_of("hier4", "dense", KV_MAX_OUTLIERS);
	struct kv_piece p = { 0 };
	struct kv_map map;
	struct rig r;

	widen_channels();
	kv[(size_t)500 * WIDTH + DIM + 40] = 1e6f;
	kv[(size_t)501 * WIDTH + DIM + 40] = NAN;
	grow(&r, &s, tables);
	regrow(&r, 1700);
	kv_map_init(&map, &s, &r.view, 1);
	for (uint32_t row = 0; row < ROWS; row++) {
		float x[DIM], want;
		uint16_t half;

		kv_map_find(&map, row, row + 1, &p);
		kv_piece_read_k(&p, x);
		for (unsigned j = 0; j < N_WIDE; j++) {
			want = kv[(size_t)row * WIDTH + DIM + wide[j]];
			if (!kv_piece_is_recent(&p)) {
				want = want > 65504 ? 65504 : want == want ? want : 0;
				kv_from_f32(KV_F16, &want, &half, 1);
				kv_to_f32(KV_F16, &half, &want, 1);
			}
			if (x[j] != want)
				fail_msg("row %u, channel %u: %g, not %g", row, wide[j],
					 (double)x[j], (double)want);
		}
	}
	rig_deinit(&r);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_checked, make_rows),
		cmocka_unit_test_setup(test_room, make_rows),
		cmocka_unit_test_setup(test_order_changes_nothing, make_rows),
		cmocka_unit_test_setup(test_copied, make_rows),
		cmocka_unit_test_setup(test_order_helps, make_rows),
		cmocka_unit_test_setup(test_outliers_help, make_rows),
		cmocka_unit_test_setup(test_outliers_score, make_rows),
		cmocka_unit_test_setup(test_outliers_in_prompts, make_rows),
		cmocka_unit_test_setup(test_outliers_read_back, make_rows),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
