/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sparq-generate makes of its command line and of logits: every figure
 * that it prints relies on these.
 */
#include <getopt.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/examples/options.h"
#include "client/examples/sample.h"
#include "client/examples/why.h"
#include "shm/base.h"

static void test_words(void **state)
{
	static const struct {
		const char *policy, *extra, *wanted;
	} cases[] = {
		{ "sparq", "", "r=8 k=32 dense_below=0" },
		{ "sparq", "dense_below=2048", "r=8 k=32 dense_below=2048" },
		{ "sparq", "tail=select sinks=0", "r=8 k=32 dense_below=0 tail=select sinks=0" },
		/* "k" is the end of another key, and of a value. */
		{ "sparq", "rollback=0 x=k", "r=8 k=32 dense_below=0 rollback=0 x=k" },
		{ "sparq", "l=4 k=16", "r=8 dense_below=0 l=4 k=16" },
		{ "window", "", "first=16 recent=32" },
		{ "window", "first=0", "recent=32 first=0" },
		{ "dense", "", "" },
		{ "dense", "rollback=0", "rollback=0" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		char is[OPTIONS_TEXT];

		options_words(cases[i].policy, 8, 32, cases[i].extra, is);
		assert_string_equal(is, cases[i].wanted);
	}
}

static void test_nats(void **state)
{
	const float even[4] = { 3, 3, 3, 3 }, sharp[4] = { 900, -900, 0, 0 };
	const float x[3] = { 0.5f, -1.0f, 2.0f };

	assert_float_equal(score_nats(even, 4, 2), log(4), 1e-12);
	/* Large logits must not overflow. */
	assert_float_equal(score_nats(sharp, 4, 0), 0, 1e-12);
	assert_float_equal(score_nats(sharp, 4, 1), 1800, 1e-9);
	assert_float_equal(score_nats(x, 3, 0), log(exp(0.5) + exp(-1) + exp(2)) - 0.5, 1e-12);
}

static void test_choose(void **state)
{
	const float x[3] = { 0, 1.0986123f, 0 }; /* 1 : 3 : 1 */

	assert_int_equal(sample_choose(x, 3, 0, 0.99), 1);
	assert_int_equal(sample_choose(x, 3, 1, 0), 0);
	assert_int_equal(sample_choose(x, 3, 1, 0.199), 0);
	assert_int_equal(sample_choose(x, 3, 1, 0.201), 1);
	assert_int_equal(sample_choose(x, 3, 1, 0.799), 1);
	assert_int_equal(sample_choose(x, 3, 1, 0.801), 2);
	assert_in_range(sample_choose(x, 3, 1, 1), 0, 2);
	/* Half the temperature squares the odds: 1 : 9 : 1. */
	assert_int_equal(sample_choose(x, 3, 0.5f, 0.095), 1);
}

static void test_lanes(void **state)
{
	uint8_t bytes[1] = { 0 };
	struct text texts[2] = { { (char *)"a", bytes, 33 }, { (char *)"b", bytes, 32 } };
	struct score_job job = { .texts = texts, .n_texts = 1, .positions = 16 };
	char why[WHY_BYTES];

	/* The last prediction of a window needs one byte more. */
	assert_int_equal(score_lanes(&job, why), 2);
	job.n_texts = 2;
	assert_int_equal(score_lanes(&job, why), 3);
	job.max_windows = 1;
	assert_int_equal(score_lanes(&job, why), 2);
	texts[1].n = 16;
	assert_true(score_lanes(&job, why) < 0);
	assert_non_null(strstr(why, "b: 16 bytes"));
	texts[1].n = 0;
	assert_true(score_lanes(&job, why) < 0);
	job.n_texts = 1;
	job.max_windows = 0;
	texts[0].n = 16 * (SPARQ_MAX_ITEMS + 1) + 1;
	assert_true(score_lanes(&job, why) < 0);
}

static int parse(struct options *ret, const char *const *words)
{
	char *argv[16] = { (char *)"sparq-generate" };
	int argc = 1;

	for (; *words; words++)
		argv[argc++] = (char *)*words;
	optind = 0; /* getopt begins anew */
	return options_parse(ret, argc, argv);
}

static void test_command_line(void **state)
{
	static const char *const good[] = { "--model", "m",       "--prompt", "p", "--r=8", "--k",
					    "32",      "--short", "--count",  "9", NULL };
	static const char *const bad[][6] = {
		{ "--prompt", "p" },
		{ "--model", "m" },
		{ "--model", "m", "--prompt", "p", "--r", "-1" },
		{ "--model", "m", "--prompt", "p", "--k=1x" },
		{ "--model", "m", "--prompt", "p", "--tokens=0" },
		{ "--model", "m", "--prompt", "p", "--temperature=nan" },
		{ "--model", "m", "--prompt", "p", "--compare" },
		{ "--model", "m", "--prompt", "p", "stray" },
		{ "--model", "m", "--prompt", "p", "--unknown" },
		{ "--model", "m", "--held-out=t", "--grid", "--compare" },
	};
	struct options o = { 0 };

	assert_int_equal(parse(&o, good), 0);
	assert_string_equal(o.model, "m");
	assert_int_equal(o.r, 8);
	assert_int_equal(o.k, 32);
	assert_int_equal(o.tokens, 64);
	assert_int_equal(o.windows, 1);
	assert_int_equal(o.count, 9);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *words[7] = { NULL };

		memcpy(words, bad[i], sizeof(bad[i]));
		assert_true(parse(&o, words) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),        cmocka_unit_test(test_nats),
		cmocka_unit_test(test_choose),       cmocka_unit_test(test_lanes),
		cmocka_unit_test(test_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
