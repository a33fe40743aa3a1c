/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator finds what it says it finds: whoever trusts a kernel that passes
 * under it relies on that.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base.h"
#include "tests/gpu/emulate/broken.h"
#include "tests/gpu/emulate/emulate.h"

#define BLOCKS 5u
#define SEEDS 32u

extern emulate_kernel broken_none, broken_barrier_lacks, broken_race, broken_barrier_diverges,
	broken_shuffle_diverges, broken_store, broken_copy_none, broken_copy_unawaited;

static const uint32_t in[BROKEN_THREADS / 32] = { 1, 20, 300, 4000 };

static int run(emulate_kernel *kernel, uint64_t seed, uint32_t *ret_out, char *why)
{
	struct broken b = { .out = ret_out, .in = in };
	struct emulate_grid grid = { .x = BLOCKS,
				     .y = 1,
				     .threads = BROKEN_THREADS,
				     .shared_bytes = sizeof(in),
				     .seed = seed };

	return emulate_run(kernel, &b, &grid, why);
}

/* How many of the orders gave other results than the first. */
static unsigned differing(emulate_kernel *kernel)
{
	uint32_t first[BLOCKS], out[BLOCKS];
	char why[EMULATE_WHY];
	unsigned n = 0;

	assert_int_equal(run(kernel, 0, first, why), 0);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		assert_int_equal(run(kernel, seed, out, why), 0);
		n += memcmp(first, out, sizeof(out)) != 0;
	}
	return n;
}

static void test_right_in_every_order(void **state)
{
	uint32_t out[BLOCKS];
	char why[EMULATE_WHY];

	assert_int_equal(differing(broken_none), 0);
	assert_int_equal(differing(broken_copy_none), 0);
	assert_int_equal(run(broken_none, 7, out, why), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(out[i], BROKEN_THREADS * (1000 * i) +
						 BROKEN_THREADS * (BROKEN_THREADS - 1) / 2);
	assert_int_equal(run(broken_copy_none, 7, out, why), 0);
	assert_int_equal(out[0], 4321);
}

static void test_orders_differ(void **state)
{
	assert_true(differing(broken_race) > 0);
	assert_true(differing(broken_barrier_lacks) > 0);
}

static void refused(emulate_kernel *kernel, int error, const char *word)
{
	uint32_t out[BLOCKS];
	char why[EMULATE_WHY] = "";

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		assert_int_equal(run(kernel, seed, out, why), error);
		assert_non_null(strstr(why, word));
	}
}

static void test_broken_rules(void **state)
{
	refused(broken_barrier_diverges, -EDEADLK, "40 wait for the block");
	refused(broken_shuffle_diverges, -EDEADLK, "for their warp");
	refused(broken_store, -EFAULT, "0 bytes behind");
}

/* Shared memory holds no number until the copy was waited for. */
static void test_copies_are_late(void **state)
{
	uint32_t out[BLOCKS];
	char why[EMULATE_WHY];

	assert_int_equal(run(broken_copy_unawaited, 0, out, why), 0);
	assert_int_not_equal(out[0], 4321);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right_in_every_order),
		cmocka_unit_test(test_orders_differ),
		cmocka_unit_test(test_broken_rules),
		cmocka_unit_test(test_copies_are_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
