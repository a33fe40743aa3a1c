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

/* Memory of no CPU counts only where the pool is to have a part of it; and two sockets that have
 * been told to leave one out are one. */
static void of_the_chosen_nodes(void **state)
{
	static struct topo t;
	struct config c;

	(void)state;
	t = (struct topo){ .n_nodes = 2, .n_memory = 1 };
	for (unsigned i = 0; i < 3; i++)
		t.node[i] = (struct topo_node){ .id = (int)i,
						.memory_bytes = (i + 1) * GIB,
						.left_out = i == 2 };
	config_defaults(&c);
	assert_int_equal(placement_wanted(&t, &c), 3 * GIB / 4 / 2);
	assert_int_equal(placement_planned(&t, &c), 3 * GIB / 4);
	t.node[2].left_out = false;
	assert_int_equal(placement_wanted(&t, &c), 6 * GIB / 4 / 3);
	t.node[0].left_out = true;
	assert_int_equal(placement_planned(&t, &c), ALIGN_UP(5 * GIB / 4 / 2, 2 * MIB) * 2);
	c.pool_bytes = 64 * MIB;
	assert_int_equal(placement_wanted(&t, &c), 32 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rounded_as_it_is_cut),
		cmocka_unit_test(of_the_chosen_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
