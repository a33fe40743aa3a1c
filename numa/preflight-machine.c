/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine has beside memory: limits, io_uring, nodes, clock speeds. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "numa/preflight-private.h"
#include "numa/sysfs.h"
#include "shm/base.h"

#define DROP_IN "/etc/systemd/system/%s.d"

/* A setting of the unit, taken over by a restart, which keeps the KV. */
static void mend_unit(struct check *c, const char *unit, const char *file, const char *setting)
{
	check_mend(c,
		   "mkdir -p " DROP_IN " && printf '[Service]\\n%s\\n' > " DROP_IN "/%s.conf && "
		   "systemctl daemon-reload && systemctl restart %s",
		   unit, setting, unit, file, unit);
}

static void check_memlock(const struct preflight *p, struct checks *c)
{
	struct check *one;

	if (p->locked_bytes == 0) {
		checks_add(c, "memlock", CHECK_OK, "nothing is locked: there is no spill_dir");
		return;
	}
	if (p->memlock_bytes == UINT64_MAX || p->locked_bytes <= p->memlock_bytes) {
		checks_add(c, "memlock", CHECK_OK, "%" PRIu64 " MiB are locked, within the limit",
			   p->locked_bytes / MIB);
		return;
	}
	one = checks_add(c, "memlock", CHECK_WARNING,
			 "RLIMIT_MEMLOCK is %" PRIu64 " KiB, buffers for the disk take %" PRIu64
			 ": they will not be registered",
			 p->memlock_bytes / KIB, p->locked_bytes / KIB);
	if (p->unit)
		mend_unit(one, p->unit, "memlock", "LimitMEMLOCK=infinity");
	else
		check_mend(one, "ulimit -l %" PRIu64, p->locked_bytes / KIB);
}

static void check_maps(const struct preflight *p, int root, struct checks *c)
{
	struct check *one;
	uint64_t most;
	int r = sysfs_number(root, "proc/sys/vm/max_map_count", &most);

	if (r < 0) {
		checks_add(c, "max-map-count", CHECK_UNKNOWN, "/proc/sys/vm/max_map_count: %s",
			   strerror(-r));
		return;
	}
	if (p->maps <= most) {
		checks_add(c, "max-map-count", CHECK_OK,
			   "vm.max_map_count = %" PRIu64 ", at most %" PRIu64 " are wanted", most,
			   p->maps);
		return;
	}
	one = checks_add(c, "max-map-count", CHECK_WARNING,
			 "vm.max_map_count = %" PRIu64 ", max_sessions may want %" PRIu64
			 ": the last ones would be refused",
			 most, p->maps);
	check_mend(one, "sysctl -w vm.max_map_count=%" PRIu64, p->maps);
}

static void check_uring(const struct preflight *p, int root, struct checks *c)
{
	struct check *one;
	uint64_t disabled = 0;

	if (p->uring == 0) {
		checks_add(c, "io-uring", CHECK_OK, "it can be used");
		return;
	}
	sysfs_number(root, "proc/sys/kernel/io_uring_disabled", &disabled);
	one = checks_add(c, "io-uring", CHECK_WARNING,
			 "%s: %s; epoll and plain calls take its place",
			 p->uring == -ENOSYS ? "this kernel does not have it"
			 : disabled          ? "kernel.io_uring_disabled forbids it"
					     : "a filter of system calls forbids it",
			 strerror(-p->uring));
	one->said = true;
	if (p->uring == -ENOSYS)
		return;
	if (disabled)
		check_mend(one, "sysctl -w kernel.io_uring_disabled=0");
	else if (p->unit)
		mend_unit(one, p->unit, "io-uring",
			  "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
}

/* ---- nodes ------------------------------------------------------------------------ */

/* Nothing is wrong with either; who looks for the memory finds it here. */
static void tell_memory_only(const struct topo *t, unsigned i, struct checks *c)
{
	const struct topo_node *n = &t->node[i];

	if (n->left_out)
		checks_add(c, "numa", CHECK_OK,
			   "node %d has %" PRIu64 " MiB and no CPUs: the pool has no part of it, "
			   "numa_nodes in sparqd.conf gives it one",
			   n->id, n->memory_bytes / MIB);
	else
		checks_add(c, "numa", CHECK_OK,
			   "node %d has memory and no CPUs: those of node %d work for it (distance "
			   "%u)",
			   n->id, t->node[n->near].id, t->distance[i][n->near]);
}

static void check_nodes(int root, const struct topo *t, struct checks *c)
{
	cpu_set_t online;
	int cpus_online = 0;

	if (sysfs_list(root, "sys/devices/system/cpu/online", &online) == 0)
		cpus_online = CPU_COUNT(&online);
	if (cpus_online > (int)t->n_cpus)
		checks_add(c, "cpus", CHECK_OK, "%u of %d: the others are not for this process",
			   t->n_cpus, cpus_online);
	else
		checks_add(c, "cpus", CHECK_OK, "%u on %u node%s", t->n_cpus, t->n_nodes,
			   t->n_nodes == 1 ? "" : "s");
	for (unsigned i = t->n_nodes; i < topo_all(t); i++)
		tell_memory_only(t, i, c);
}

static void check_balancing(int root, const struct topo *t, struct checks *c)
{
	struct check *one;
	uint64_t on = 0;

	if (t->n_nodes < 2) {
		checks_add(c, "numa-balancing", CHECK_OK, "there is one node");
		return;
	}
	if (sysfs_number(root, "proc/sys/kernel/numa_balancing", &on) < 0 || on == 0) {
		checks_add(c, "numa-balancing", CHECK_OK, "off");
		return;
	}
	one = checks_add(
		c, "numa-balancing", CHECK_WARNING,
		"on: the kernel unmaps pages to see who touches them, and steps wait for it");
	check_mend(one, "sysctl -w kernel.numa_balancing=0");
}

/* ---- clock speeds ------------------------------------------------------------------- */

static int governor_of(int root, int cpu, const char *file, char *ret, size_t n)
{
	char path[96];
	int r;

	snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/cpufreq/%s", cpu, file);
	r = sysfs_text(root, path, ret, n);
	if (r == 0)
		ret[strcspn(ret, "\n")] = '\0';
	return r;
}

/* With these drivers "powersave" is the ordinary one, which follows the load. */
static bool is_fast(const char *governor, const char *driver)
{
	return !strcmp(governor, "performance") ||
	       (!strcmp(governor, "powersave") &&
		(!strcmp(driver, "intel_pstate") || !strcmp(driver, "amd-pstate-epp")));
}

static void check_governor(int root, const struct topo *t, struct checks *c)
{
	char governor[32] = "", driver[32] = "", slow[32] = "";
	unsigned n_slow = 0, n = 0, node;
	struct check *one;

	for (unsigned i = 0; i < t->n_cpus; i++) {
		int cpu = topo_cpu(t, i, &node);

		if (governor_of(root, cpu, "scaling_governor", governor, sizeof(governor)) < 0)
			continue;
		n++;
		if (governor_of(root, cpu, "scaling_driver", driver, sizeof(driver)) < 0)
			driver[0] = '\0';
		if (is_fast(governor, driver))
			continue;
		n_slow++;
		memcpy(slow, governor, sizeof(slow));
	}
	if (n == 0)
		checks_add(c, "governor", CHECK_UNKNOWN,
			   "no cpufreq: firmware or a hypervisor decides on clock speeds");
	else if (n_slow == 0)
		checks_add(c, "governor", CHECK_OK, "%s", governor);
	else {
		one = checks_add(c, "governor", CHECK_WARNING,
				 "%u of %u CPUs have \"%s\": they are slow to wake", n_slow, n,
				 slow);
		check_mend(one, "echo performance | tee "
				"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor");
	}
}

void preflight_machine(const struct preflight *p, const struct topo *t, struct checks *c)
{
	CLOSE_FD int root = open(p->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (root < 0) {
		checks_add(c, "cpus", CHECK_UNKNOWN, "%s: %s", p->root, strerror(errno));
		return;
	}
	check_memlock(p, c);
	check_maps(p, root, c);
	check_uring(p, root, c);
	check_nodes(root, t, c);
	check_balancing(root, t, c);
	check_governor(root, t, c);
	preflight_gpu(p, root, c);
}
