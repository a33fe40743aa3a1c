/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine looks like: nodes, their CPUs and distances, from sysfs,
 * restricted to the CPUs and nodes this process may use.
 *
 * Every node here has memory and CPUs: CPUs of a node without memory count for
 * the nearest node that has some, memory without CPUs is left out.
 */
#pragma once

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#define TOPO_MAX_NODES 64

struct topo_node {
	int id;               /* the kernel's number */
	cpu_set_t cpus;       /* that this process may run on */
	unsigned n_cpus;
	uint64_t memory_bytes;
	uint64_t free_bytes;   /* page cache included: it makes way */
	uint64_t huge_free[2]; /* free pages of 2 MiB and of 1 GiB */
};

struct topo {
	unsigned n_nodes, n_cpus;
	struct topo_node node[TOPO_MAX_NODES];
	uint8_t distance[TOPO_MAX_NODES][TOPO_MAX_NODES]; /* by index, 10 = local */
};

/* `root` is "/" in life, a recorded tree in tests. A machine without NUMA files is one node. */
int topo_read(const char *root, struct topo *ret);
/* The `i`th usable CPU and the index of its node; -ENOENT. Nodes take turns, so that any number
 * of workers is spread over all of them. */
int topo_cpu(const struct topo *t, unsigned i, unsigned *ret_node);
int topo_node_of_cpu(const struct topo *t, int cpu); /* index, -ENOENT */
