/* SPDX-License-Identifier: Apache-2.0 */
/* The plan builder's checks: the executor trusts a plan that passed them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/plan.h"

static void refuse(const struct kv_plan *p, const char *want)
{
	char why[240] = "";

	assert_int_equal(kv_plan_check(p, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, want);
}

static struct kv_plan dense(void)
{
	struct kv_plan p;

	kv_plan_init(&p);
	kv_plan_output(&p, kv_plan_attend(&p, kv_plan_all(&p)));
	return p;
}

static void test_dense(void **state)
{
	struct kv_plan p = dense();
	char why[240];

	assert_int_equal(kv_plan_check(&p, why, sizeof(why)), 0);
	assert_true(kv_plan_is_dense(&p));
	kv_plan_keep(&p, (kv_sel){ 0 });
	assert_int_equal(kv_plan_check(&p, why, sizeof(why)), 0);
	assert_false(kv_plan_is_dense(&p));
}

static void test_outputs(void **state)
{
	struct kv_plan p;

	kv_plan_init(&p);
	refuse(&p, "a plan has one output, not 0");
	p = dense();
	kv_plan_output(&p, (kv_part){ 1 });
	refuse(&p, "a plan has one output, not 2");
}

/* Plans are kept and could be read back: types are checked again, not only by the compiler. */
static void test_operands(void **state)
{
	struct kv_plan p = dense();

	p.op[1].a = 1;
	refuse(&p, "operation 1, attend: operand 1 is not an earlier 's'");
	p = dense();
	p.op[2].a = 0;
	refuse(&p, "operation 2, output: operand 1 is not an earlier 'p'");
	p = dense();
	p.op[0].kind = KV_OP_KINDS;
	refuse(&p, "operation 0: unknown kind 17");
}

static void test_numbers(void **state)
{
	struct kv_plan p;

	kv_plan_init(&p);
	kv_plan_score_dims(&p, 0);
	refuse(&p, "operation 0, score_dims: no channels");
	kv_plan_init(&p);
	kv_plan_topk(&p, kv_plan_score(&p), (struct kv_topk){ .k = 0 });
	refuse(&p, "operation 1, topk: k is 0");
}

/* A policy builds without an error path: the plan remembers. */
static void test_full(void **state)
{
	struct kv_plan p = dense();

	for (int i = 0; i < KV_PLAN_OPS; i++)
		kv_plan_all(&p);
	assert_int_equal(p.error, -E2BIG);
	assert_int_equal(p.n_ops, KV_PLAN_OPS);
	refuse(&p, "a plan has at most 24 operations");
}

static void test_text_size(void **state)
{
	struct kv_plan p = dense();
	char text[8];
	const char *whole = "s0 = all()\np1 = attend(s0)\noutput(p1)\n";

	assert_int_equal(kv_plan_text(&p, NULL, 0), strlen(whole));
	assert_int_equal(kv_plan_text(&p, text, sizeof(text)), strlen(whole));
	assert_string_equal(text, "s0 = al");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),    cmocka_unit_test(test_outputs),
		cmocka_unit_test(test_operands), cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_full),     cmocka_unit_test(test_text_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
