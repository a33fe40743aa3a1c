/* SPDX-License-Identifier: Apache-2.0 */
/* Policies' parameters as text: what configuration, clients and sparqctl go through. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

struct args {
	uint32_t word[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
};

static struct args fresh(const struct kv_policy *p)
{
	struct args a = { { 0 } };

	assert_non_null(p);
	kv_policy_defaults(p, &a);
	return a;
}

static void expect(const char *name, const struct args *a, const char *key, const char *want)
{
	char text[32];
	int r = kv_policy_get(kv_policy_find(name), a, key, text, sizeof(text));

	assert_int_equal(r, (int)strlen(want));
	assert_string_equal(text, want);
}

static void refuse(const char *name, const char *key, const char *value, int error,
		   const char *want)
{
	const struct kv_policy *p = kv_policy_find(name);
	struct args a = fresh(p), before = a;
	char why[KV_ERROR_TEXT] = "";

	assert_int_equal(kv_policy_set(p, &a, key, value, why), error);
	assert_string_equal(why, want);
	assert_memory_equal(&a, &before, sizeof(a));
}

static void accept(const char *name, const char *key, const char *value)
{
	const struct kv_policy *p = kv_policy_find(name);
	struct args a = fresh(p);
	char why[KV_ERROR_TEXT] = "";

	assert_int_equal(kv_policy_set(p, &a, key, value, why), 0);
	expect(name, &a, key, value);
}

static void test_offered(void **state)
{
	const char *const want[] = { "dense", "window", "sparq" };

	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(kv_policy_at(i, true)->name, want[i]);
	assert_null(kv_policy_at(3, true));
	assert_null(kv_policy_find("h2o")); /* its plan is tested; users cannot have it yet */
	assert_non_null(kv_policy_at(4, false));
	assert_null(kv_policy_at(5, false));
}

static void test_defaults(void **state)
{
	struct args a = fresh(kv_policy_find("sparq"));

	expect("sparq", &a, "r", "32");
	expect("sparq", &a, "k", "128");
	expect("sparq", &a, "l", "auto");
	expect("sparq", &a, "group_rule", "softmax");
	expect("sparq", &a, "mean", "auto");
	expect("sparq", &a, "tail", "all");
	expect("sparq", &a, "dense_below", "2048");
	assert_int_equal(kv_policy_get(kv_policy_find("sparq"), &a, "x", NULL, 0), -ENOENT);
}

static void test_set(void **state)
{
	accept("sparq", "r", "1");
	accept("sparq", "r", "256");
	accept("sparq", "l", "auto");
	accept("sparq", "l", "0");
	accept("sparq", "mean", "rest");
	accept("sparq", "group_rule", "logits");
	accept("window", "recent", "7");
}

static void test_refused(void **state)
{
	refuse("sparq", "q", "1", -ENOENT,
	       "sparq has no parameter \"q\"; allowed: r, k, l, group_rule, mean, tail, "
	       "dense_below");
	refuse("dense", "r", "1", -ENOENT, "dense has no parameter \"r\": it has none");
	refuse("sparq", "k", "0", -EINVAL, "k=0: allowed is a number from 1 to 65536");
	refuse("sparq", "l", "x", -EINVAL, "l=x: allowed is a number from 0 to 65536, or auto");
	refuse("sparq", "mean", "on", -EINVAL, "mean=on: allowed are auto, off, all, rest");
}

/* What strtoul would take. */
static void test_not_numbers(void **state)
{
	const char *const bad[] = { "",    " 1",         "1 ",
				    "+1",  "-1",         "0x10",
				    "1e3", "4294967328", "99999999999999999999",
				    "auto" };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct kv_policy *p = kv_policy_find("sparq");
		struct args a = fresh(p);
		char why[KV_ERROR_TEXT];

		assert_int_equal(kv_policy_set(p, &a, "r", bad[i], why), -EINVAL);
	}
}

static void test_check(void **state)
{
	const struct kv_policy *p = kv_policy_find("sparq");
	struct args a = fresh(p);
	char why[KV_ERROR_TEXT];

	assert_int_equal(p->check(&a, 64, 1, why), 0);
	assert_int_equal(kv_policy_set(p, &a, "r", "65", why), 0);
	assert_int_equal(p->check(&a, 64, 1, why), -EINVAL);
	assert_string_equal(why, "r=65: at most the head dimension, 64");
	assert_int_equal(p->check(&a, 80, 1, why), 0);
	assert_int_equal(kv_policy_set(p, &a, "l", "129", why), 0);
	assert_int_equal(p->check(&a, 80, 1, why), -EINVAL);
	assert_string_equal(why, "l=129: at most k, 128");
}

/* The daemon shows and stores what was decided. */
static void test_settle(void **state)
{
	const struct kv_policy *p = kv_policy_find("sparq");
	struct args a = fresh(p), b = fresh(p);

	p->settle(&a, 128, 1);
	expect("sparq", &a, "l", "32");
	expect("sparq", &a, "mean", "rest");
	p->settle(&b, 128, 4);
	expect("sparq", &b, "mean", "off");
}

/* Every parameter fits its room, whichever policy is added. */
static void test_tables(void **state)
{
	const struct kv_policy *p;

	for (unsigned i = 0; (p = kv_policy_at(i, false)); i++) {
		assert_true(p->args_bytes <= KV_POLICY_ARGS_BYTES);
		for (unsigned j = 0; j < p->n_params; j++) {
			assert_true(p->params[j].at + sizeof(uint32_t) <= p->args_bytes);
			assert_true(strlen(p->params[j].help) > 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offered),     cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_set),         cmocka_unit_test(test_refused),
		cmocka_unit_test(test_not_numbers), cmocka_unit_test(test_check),
		cmocka_unit_test(test_settle),      cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
