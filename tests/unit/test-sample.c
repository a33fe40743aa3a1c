/* SPDX-License-Identifier: Apache-2.0 */
/* Samples: what Explain counts on and SelfTest trusts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/cache-params.h"
#include "daemon/sample.h"
#include "shm/base.h"

static struct cache_record record_of(const char *format, const char *policy)
{
	struct sparq_msg_cache_create m = {
		.layers = 2,
		.heads = 8,
		.kv_heads = 2,
		.k_dim = 64,
		.v_dim = 64,
		.dtype = SPARQ_DTYPE_F16,
	};
	char why[KV_ERROR_TEXT] = "";
	struct cache_record r;

	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	assert_int_equal(cache_params_parse(&m, &r, why), 0);
	return r;
}

struct outcome {
	struct sample_result result;
	double error;
};

static struct outcome run(struct sample *s, bool dense)
{
	struct kv_query query = sample_query(s);
	struct outcome outcome;
	struct kv_plan plan;

	assert_int_equal(kv_plan_step(&s->space, &s->view, &query, 0, 2, dense, &plan), 0);
	assert_int_equal(sample_run(s, &plan, &outcome.result, &outcome.error), 0);
	return outcome;
}

/* Every place that a row can lie in: sinks alone, tail, one tile, short and long extents. */
static void test_dense_is_right(void **state)
{
	static const uint32_t sizes[] = { 1, 16, 17, 159, 160, 161, 400, 1200, 1300, 2500 };
	struct cache_record r = record_of("f16", "dense");
	char why[KV_ERROR_TEXT];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct sample s;

		assert_int_equal(sample_init(&s, &r, 0, sizes[i], 1, i, why), 0);
		assert_int_equal(s.view.rows, sizes[i]);
		assert_int_equal(s.space.kv_heads, 1);
		assert_true(run(&s, true).error < 1e-3);
		sample_deinit(&s);
	}
}

/* A comparison that cannot fail proves nothing: a row that the reference saw and the daemon did
 * not. */
static void test_comparison_can_fail(void **state)
{
	struct cache_record r = record_of("f16", "dense");
	char why[KV_ERROR_TEXT];
	struct sample s;
	double before;

	assert_int_equal(sample_init(&s, &r, 0, 500, 2, 3, why), 0);
	before = run(&s, true).error;
	for (uint32_t i = 0; i < s.space.k_dim; i++)
		s.rows[300 * 128 + i] = s.q[i]; /* the row that the first query likes best */
	assert_true(run(&s, true).error > 100 * before);
	s.rows[300 * 128] = __builtin_nanf("");
	assert_false(run(&s, true).error <= 1e9);
	sample_deinit(&s);
}

/* The saving that Explain prints is one of bytes that were counted. */
static void test_bytes(void **state)
{
	struct cache_record r = record_of("hier4", "sparq");
	struct sample_result dense, sparse;
	uint64_t dense_bytes = 0, sparse_bytes = 0;
	char why[KV_ERROR_TEXT];
	struct sample s;

	assert_int_equal(sample_init(&s, &r, 1, 8192, 1, 5, why), 0);
	dense = run(&s, true).result;
	sparse = run(&s, false).result;
	for (unsigned i = 0; i < KV_PLANES; i++) {
		dense_bytes += dense.bytes[i];
		sparse_bytes += sparse.bytes[i];
	}
	assert_true(sparse_bytes > 0 && sparse_bytes < dense_bytes / 2);
	assert_int_equal(dense.n_selected, 8192);
	assert_true(sparse.n_selected < 1024);
	assert_int_equal(sparse.n_scored, 8192);
	sample_deinit(&s);
}

/* A failed allocation or refusal leaves something that deinit takes. */
static void test_refused(void **state)
{
	struct cache_record r = record_of("f16", "dense");
	char why[KV_ERROR_TEXT] = "";
	struct sample s;

	snprintf(r.k_format, sizeof(r.k_format), "f17");
	assert_true(sample_init(&s, &r, 0, 10, 1, 0, why) < 0);
	assert_non_null(strstr(why, "f17"));
	sample_deinit(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense_is_right),
		cmocka_unit_test(test_comparison_can_fail),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
