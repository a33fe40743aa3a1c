/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step in two parts (kv_split): merged, they give what the whole gives, wherever it
 * is cut, and the rows that both have chosen are at least those that the whole would
 * choose. Who has rows on a device and older ones in the host's memory relies on both.
 *
 *   KERNEL_ISA=ISA test-split
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/exec-private.h"
#include "kernels/gpu.h"
#include "shm/base.h"
#include "tests/kernels/rig.h"

#define DIM 64u
#define MOST_ROWS 5000u
#define MOST_GROUP 4u
#define MOST_Q 4u
#define BOUND 2e-5 /* of the largest: sums in another order */

struct fixture {
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	struct rig rig;
	float q[MOST_Q * MOST_GROUP * DIM];
	struct kv_query query;
	struct kv_extent extent[64];
	void *scratch[3];
	struct kv_exec exec[3]; /* of the whole, of the older part, of the newer one */
};

static uint32_t below(uint32_t n)
{
	return (uint32_t)random() % n;
}

static void noise(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(random() % 2001 - 1000) / 500;
}

static void set_up(struct fixture *f, const char *policy, const char *options[], uint32_t group)
{
	const struct kv_policy *p = kv_policy_find(policy);
	struct kv_space_params params = { .heads = group,
					  .kv_heads = 1,
					  .k_dim = DIM,
					  .v_dim = DIM,
					  .k_format = below(2) ? "hier4" : "f16",
					  .v_format = "f16",
					  .policy = p,
					  .args = f->args,
					  .sinks = 16 };
	static float kv[MOST_ROWS * 2 * DIM];
	uint32_t rows = 400 + below(MOST_ROWS - 400);
	char why[KV_ERROR_TEXT];

	memset(f, 0, sizeof(*f));
	kv_policy_defaults(p, f->args);
	for (; options[0]; options += 2)
		assert_int_equal(kv_policy_set(p, f->args, options[0], options[1], why), 0);
	assert_int_equal(kv_space_init(&f->space, &params, why), 0);
	assert_int_equal(rig_init(&f->rig, &f->space, MOST_ROWS, 16), 0);
	noise(kv, (size_t)rows * 2 * DIM);
	rig_append(&f->rig, kv, rows, 1 + below(KV_MAX_ENTRY_ROWS));
	f->query = (struct kv_query){ .q = f->q, .n_q = 1 + below(MOST_Q), .full = !below(8) };
	f->query.first_limit = rows - f->query.n_q + 1 - below(3);
	noise(f->q, (size_t)f->query.n_q * group * DIM);
}

static void tear_down(struct fixture *f)
{
	for (unsigned i = 0; i < 3; i++)
		free(f->scratch[i]);
	rig_deinit(&f->rig);
}

static void run(struct fixture *f, unsigned i, const struct kv_plan *plan,
		const struct kv_view *view, const struct kv_query *query)
{
	uint64_t bytes = kv_exec_scratch_bytes(&f->space, plan, view, query);

	f->scratch[i] = aligned_alloc(64, bytes);
	assert_non_null(f->scratch[i]);
	kv_exec_init(&f->exec[i], &f->space, plan, view, query, 0, f->scratch[i]);
	for (uint32_t share = 0; share < f->exec[i].shares; share++)
		kv_exec_share(&f->exec[i], share);
	kv_exec_finish(&f->exec[i]);
}

/* Any place where it may be cut: the beginning of an extent but the first, or the tail's. */
static uint32_t any_cut(const struct kv_view *v)
{
	uint32_t i = v->n_extents > 1 ? 1 + below(v->n_extents) : v->n_extents;

	return i < v->n_extents ? v->extent[i].first_row : v->tail_first;
}

/* False: it cannot be cut there. */
static bool run_both(struct fixture *f, const struct kv_plan *plan, uint32_t cut)
{
	const struct kv_gpu_item whole = {
		.space = &f->space, .plan = plan, .view = &f->rig.view, .query = &f->query
	};
	static struct kv_half older, newer;
	int r = kv_split(&whole, cut, f->extent, &older, &newer);

	if (r == -EINVAL)
		return false;
	assert_int_equal(r, 0);
	run(f, 0, plan, &f->rig.view, &f->query);
	run(f, 1, &older.plan, &older.view, &older.query);
	run(f, 2, &newer.plan, &newer.view, &newer.query);
	return true;
}

static void compare(const struct fixture *f)
{
	struct kv_result merged = f->exec[2].result;
	const struct kv_result *whole = &f->exec[0].result;
	size_t heads = (size_t)f->query.n_q * f->space.group;
	double most = 0, size = 0;

	kv_merge(&f->space, f->query.n_q, &merged, &f->exec[1].result);
	for (size_t i = 0; i < heads * DIM; i++) {
		most = fmax(most, fabs((double)merged.y[i] - (double)whole->y[i]));
		size = fmax(size, fabs((double)whole->y[i]));
	}
	if (!(most <= BOUND * size))
		fail_msg("%g apart of %g", most, size);
	for (size_t h = 0; h < heads; h++)
		assert_true(fabs((double)merged.lse[h] - (double)whole->lse[h]) < 1e-4);
	assert_int_equal(merged.n_selected, whole->n_selected);
}

/* ---- what is chosen by place ----------------------------------------------------------- */

static struct kv_plan any_plan(uint32_t rows)
{
	struct kv_plan p;
	kv_sel s;

	kv_plan_init(&p);
	s = kv_plan_window(&p, 1 + below(rows), below(rows));
	if (below(2))
		s = kv_plan_union(&p, s, kv_plan_recent(&p));
	if (below(2))
		s = kv_plan_union(&p, s, kv_plan_range(&p, below(rows), below(rows)));
	if (!below(4))
		s = kv_plan_all(&p);
	kv_plan_output(&p, kv_plan_attend(&p, s));
	return p;
}

static void test_places(void **state)
{
	static const char *options[] = { NULL };
	unsigned compared = 0;

	for (unsigned i = 0; i < 200; i++) {
		static struct fixture f;
		struct kv_plan plan;

		set_up(&f, "dense", options, 1 + below(MOST_GROUP));
		plan = any_plan(f.rig.view.rows);
		if (run_both(&f, &plan, any_cut(&f.rig.view))) {
			compare(&f);
			compared++;
		}
		tear_down(&f);
	}
	assert_true(compared > 150);
}

/* ---- what is chosen by rank --------------------------------------------------------------- */

/* Those of both parts, by the numbers of the whole. */
static uint32_t mark(const struct kv_exec *e, uint32_t shift, bool *chosen)
{
	const struct run_list *l = exec_attended(e);

	for (uint32_t i = 0; i < l->n; i++)
		memset(chosen + shift + l->run[i].first, true, l->run[i].n);
	return l->rows;
}

static void assert_superset(const struct fixture *f, uint32_t cut)
{
	static bool whole[MOST_ROWS], both[MOST_ROWS];
	uint32_t n_whole, n_both;

	memset(whole, 0, sizeof(whole));
	memset(both, 0, sizeof(both));
	n_whole = mark(&f->exec[0], 0, whole);
	n_both = mark(&f->exec[1], 0, both) + mark(&f->exec[2], cut, both);
	assert_true(n_both >= n_whole);
	for (uint32_t i = 0; i < f->rig.view.rows; i++)
		assert_true(both[i] || !whole[i]);
}

static void test_ranks(void **state)
{
	static const char *options[][13] = {
		{ "k", "50", "r", "16", "dense_below", "0", "mean", "off", NULL },
		{ "k", "90", "r", "32", "dense_below", "0", "mean", "off", "tail", "select", "l",
		  "70", NULL },
		{ "k", "60", "r", "16", "dense_below", "0", "mean", "off", "group_rule", "logits",
		  NULL },
	};
	unsigned compared = 0;

	for (unsigned i = 0; i < 150; i++) {
		static struct fixture f;
		struct kv_plan plan;
		uint32_t cut;

		/* Sums of scores: softmax of several heads has a weight that each part sees of
		 * itself. */
		set_up(&f, "sparq", options[i % 3], i % 3 == 2 ? MOST_GROUP : 1);
		if (i % 3 != 2)
			f.query.n_q = 1;
		cut = any_cut(&f.rig.view);
		assert_int_equal(kv_plan_step(&f.space, &f.rig.view, &f.query, 0, 1, false, &plan),
				 0);
		if (run_both(&f, &plan, cut)) {
			assert_superset(&f, cut);
			compared++;
		}
		tear_down(&f);
	}
	assert_true(compared > 100);
}

static void test_refused(void **state)
{
	static const char *options[] = { "dense_below", "0", "mean", "rest", NULL };
	static struct fixture f;
	struct kv_half older, newer;
	struct kv_plan plan;
	const struct kv_gpu_item whole = {
		.space = &f.space, .plan = &plan, .view = &f.rig.view, .query = &f.query
	};
	char why[KV_ERROR_TEXT];

	set_up(&f, "sparq", options, 1);
	assert_int_equal(kv_splits(&f.space, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "mean=off"));
	assert_int_equal(kv_plan_step(&f.space, &f.rig.view, &f.query, 0, 1, false, &plan), 0);
	assert_int_equal(kv_split(&whole, f.rig.view.extent[1].first_row, f.extent, &older, &newer),
			 -EOPNOTSUPP);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_ranks),
		cmocka_unit_test(test_refused),
	};

	if (kv_isa_limit(getenv("KERNEL_ISA")) < 0)
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
