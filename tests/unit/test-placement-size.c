/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large the pool is to be. After a restart what is kept is compared with it: an administrator
 * who is told that it differs, when nothing was changed, stops a daemon that has nothing wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/placement.h"
#include "shm/base.h"

static uint64_t planned(unsigned nodes, enum huge_pages pages, uint64_t bytes, uint32_t parts)
{
	static struct topo t;
	struct config c;

	t = (struct topo){ .n_nodes = nodes };
	config_defaults(&c);
	c.huge_pages = pages;
	c.pool_bytes = bytes;
	c.pool_parts = parts;
	return placement_planned(&t, &c);
}

static void rounded_as_it_is_cut(void **state)
{
	(void)state;
	assert_int_equal(planned(2, HUGE_YES, 64 * MIB, 1), 64 * MIB);
	assert_int_equal(planned(2, HUGE_YES, 65 * MIB, 1), 68 * MIB);
	/* A page of 1 GiB on each node at the least. */
	assert_int_equal(planned(2, HUGE_1G, 3 * GIB, 1), 4 * GIB);
	assert_int_equal(planned(4, HUGE_1G, 64 * MIB, 1), 4 * GIB);
	assert_int_equal(planned(1, HUGE_NO, 64 * MIB, 3), 66 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rounded_as_it_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
