/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topology from recorded trees. Placement (pool, workers) relies on each node
 * having memory and CPUs, and on ids and distances being the kernel's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "numa/topo.h"
#include "shm/base.h"

static int read_tree(const char *name, struct topo *ret)
{
	const char *fixtures = getenv("SPARQ_FIXTURES");
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", fixtures ?: "tests/unit/fixtures", name);
	return topo_read(path, ret);
}

static void assert_cpus(const struct topo_node *n, uint64_t mask)
{
	assert_int_equal(n->n_cpus, __builtin_popcountll(mask));
	for (unsigned cpu = 0; cpu < 64; cpu++)
		assert_int_equal(!!CPU_ISSET(cpu, &n->cpus), mask >> cpu & 1);
}

static void two_nodes(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-2-nodes", &t), 0);
	assert_int_equal(t.n_nodes, 2);
	assert_int_equal(t.n_cpus, 8);
	assert_cpus(&t.node[0], 0x0f);
	assert_cpus(&t.node[1], 0xf0);
	assert_int_equal(t.node[0].memory_bytes, 16000000 * KIB);
	/* Free memory and page cache, not anonymous memory. */
	assert_int_equal(t.node[0].free_bytes, (8000000 + 500 + 600) * KIB);
	assert_int_equal(t.node[0].huge_free[0], 128);
	assert_int_equal(t.node[0].huge_free[1], 2);
	assert_int_equal(t.node[1].huge_free[0], 64);
	assert_int_equal(t.node[1].huge_free[1], 0);
	assert_int_equal(t.distance[0][0], 10);
	assert_int_equal(t.distance[0][1], 21);
	assert_int_equal(t.distance[1][0], 21);
}

/* Ids have gaps where a node was unplugged: the fourth is node 8. */
static void four_nodes_with_a_gap(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-4-nodes", &t), 0);
	assert_int_equal(t.n_nodes, 4);
	assert_int_equal(t.node[3].id, 8);
	assert_cpus(&t.node[3], 0xc0);
	assert_int_equal(t.distance[0][1], 12);
	assert_int_equal(t.distance[0][3], 32);
	assert_int_equal(t.distance[2][3], 12);
	assert_int_equal(t.node[0].huge_free[1], 0); /* no such file: no such pages */
	assert_int_equal(topo_node_of_cpu(&t, 7), 3);
}

/* Node 1 has CPUs only; node 2 is nearer to it than node 0. */
static void memoryless_node_lends_its_cpus(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-memoryless", &t), 0);
	assert_int_equal(t.n_nodes, 2);
	assert_int_equal(t.node[0].id, 0);
	assert_int_equal(t.node[1].id, 2);
	assert_cpus(&t.node[0], 0x03);
	assert_cpus(&t.node[1], 0x3c);
	assert_int_equal(t.distance[0][1], 40); /* rows and columns went with the node */
	assert_int_equal(t.distance[1][0], 40);
	assert_int_equal(t.distance[1][1], 10);
}

/* Memory of no CPU is a tier of its own: there, and left out until it is chosen. */
static void memory_without_cpus_is_left_out(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-memory-only", &t), 0);
	assert_int_equal(t.n_nodes, 1);
	assert_int_equal(t.node[0].memory_bytes, 4000000 * KIB);
	assert_int_equal(t.n_cpus, 4);
	assert_int_equal(t.n_memory, 1);
	assert_int_equal(t.node[1].id, 1);
	assert_int_equal(t.node[1].memory_bytes, 64000000 * KIB);
	assert_int_equal(t.node[1].n_cpus, 0);
	assert_false(t.node[0].left_out);
	assert_true(t.node[1].left_out);
	assert_int_equal(topo_n_chosen(&t), 1);
	assert_int_equal(topo_next(&t, 1), topo_all(&t));
}

/* Two sockets with CPUs (1 and 3) and three expanders (0, 2, 4) between them: what has CPUs comes
 * first, whatever the numbers, and distances go with the nodes. */
static void expanders_stand_behind(void **state)
{
	static const int ids[] = { 1, 3, 0, 2, 4 };
	static const int homes[] = { 1, 3, 1, 3, 3 };
	struct topo t;

	assert_int_equal(read_tree("topo-cxl", &t), 0);
	assert_int_equal(t.n_nodes, 2);
	assert_int_equal(t.n_memory, 3);
	assert_int_equal(t.n_chosen, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		assert_int_equal(t.node[i].id, ids[i]);
		assert_int_equal(topo_find(&t, ids[i]), i);
		assert_int_equal(topo_home(&t, ids[i]), homes[i]);
		/* The tree says 100 + 10 * from + to, but for 10 and the near ones. */
		for (unsigned k = 0; k < ARRAY_SIZE(ids); k++)
			if (t.distance[i][k] >= 100)
				assert_int_equal(t.distance[i][k], 100 + 10 * ids[i] + ids[k]);
	}
	assert_int_equal(t.distance[2][0], 17);
	assert_int_equal(t.distance[3][1], 19);
	assert_int_equal(topo_home(&t, 9), -ENOENT);
	assert_int_equal(topo_node_of_cpu(&t, 3), 1);
	assert_int_equal(topo_cpu(&t, 4, &(unsigned){ 0 }), -ENOENT);
}

static void assert_chosen(struct topo *t, const char *list, const int *ids, unsigned n)
{
	unsigned seen = 0;
	int missing;

	assert_int_equal(topo_choose(t, list, &missing), 0);
	TOPO_EACH_CHOSEN(t, i)
	{
		assert_true(seen < n);
		assert_int_equal(t->node[i].id, ids[seen++]);
		assert_int_equal(t->distance[i][i], 10);
	}
	assert_int_equal(seen, n);
	assert_int_equal(topo_n_chosen(t), n);
}

/* The statistics have a block for each of the first n_nodes + n_chosen: no chosen one may stand
 * behind one that is left out, and a choice must not be of the one before it. */
static void promoted_ones_come_first(void **state)
{
	struct topo t;
	int missing = -1;

	assert_int_equal(read_tree("topo-cxl", &t), 0);
	assert_chosen(&t, "4,1-3", (const int[]){ 1, 3, 2, 4 }, 4);
	assert_int_equal(t.n_chosen, 2);
	assert_int_equal(t.node[2].id, 2);
	assert_int_equal(t.node[3].id, 4);
	assert_int_equal(t.node[4].id, 0);
	assert_int_equal(t.distance[3][4], 140);
	assert_int_equal(t.distance[4][2], 102);
	assert_chosen(&t, "4", (const int[]){ 4 }, 1);
	assert_int_equal(t.node[2].id, 4);
	assert_int_equal(topo_home(&t, 4), 3);
	assert_chosen(&t, "", (const int[]){ 1, 3 }, 2);
	assert_int_equal(t.n_chosen, 0);
	assert_int_equal(topo_choose(&t, "1,5", &missing), -ENOENT);
	assert_int_equal(missing, 5);
	assert_int_equal(topo_choose(&t, "node1", &missing), -EINVAL);
	assert_int_equal(topo_n_chosen(&t), 2); /* as before */
}

static void offline_cpu_is_no_cpu(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-offline-cpu", &t), 0);
	assert_int_equal(t.n_cpus, 3);
	assert_cpus(&t.node[1], 0x08);
	assert_int_equal(topo_node_of_cpu(&t, 2), -ENOENT);
	assert_int_equal(topo_node_of_cpu(&t, 3), 1);
}

/* CPUs of both nodes, memory of node 1 alone: all work is near node 1. */
static void cpuset_restricts_cpus_and_memory(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-cpuset", &t), 0);
	assert_int_equal(t.n_nodes, 1);
	assert_int_equal(t.node[0].id, 1);
	assert_cpus(&t.node[0], 0x2c);
}

static void no_numa_is_one_node(void **state)
{
	struct topo t;

	assert_int_equal(read_tree("topo-no-numa", &t), 0);
	assert_int_equal(t.n_nodes, 1);
	assert_int_equal(t.node[0].id, 0);
	assert_cpus(&t.node[0], 0x0f);
	assert_int_equal(t.node[0].memory_bytes, 2000000 * KIB);
	assert_int_equal(t.node[0].free_bytes, 1300000 * KIB);
	assert_int_equal(t.node[0].huge_free[0], 5);
	assert_int_equal(t.distance[0][0], 10);
}

static void refuses_what_it_cannot_read(void **state)
{
	struct topo t = { .n_nodes = 77 };

	assert_int_equal(read_tree("topo-garbage", &t), -EINVAL);
	assert_int_equal(read_tree("no-such-tree", &t), -ENOENT);
	assert_int_equal(t.n_nodes, 77); /* untouched on failure */
}

/* Workers take CPUs in this order: two workers on two nodes must get one node each. */
static void cpus_are_dealt_to_nodes_in_turn(void **state)
{
	static const int cpus[] = { 0, 3, 1 };
	static const unsigned nodes[] = { 0, 1, 0 };
	struct topo t;
	unsigned node;

	assert_int_equal(read_tree("topo-offline-cpu", &t), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
		assert_int_equal(topo_cpu(&t, i, &node), cpus[i]);
		assert_int_equal(node, nodes[i]);
	}
	assert_int_equal(topo_cpu(&t, 3, &node), -ENOENT);
}

/* Whatever this machine is: every CPU once, on the node that says it has it. */
static void this_machine(void **state)
{
	struct topo t;
	cpu_set_t seen;
	unsigned node;

	assert_int_equal(topo_read("/", &t), 0);
	assert_true(t.n_nodes >= 1 && t.n_cpus >= 1);
	CPU_ZERO(&seen);
	for (unsigned i = 0; i < t.n_cpus; i++) {
		int cpu = topo_cpu(&t, i, &node);

		assert_true(cpu >= 0);
		assert_int_equal(topo_node_of_cpu(&t, cpu), node);
		CPU_SET((size_t)cpu, &seen);
	}
	assert_int_equal(CPU_COUNT(&seen), t.n_cpus);
	for (unsigned i = 0; i < t.n_nodes; i++) {
		assert_int_equal(t.distance[i][i], 10);
		assert_true(t.node[i].memory_bytes > 0);
		assert_true(t.node[i].free_bytes <= t.node[i].memory_bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_nodes),
		cmocka_unit_test(four_nodes_with_a_gap),
		cmocka_unit_test(memoryless_node_lends_its_cpus),
		cmocka_unit_test(memory_without_cpus_is_left_out),
		cmocka_unit_test(expanders_stand_behind),
		cmocka_unit_test(promoted_ones_come_first),
		cmocka_unit_test(offline_cpu_is_no_cpu),
		cmocka_unit_test(cpuset_restricts_cpus_and_memory),
		cmocka_unit_test(no_numa_is_one_node),
		cmocka_unit_test(refuses_what_it_cannot_read),
		cmocka_unit_test(cpus_are_dealt_to_nodes_in_turn),
		cmocka_unit_test(this_machine),
	};

	return cmocka_run_group_tests_name("topo", tests, NULL, NULL);
}
