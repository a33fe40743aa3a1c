/* SPDX-License-Identifier: Apache-2.0 */
/* Thread and page placement. */
#include "numa/pin.h"

#include <numaif.h>

#include "shm/base.h"

int pin_to_cpu(int cpu)
{
	cpu_set_t set;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return -EINVAL;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

int pin_to_node(const struct topo *t, unsigned node)
{
	if (node >= t->n_nodes)
		return -EINVAL;
	return sched_setaffinity(0, sizeof(cpu_set_t), &t->node[node].cpus) < 0 ? -errno : 0;
}

int pin_current_cpu(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 ? -errno : cpu;
}

int pin_memory(int node)
{
	unsigned long mask[TOPO_MAX_NODES / (8 * sizeof(long)) + 1] = { 0 };
	int mode = node < 0 ? MPOL_DEFAULT : MPOL_PREFERRED;

	if (node >= (int)TOPO_MAX_NODES)
		return -EINVAL;
	if (node >= 0)
		mask[(size_t)node / (8 * sizeof(long))] = 1ul << node % (8 * sizeof(long));
	if (set_mempolicy(mode, node < 0 ? NULL : mask, node < 0 ? 0 : 8 * sizeof(mask)) < 0)
		return -errno;
	return 0;
}
