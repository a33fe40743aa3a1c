/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of control groups from recorded trees: an arena past one would be killed, not refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "numa/cgroup.h"

static uint64_t left_in_tree(const char *name)
{
	const char *fixtures = getenv("SPARQ_FIXTURES");
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", fixtures ?: "tests/unit/fixtures", name);
	return cgroup_memory_left(path);
}

static void cache_counts_as_free(void **state)
{
	assert_int_equal(left_in_tree("cgroup-v2"), 8000000000 - 3000000000 + 500000000);
}

/* The unit has no limit, its slice has, and is over it. */
static void the_tightest_group_decides(void **state)
{
	assert_int_equal(left_in_tree("cgroup-parent"), 0);
}

static void version_1(void **state)
{
	assert_int_equal(left_in_tree("cgroup-v1"), 1500000000);
}

static void no_limit(void **state)
{
	assert_true(left_in_tree("cgroup-none") == UINT64_MAX);
	assert_true(left_in_tree("no-such-tree") == UINT64_MAX);
	assert_true(cgroup_memory_left("/") > 0); /* this very process still runs */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cache_counts_as_free),
		cmocka_unit_test(the_tightest_group_decides),
		cmocka_unit_test(version_1),
		cmocka_unit_test(no_limit),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
