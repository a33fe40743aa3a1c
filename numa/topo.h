/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine looks like: nodes, their CPUs and distances, from sysfs,
 * restricted to the CPUs and nodes this process may use.
 *
 * First come the nodes that have both memory and CPUs: CPUs of a node without
 * memory count for the nearest node that has some. Behind them, a tier of their
 * own, come nodes with memory and no CPU that this process may run on (CXL):
 * CPUs of the nearest node work for those, if the pool is to have a part there.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOPO_MAX_NODES 64

struct topo_node {
	int id;               /* the kernel's number */
	cpu_set_t cpus;       /* that this process may run on; none: it is memory only */
	unsigned n_cpus;
	unsigned near; /* index of the node whose CPUs work for it: itself, or the nearest one */
	bool left_out; /* the pool has no part of it */
	uint64_t memory_bytes;
	uint64_t free_bytes;   /* page cache included: it makes way */
	uint64_t huge_free[2]; /* free pages of 2 MiB and of 1 GiB */
};

struct topo {
	unsigned n_nodes, n_cpus;    /* that have CPUs */
	unsigned n_memory, n_chosen; /* behind them: memory only, those not left out first */
	struct topo_node node[TOPO_MAX_NODES];
	uint8_t distance[TOPO_MAX_NODES][TOPO_MAX_NODES]; /* by index, 10 = local */
};

/* `root` is "/" in life, a recorded tree in tests. A machine without NUMA files is one node. Nodes
 * with CPUs are chosen, the others are left out. */
int topo_read(const char *root, struct topo *ret);

static inline unsigned topo_all(const struct topo *t)
{
	return t->n_nodes + t->n_memory;
}

int topo_find(const struct topo *t, int id); /* index, -ENOENT */
/* The number of the node whose CPUs work for that one: its own, or the nearest; -ENOENT. */
int topo_home(const struct topo *t, int id);
/* "0-1,3": the nodes that are chosen from now on; "": those with CPUs. Nodes of memory only are put
 * in order for it. -EINVAL: no list; -ENOENT: a node that is not there, or not for this process. */
int topo_choose(struct topo *t, const char *list, int *ret_missing);
/* Those that are there, of the set. */
void topo_choose_set(struct topo *t, const cpu_set_t *ids);
/* The first chosen one from this index on; topo_all: there is none. */
unsigned topo_next(const struct topo *t, unsigned from);
unsigned topo_n_chosen(const struct topo *t);
#define TOPO_EACH_CHOSEN(t, i)                                                                     \
	for (unsigned i = topo_next(t, 0); i < topo_all(t); i = topo_next(t, i + 1))

/* The `i`th usable CPU and the index of its node; -ENOENT. Nodes take turns, so that any number
 * of workers is spread over all of them. */
int topo_cpu(const struct topo *t, unsigned i, unsigned *ret_node);
int topo_node_of_cpu(const struct topo *t, int cpu); /* index, -ENOENT */
