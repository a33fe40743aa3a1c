/* SPDX-License-Identifier: Apache-2.0 */
/* Thread placement: a worker's kernels count on reading memory of their own node. */
#include <fcntl.h>
#include <numaif.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "numa/pin.h"
#include "shm/base.h"

static void every_cpu(void **state)
{
	struct topo t;
	unsigned node;

	assert_int_equal(topo_read("/", &t), 0);
	for (unsigned i = 0; i < t.n_cpus; i++) {
		int cpu = topo_cpu(&t, i, &node);

		assert_int_equal(pin_to_cpu(cpu), 0);
		assert_int_equal(pin_current_cpu(), cpu);
	}
}

static void every_node(void **state)
{
	struct topo t;
	cpu_set_t now;

	/* The affinity the test before left: a topology read now would have one CPU. */
	assert_int_equal(topo_read("/", &t), 0);
	assert_int_equal(t.n_cpus, 1);
	*t.node = (struct topo_node){ .n_cpus = 1 };
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		CPU_SET((size_t)cpu, &t.node[0].cpus);
	assert_int_equal(pin_to_node(&t, 0), 0);

	assert_int_equal(topo_read("/", &t), 0);
	for (unsigned node = 0; node < t.n_nodes; node++) {
		assert_int_equal(pin_to_node(&t, node), 0);
		assert_int_equal(sched_getaffinity(0, sizeof(now), &now), 0);
		assert_true(CPU_EQUAL(&now, &t.node[node].cpus));
		assert_int_equal(topo_node_of_cpu(&t, pin_current_cpu()), node);
	}
}

/* A client's arena lies on the node that it asked for: fallocate must follow the policy. */
static void memory_follows(void **state)
{
	struct topo t;

	assert_int_equal(topo_read("/", &t), 0);
	for (unsigned node = 0; node < t.n_nodes; node++) {
		int fd = memfd_create("pin", MFD_CLOEXEC), at = -1;
		void *page;

		if (pin_memory(t.node[node].id) == -ENOSYS)
			skip();
		assert_int_equal(fallocate(fd, 0, 0, 4096), 0);
		assert_int_equal(pin_memory(-1), 0);
		page = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
		assert_true(page != MAP_FAILED);
		assert_int_equal(move_pages(0, 1, &page, NULL, &at, 0), 0);
		assert_int_equal(at, t.node[node].id);
		munmap(page, 4096);
		close(fd);
	}
	assert_int_equal(pin_memory(TOPO_MAX_NODES), -EINVAL);
}

static void refuses_what_is_not_there(void **state)
{
	struct topo t;

	assert_int_equal(topo_read("/", &t), 0);
	assert_int_equal(pin_to_cpu(-1), -EINVAL);
	assert_int_equal(pin_to_cpu(CPU_SETSIZE), -EINVAL);
	assert_int_equal(pin_to_cpu(CPU_SETSIZE - 1), -EINVAL); /* no machine here has it */
	assert_int_equal(pin_to_node(&t, t.n_nodes), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cpu),
		cmocka_unit_test(every_node),
		cmocka_unit_test(memory_follows),
		cmocka_unit_test(refuses_what_is_not_there),
	};

	return cmocka_run_group_tests_name("pin", tests, NULL, NULL);
}
