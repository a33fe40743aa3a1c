/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranking with bounds: so many rows that their scores are not kept, with scores
 * that are unkind to the bounds. What must be chosen comes from the same
 * kernels' scores, ranked one by one in double precision.
 *
 *   KERNEL_ISA=ISA test-rank
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

#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "kernels/plan-private.h"
#include "shm/base.h"
#include "tests/kernels/rig.h"

#define DIM 64u
#define GROUP 4u
#define N_Q 3u
#define HEADS (GROUP * N_Q)
#define SINKS 16u
#define ROWS (SINKS + 3 * SCORE_ROWS + 2) /* the first query sees nothing of the last share */
#define RECENT 8u
#define WIDTH (2 * DIM)

_Static_assert(GROUP *ROWS > KEEP_SCORES, "scores are not kept");

typedef float score_fn(uint32_t row, uint32_t head, float chance);

struct fixture {
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	struct rig rig;
	float q[HEADS * DIM];
	float *a;                 /* [HEADS][ROWS] */
	double lse[HEADS], *rank; /* [ROWS]; NaN if it has no number */
	double lse_size;          /* the largest, whatever its sign */
	bool *chosen;
};

struct choice {
	uint32_t k, n_q;
	enum kv_group_rule rule;
	bool sealed, exact;
	uint32_t rows;  /* that the last query sees */
	uint32_t first; /* chosen whatever their rank, if not sealed */
};

static float *kv;

/* ---- scores of a head in each row ---------------------------------------------- */

static float ascending(uint32_t row, uint32_t head, float chance)
{
	return (float)row * 0.004f;
}

static float descending(uint32_t row, uint32_t head, float chance)
{
	return (float)(ROWS - row) * 0.004f;
}

static float equal(uint32_t row, uint32_t head, float chance)
{
	return 1;
}

static float needle(uint32_t row, uint32_t head, float chance)
{
	return row == 12345 && head == 1 ? 100 : chance; /* more than an exponent holds */
}

/* All of the best in more groups of one block than are put aside. */
static float crowd(uint32_t row, uint32_t head, float chance)
{
	return row >= 9300 && row < 10200 ? 12 + chance : chance;
}

static float sinks(uint32_t row, uint32_t head, float chance)
{
	return row < SINKS && head == 0 ? 50 : chance * 3;
}

static float scales(uint32_t row, uint32_t head, float chance)
{
	static const float scale[GROUP] = { 0.01f, 1, 30, 300 };

	return scale[head] * chance;
}

/* All of the best where extents have one tile. */
static float early(uint32_t row, uint32_t head, float chance)
{
	return row - SINKS < KV_SHORT_ROWS ? 3 + chance * 2 : chance;
}

/* Further down than a double's exponential reaches. */
static float low(uint32_t row, uint32_t head, float chance)
{
	return -2000 + chance * 5;
}

/* A share's first block has no scores, and the best rows follow it. */
static float hole(uint32_t row, uint32_t head, float chance)
{
	uint32_t at = row - SINKS - SCORE_ROWS;

	if (at < SCORE_BLOCK)
		return NAN;
	return -200 + chance + (at < SCORE_ROWS ? 3 : 0);
}

static float specks(uint32_t row, uint32_t head, float chance)
{
	return row % 97 == 5 ? NAN : chance * 4;
}

/* ---- fixture ------------------------------------------------------------------- */

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

static void make_space(struct fixture *f, const char *format)
{
	const struct kv_policy *policy = kv_policy_find("sparq");
	const struct kv_space_params p = { .heads = GROUP,
					   .kv_heads = 1,
					   .k_dim = DIM,
					   .v_dim = DIM,
					   .dtype = KV_F32,
					   .scale = 1,
					   .k_format = format,
					   .v_format = format,
					   .policy = policy,
					   .args = f->args,
					   .sinks = SINKS };
	char why[KV_ERROR_TEXT];

	kv_policy_defaults(policy, f->args);
	if (kv_space_init(&f->space, &p, why))
		fail_msg("%s", why);
}

/* Head h reads channel h only. */
static void fixture_init(struct fixture *f, const char *format, score_fn *score)
{
	uint64_t random = 7;

	memset(f, 0, sizeof(*f));
	make_space(f, format);
	memset(kv, 0, (size_t)ROWS * WIDTH * sizeof(*kv));
	for (uint32_t row = 0; row < ROWS; row++)
		for (uint32_t h = 0; h < GROUP; h++)
			kv[(size_t)row * WIDTH + h] = score(row, h, uniform(&random));
	for (uint32_t h = 0; h < HEADS; h++)
		f->q[h * DIM + h % GROUP] = 1 + 0.125f * (float)(h / GROUP);
	assert_int_equal(rig_init(&f->rig, &f->space, ROWS, 0), 0);
	rig_append(&f->rig, kv, ROWS, 96);
	f->a = malloc((size_t)HEADS * ROWS * sizeof(*f->a));
	f->rank = malloc(ROWS * sizeof(*f->rank));
	f->chosen = malloc(ROWS * sizeof(*f->chosen));
	assert_true(f->a && f->rank && f->chosen);
}

static void fixture_free(struct fixture *f)
{
	rig_deinit(&f->rig);
	free(f->a);
	free(f->rank);
	free(f->chosen);
}

/* ---- what is right --------------------------------------------------------------- */

static uint32_t limit_of(const struct choice *x, uint32_t h)
{
	return x->rows - x->n_q + 1 + h / GROUP;
}

static void score_rows(struct fixture *f, const struct choice *x)
{
	static const uint16_t channel[GROUP] = { 0, 1, 2, 3 };
	uint32_t heads = x->n_q * GROUP;
	float coef[HEADS * GROUP];
	struct kv_piece p = { 0 };
	struct kv_map map;

	for (uint32_t h = 0; h < heads; h++)
		memcpy(coef + h * GROUP, f->q + h * DIM, GROUP * sizeof(*coef));
	kv_map_init(&map, &f->space, &f->rig.view, 0);
	for (uint32_t row = 0; row < ROWS; row += p.n) {
		kv_map_find(&map, row, ROWS, &p);
		if (x->exact)
			kv_piece_dot(f->space.ops, &p, f->q, DIM, heads, f->a + row, ROWS, 0);
		else
			kv_piece_score(f->space.ops, &p, coef, GROUP, channel, GROUP, heads,
				       f->a + row, ROWS);
	}
}

static double log_sum_exp(const float *a, uint32_t n)
{
	double max = -INFINITY, sum = 0;

	for (uint32_t i = 0; i < n; i++)
		max = (double)a[i] > max ? (double)a[i] : max;
	for (uint32_t i = 0; i < n; i++)
		sum += a[i] == a[i] ? exp((double)a[i] - max) : 0;
	return max + log(sum);
}

/* NaN has no weight, and in the sum of scores no rank. */
static void rank_rows(struct fixture *f, const struct choice *x)
{
	memset(f->rank, 0, ROWS * sizeof(*f->rank));
	f->lse_size = 0;
	for (uint32_t h = 0; h < x->n_q * GROUP; h++) {
		const float *a = f->a + (size_t)h * ROWS;

		f->lse[h] = log_sum_exp(a, limit_of(x, h));
		f->lse_size = MAX(f->lse_size, fabs(f->lse[h]));
		for (uint32_t i = 0; i < limit_of(x, h); i++)
			if (x->rule == KV_GROUP_LOGITS)
				f->rank[i] += (double)a[i];
			else if (a[i] == a[i])
				f->rank[i] += exp((double)a[i] - f->lse[h]);
	}
}

/* ---- checks ---------------------------------------------------------------------- */

static const struct run_list *mark(struct fixture *f, const struct kv_plan *plan,
				   const struct state *s)
{
	const struct run_list *rows = NULL;

	for (unsigned i = 0; i < plan->n_ops; i++)
		if (plan->op[i].kind == KV_OP_ATTEND)
			rows = &s->sel[plan->op[i].a];
	memset(f->chosen, 0, ROWS * sizeof(*f->chosen));
	for (uint32_t i = 0; i < rows->n; i++) {
		assert_true(rows->run[i].first + rows->run[i].n <= ROWS);
		memset(f->chosen + rows->run[i].first, 1, rows->run[i].n);
	}
	return rows;
}

static void check_choice(const struct fixture *f, const struct choice *x)
{
	uint32_t first = x->sealed ? SINKS : 0, forced = x->sealed ? SINKS : x->first;
	uint32_t last = x->sealed ? MIN(x->rows, ROWS - f->rig.view.tail_rows) : x->rows;
	uint32_t end = last - RECENT, taken = 0;
	double worst_in = INFINITY, best_out = -INFINITY, near = 1e-4 + 3e-7 * f->lse_size;

	for (uint32_t i = 0; i < x->rows; i++) {
		double rank = f->rank[i] == f->rank[i] ? f->rank[i] : -INFINITY;

		if ((i < forced || i >= end) && !f->chosen[i])
			fail_msg("row %u is missing", i);
		if (i < first || i >= end)
			continue;
		taken += f->chosen[i];
		if (!f->chosen[i])
			best_out = MAX(best_out, rank);
		else if (i >= forced)
			worst_in = MIN(worst_in, rank);
	}
	/* Forced rows that the ranking left out are chosen beyond the k. */
	if (taken < x->k - RECENT || taken > x->k - RECENT + (x->sealed ? 0 : forced))
		fail_msg("%u ranked rows for k = %u", taken, x->k);
	if (best_out > worst_in + fabs(best_out) * near + 1e-36)
		fail_msg("%g was left out for %g", best_out, worst_in);
}

static void check_alpha(const struct fixture *f, const struct choice *x, const struct state *s)
{
	const double near = (double)KV_RANK_EXP_REL + 2e-5 + 3e-7 * f->lse_size;

	for (uint32_t h = 0; h < x->n_q * GROUP; h++) {
		double alpha = 0, got = (double)s->alpha[h];

		for (uint32_t i = 0; i < limit_of(x, h); i++) {
			double a = (double)f->a[(size_t)h * ROWS + i];

			alpha += f->chosen[i] && a == a ? exp(a - f->lse[h]) : 0;
		}
		if (!(fabs(got - alpha) <= near * alpha + 1e-6))
			fail_msg("head %u: alpha %g, not %g", h, got, alpha);
	}
}

static struct kv_plan make_plan(const struct choice *x)
{
	struct kv_plan p;
	kv_val score;
	kv_sel rows;

	kv_plan_init(&p);
	score = x->exact ? kv_plan_score(&p) : kv_plan_score_dims(&p, GROUP);
	rows = kv_plan_topk(&p, score,
			    (struct kv_topk){ x->k, MIN(RECENT, x->k), x->rule, x->sealed });
	rows = kv_plan_union(&p, rows,
			     x->sealed ? kv_plan_recent(&p) : kv_plan_window(&p, x->first, 0));
	kv_plan_output(&p, kv_plan_attend(&p, rows));
	return p;
}

static void check(struct fixture *f, const struct choice *x)
{
	const struct kv_query query = { .q = f->q, .n_q = x->n_q, .first_limit = limit_of(x, 0) };
	const struct kv_plan plan = make_plan(x);
	uint64_t bytes = kv_exec_scratch_bytes(&f->space, &plan, &f->rig.view, &query);
	struct kv_result result;
	void *scratch;

	print_message("%s k %u n_q %u rows %u first %u %s%s%s\n", f->space.k->format, x->k,
		      x->n_q, x->rows, x->first,
		      x->rule == KV_GROUP_LOGITS ? "logits" : "softmax", x->sealed ? " sealed" : "",
		      x->exact ? " exact" : "");
	scratch = aligned_alloc(64, bytes);
	assert_non_null(scratch);
	memset(scratch, x->exact ? 0xff : x->n_q - 1, bytes); /* whatever was there */
	rig_attend(&f->rig, &plan, &query, scratch, false, &result);
	assert_false(((const struct state *)scratch)->keeps);
	score_rows(f, x);
	rank_rows(f, x);
	assert_int_equal(mark(f, &plan, scratch)->rows, result.n_selected);
	check_choice(f, x);
	check_alpha(f, x, scratch);
	free(scratch);
}

static void check_all(const char *format, score_fn *score)
{
	static const uint32_t k[] = { RECENT, RECENT + 1, 300, 900 };
	struct fixture f;

	fixture_init(&f, format, score);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(k); i++) {
		struct choice x = { .k = k[i / 2],
				    .n_q = i % 4 < 2 ? 1 : N_Q,
				    .sealed = i % 2 == 0,
				    .exact = i % 3 == 0,
				    .rows = i % 3 == 1 ? SINKS + 2 * SCORE_ROWS : ROWS,
				    .first = i % 4 == 1 ? SINKS + 700 : SINKS };

		x.rule = KV_GROUP_SOFTMAX;

		check(&f, &x);
		x.rule = KV_GROUP_LOGITS;
		check(&f, &x);
	}
	fixture_free(&f);
}

#define SCORES(name)                                                                               \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		check_all("f32", name);                                                            \
		check_all("hier4", name);                                                          \
	}
SCORES(ascending)
SCORES(descending)
SCORES(equal)
SCORES(needle)
SCORES(crowd)
SCORES(sinks)
SCORES(scales)
SCORES(early)
SCORES(low)

/* Codes hold no NaN. */
static void test_nan(void **state)
{
	check_all("f32", hole);
	check_all("f32", specks);
}

static int setup(void **state)
{
	const char *isa = getenv("KERNEL_ISA");

	if (kv_isa_limit(isa) == -EOPNOTSUPP) {
		printf("this CPU lacks %s\n", isa);
		exit(77);
	}
	kv_thread_init(); /* as workers do */
	kv = malloc((size_t)ROWS * WIDTH * sizeof(*kv));
	return kv ? 0 : -1;
}

static int teardown(void **state)
{
	free(kv);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ascending), cmocka_unit_test(test_descending),
		cmocka_unit_test(test_equal),     cmocka_unit_test(test_needle),
		cmocka_unit_test(test_crowd),     cmocka_unit_test(test_sinks),
		cmocka_unit_test(test_scales),    cmocka_unit_test(test_low),
		cmocka_unit_test(test_early),
		cmocka_unit_test(test_nan),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
