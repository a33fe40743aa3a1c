/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topology from sysfs and /proc/self/status, the same way in life and from a
 * recorded tree.
 *
 * What comes out is what work can be placed on. CPUs whose node has no memory
 * that this process may take (memoryless, or outside the cpuset) go to the
 * nearest node that has some. Nodes that are left with memory alone come last.
 */
#include "numa/topo.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define NODE_PATH "sys/devices/system/node"

static const unsigned long huge_kib[2] = { 2048, 1048576 };

/* What this process may use: the cpuset and the affinity it was started with. */
struct allowed {
	cpu_set_t cpus, mems;
};

static void set_all(cpu_set_t *set)
{
	memset(set, 0xff, sizeof(*set));
}

static int read_allowed(int root, struct allowed *ret)
{
	char status[8192];
	const char *field;
	struct allowed a;
	cpu_set_t online;
	int r;

	set_all(&a.cpus);
	set_all(&a.mems);
	if (sysfs_text(root, "proc/self/status", status, sizeof(status)) == 0) {
		field = sysfs_field(status, "Cpus_allowed_list:");
		if (field && (r = sysfs_parse_list(field, &a.cpus)) < 0)
			return r;
		field = sysfs_field(status, "Mems_allowed_list:");
		if (field && (r = sysfs_parse_list(field, &a.mems)) < 0)
			return r;
	}
	/* The affinity keeps CPUs that have gone offline since. */
	r = sysfs_list(root, "sys/devices/system/cpu/online", &online);
	if (r < 0)
		return r;
	CPU_AND(&a.cpus, &a.cpus, &online);
	if (CPU_COUNT(&a.cpus) == 0)
		return -ENODEV;
	*ret = a;
	return 0;
}

static void read_huge(int root, const char *base, struct topo_node *n)
{
	char path[128];

	for (unsigned i = 0; i < ARRAY_SIZE(huge_kib); i++) {
		snprintf(path, sizeof(path), "%s/hugepages/hugepages-%lukB/free_hugepages", base,
			 huge_kib[i]);
		if (sysfs_number(root, path, &n->huge_free[i]) < 0)
			n->huge_free[i] = 0; /* the kernel does not know this size */
	}
}

static int read_memory(int root, const char *path, struct topo_node *n)
{
	char meminfo[8192];
	int r = sysfs_text(root, path, meminfo, sizeof(meminfo));

	if (r < 0)
		return r;
	n->memory_bytes = sysfs_kilobytes(meminfo, "MemTotal:");
	n->free_bytes = sysfs_available(meminfo);
	return 0;
}

/* A machine without NUMA files: one node of everything. */
static int read_flat(int root, const struct allowed *a, struct topo *t)
{
	struct topo_node *n = &t->node[0];
	int r;

	*t = (struct topo){ .n_nodes = 1 };
	n->cpus = a->cpus;
	r = read_memory(root, "proc/meminfo", n);
	if (r < 0)
		return r;
	read_huge(root, "sys/kernel/mm", n);
	t->distance[0][0] = 10;
	return 0;
}

static int read_node(int root, int id, const struct allowed *a, struct topo_node *n)
{
	char base[64], path[96];
	int r;

	*n = (struct topo_node){ .id = id };
	snprintf(base, sizeof(base), NODE_PATH "/node%d", id);
	snprintf(path, sizeof(path), "%s/cpulist", base);
	r = sysfs_list(root, path, &n->cpus);
	if (r < 0)
		return r;
	CPU_AND(&n->cpus, &n->cpus, &a->cpus);
	if (!CPU_ISSET((size_t)id, &a->mems))
		return 0;
	snprintf(path, sizeof(path), "%s/meminfo", base);
	r = read_memory(root, path, n);
	if (r < 0)
		return r;
	read_huge(root, base, n);
	return 0;
}

/* A node's row has one number for each online node, in their order. */
static void read_distances(int root, struct topo *t, unsigned from)
{
	char path[96], text[1024], *at = text, *end;

	snprintf(path, sizeof(path), NODE_PATH "/node%d/distance", t->node[from].id);
	if (sysfs_text(root, path, text, sizeof(text)) < 0)
		text[0] = '\0';
	for (unsigned to = 0; to < t->n_nodes; to++, at = end) {
		unsigned long d = strtoul(at, &end, 10);

		if (end == at) /* the kernel's own default where firmware says nothing */
			d = from == to ? 10 : 20;
		t->distance[from][to] = (uint8_t)MIN(d, UINT8_MAX);
	}
}

static unsigned nearest_with_memory(const struct topo *t, unsigned from)
{
	unsigned best = from, least = UINT_MAX;

	for (unsigned i = 0; i < t->n_nodes; i++) {
		if (t->node[i].memory_bytes == 0 || t->distance[from][i] >= least)
			continue;
		best = i;
		least = t->distance[from][i];
	}
	return best;
}

static void remove_node(struct topo *t, unsigned i)
{
	unsigned after = t->n_nodes - i - 1;

	memmove(&t->node[i], &t->node[i + 1], after * sizeof(t->node[0]));
	memmove(&t->distance[i], &t->distance[i + 1], after * sizeof(t->distance[0]));
	for (unsigned row = 0; row < t->n_nodes; row++)
		memmove(&t->distance[row][i], &t->distance[row][i + 1], after);
	t->n_nodes--;
}

static void lend_cpus(struct topo *t)
{
	for (unsigned i = 0; i < t->n_nodes; i++) {
		struct topo_node *from = &t->node[i], *to = &t->node[nearest_with_memory(t, i)];

		if (from->memory_bytes > 0 || from == to)
			continue;
		CPU_OR(&to->cpus, &to->cpus, &from->cpus);
		CPU_ZERO(&from->cpus);
	}
}

static bool has_cpus(const struct topo_node *n)
{
	return CPU_COUNT(&n->cpus) > 0;
}

/* Behind the others; the order of either kind stays. */
static void move_behind(struct topo *t, unsigned i)
{
	unsigned last = t->n_nodes - 1, after = last - i;
	struct topo_node node = t->node[i];
	uint8_t row[TOPO_MAX_NODES];

	memcpy(row, t->distance[i], sizeof(row));
	memmove(&t->node[i], &t->node[i + 1], after * sizeof(t->node[0]));
	memmove(&t->distance[i], &t->distance[i + 1], after * sizeof(t->distance[0]));
	t->node[last] = node;
	memcpy(t->distance[last], row, sizeof(row));
	for (unsigned k = 0; k < t->n_nodes; k++) {
		uint8_t one = t->distance[k][i];

		memmove(&t->distance[k][i], &t->distance[k][i + 1], after);
		t->distance[k][last] = one;
	}
}

static unsigned nearest_with_cpus(const struct topo *t, unsigned from)
{
	unsigned best = 0;

	for (unsigned i = 1; i < t->n_nodes; i++)
		if (t->distance[from][i] < t->distance[from][best])
			best = i;
	return best;
}

/* Nodes with both first, then those with memory alone (see the top); nothing of the others. */
static int sort_nodes(struct topo *t)
{
	unsigned n = t->n_nodes, n_memory = 0;

	lend_cpus(t);
	for (unsigned i = t->n_nodes; i-- > 0;)
		if (t->node[i].memory_bytes == 0)
			remove_node(t, i);
	n = t->n_nodes;
	for (unsigned i = 0, seen = 0; seen < n; seen++) {
		if (has_cpus(&t->node[i])) {
			i++;
			continue;
		}
		move_behind(t, i);
		n_memory++;
	}
	t->n_nodes = n - n_memory;
	t->n_memory = n_memory;
	for (unsigned i = 0; i < n; i++) {
		t->node[i].left_out = i >= t->n_nodes;
		t->node[i].near = i < t->n_nodes ? i : nearest_with_cpus(t, i);
	}
	return t->n_nodes > 0 ? 0 : -ENODEV;
}

static int read_nodes(int root, const struct allowed *a, struct topo *t)
{
	cpu_set_t online;
	int r = sysfs_list(root, NODE_PATH "/online", &online);

	if (r < 0)
		return r;
	*t = (struct topo){ 0 };
	for (int id = 0; id < CPU_SETSIZE; id++) {
		if (!CPU_ISSET((size_t)id, &online))
			continue;
		if (t->n_nodes == TOPO_MAX_NODES)
			return -E2BIG;
		r = read_node(root, id, a, &t->node[t->n_nodes]);
		if (r < 0)
			return r;
		t->n_nodes++;
	}
	for (unsigned i = 0; i < t->n_nodes; i++)
		read_distances(root, t, i);
	return sort_nodes(t);
}

int topo_read(const char *root, struct topo *ret)
{
	CLOSE_FD int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	FREE_MEMORY struct topo *t = malloc(sizeof(*t));
	struct allowed a;
	int r;

	if (dir < 0)
		return -errno;
	if (!t)
		return -ENOMEM;
	r = read_allowed(dir, &a);
	if (r < 0)
		return r;
	r = read_nodes(dir, &a, t);
	if (r == -ENOENT)
		r = read_flat(dir, &a, t);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < t->n_nodes; i++) {
		t->node[i].n_cpus = (unsigned)CPU_COUNT(&t->node[i].cpus);
		t->n_cpus += t->node[i].n_cpus;
	}
	*ret = *t;
	return 0;
}

/* The `i`th member of a set, -ENOENT. */
static int nth_cpu(const cpu_set_t *set, unsigned i)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET((size_t)cpu, set) && i-- == 0)
			return cpu;
	}
	return -ENOENT;
}

int topo_cpu(const struct topo *t, unsigned i, unsigned *ret_node)
{
	if (i >= t->n_cpus)
		return -ENOENT;
	/* Round by round, each node that still has a CPU gives one. */
	for (unsigned round = 0;; round++) {
		for (unsigned node = 0; node < t->n_nodes; node++) {
			if (round >= t->node[node].n_cpus || i-- > 0)
				continue;
			*ret_node = node;
			return nth_cpu(&t->node[node].cpus, round);
		}
	}
}

int topo_node_of_cpu(const struct topo *t, int cpu)
{
	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return -ENOENT;
	for (unsigned i = 0; i < t->n_nodes; i++) {
		if (CPU_ISSET((size_t)cpu, &t->node[i].cpus))
			return (int)i;
	}
	return -ENOENT;
}
