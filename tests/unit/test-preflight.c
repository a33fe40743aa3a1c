/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks of a machine, against trees made here: a good one with two nodes,
 * and for each check one that lacks what it looks for. An administrator acts on
 * what they print, so each remedy is run, with commands that change the tree as
 * the kernel would, and must turn its check to ok.
 */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "numa/preflight.h"
#include "shm/base.h"

#define GROUP "sys/fs/cgroup/system.slice/sparqd.service/"
#define DEVICE "sys/bus/pci/devices/"
#define NODE "sys/devices/system/node/node"
#define SMALL "/hugepages/hugepages-2048kB/"
#define LARGE "/hugepages/hugepages-1048576kB/"

struct world {
	char root[64], config[96];
	const char *nodes; /* as numa_nodes has them */
	struct preflight_node node[2];
	struct preflight p;
	struct checks checks;
};

static void put(struct world *w, const char *path, const char *format, ...)
{
	char full[256], text[1024];
	va_list args;
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", w->root, path);
	for (char *at = strchr(full + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = '\0';
		mkdir(full, 0755);
		*at = '/';
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	f = fopen(full, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* Pages of a node; what is asked for is free, as after an echo. */
static void put_pages(struct world *w, int node, const char *size, unsigned n)
{
	char path[128], link[192];

	snprintf(path, sizeof(path), NODE "%d%snr_hugepages", node, size);
	put(w, path, "%u\n", n);
	snprintf(link, sizeof(link), "%s/" NODE "%d%sfree_hugepages", w->root, node, size);
	unlink(link);
	assert_int_equal(symlink("nr_hugepages", link), 0);
}

static void put_memory(struct world *w, int node, unsigned free_mib)
{
	char path[64];

	snprintf(path, sizeof(path), NODE "%d/meminfo", node);
	put(w, path,
	    "Node %d MemTotal: %u kB\nNode %d MemFree: %u kB\nNode %d Active(file): 0 kB\n"
	    "Node %d Inactive(file): 0 kB\n",
	    node, 16 << 20, node, free_mib << 10, node, node);
}

static void put_swap(struct world *w, unsigned kib)
{
	put(w, "proc/meminfo",
	    "MemTotal: 33554432 kB\nSwapTotal: %u kB\nCommitLimit: 16777216 kB\n"
	    "Committed_AS: 1048576 kB\n",
	    kib);
}

/* All is well: 4 GiB wanted on each of two nodes, and reserved. */
static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	strcpy(w->root, "/tmp/sparq-preflight-XXXXXX");
	assert_non_null(mkdtemp(w->root));
	snprintf(w->config, sizeof(w->config), "%s/etc/sparqd.conf", w->root);
	put(w, "sys/devices/system/cpu/online", "0-3\n");
	put(w, "sys/devices/system/node/online", "0-1\n");
	put(w, NODE "0/cpulist", "0-1\n");
	put(w, NODE "1/cpulist", "2-3\n");
	put(w, NODE "0/distance", "10 20\n");
	put(w, NODE "1/distance", "20 10\n");
	for (int node = 0; node < 2; node++) {
		put_memory(w, node, 8192);
		put_pages(w, node, SMALL, 2048);
		put_pages(w, node, LARGE, 0);
		w->node[node] = (struct preflight_node){ .node = node, .bytes = 4 * GIB };
	}
	put_swap(w, 0);
	put(w, "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never\n");
	put(w, "proc/sys/vm/overcommit_memory", "0\n");
	put(w, "proc/sys/vm/max_map_count", "65530\n");
	put(w, "proc/sys/kernel/numa_balancing", "0\n");
	put(w, "proc/sys/kernel/io_uring_disabled", "0\n");
	put(w, "proc/self/cgroup", "0::/system.slice/sparqd.service\n");
	put(w, GROUP "memory.max", "max\n");
	put(w, GROUP "memory.current", "0\n");
	put(w, GROUP "memory.stat", "active_file 0\ninactive_file 0\n");
	for (int cpu = 0; cpu < 4; cpu++) {
		char path[96];

		snprintf(path, sizeof(path),
			 "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);
		put(w, path, "performance\n");
	}
	put(w, "etc/sparqd.conf", "workers = 1\npool_bytes = 8G\n");
	w->p = (struct preflight){ .root = w->root,
				   .config = w->config,
				   .want_2m = true,
				   .node = w->node,
				   .n_nodes = 2,
				   .other_bytes = 64 * MIB,
				   .memlock_bytes = 8 * MIB,
				   .maps = 3072 };
	*state = w;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct world *w = *state;

	nftw(w->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static void look(struct world *w)
{
	FREE_MEMORY struct topo *t = malloc(sizeof(*t));
	int missing;

	assert_non_null(t);
	assert_int_equal(topo_read(w->root, t), 0);
	assert_int_equal(topo_choose(t, w->nodes ? w->nodes : "", &missing), 0);
	w->checks.n = 0;
	preflight_memory(&w->p, t, &w->checks);
	preflight_machine(&w->p, t, &w->checks);
}

/* The worst of that name. */
static const struct check *find(const struct world *w, const char *name)
{
	static const unsigned rank[] = {
		[CHECK_OK] = 0, [CHECK_UNKNOWN] = 1, [CHECK_WARNING] = 2, [CHECK_WRONG] = 3
	};
	const struct check *found = NULL;

	for (unsigned i = 0; i < w->checks.n; i++) {
		const struct check *c = &w->checks.item[i];

		if (strcmp(c->name, name) == 0 &&
		    (!found || rank[c->verdict] > rank[found->verdict]))
			found = c;
	}
	assert_non_null(found);
	return found;
}

/* What the commands of remedies do, to the tree. */
static const char commands[] =
	"set -e\n"
	"sysctl() { echo \"${2#*=}\" > $R/proc/sys/$(echo \"${2%%=*}\" | tr . /); }\n"
	"swapoff() { sed -i 's/SwapTotal:.*/SwapTotal: 0 kB/' $R/proc/meminfo; }\n"
	"systemctl() { test \"$1 $2\" = 'set-property sparqd.service'\n"
	"  v=${3#MemoryMax=}; echo $((${v%M} << 20)) > $R/" GROUP "memory.max; }\n";

static void run_remedy(struct world *w, const char *remedy)
{
	char script[4096];
	size_t n = (size_t)snprintf(script, sizeof(script), "R=%s\n%s", w->root, commands);

	/* The same below another root. */
	for (const char *c = remedy; *c && n < sizeof(script) - 80; c++) {
		bool path = c != remedy && (c[-1] == ' ' || c[-1] == '>');

		if (path && (strncmp(c, "/sys/", 5) == 0 || strncmp(c, "/proc/", 6) == 0))
			n += (size_t)snprintf(script + n, sizeof(script) - n, "%s", w->root);
		script[n++] = *c;
	}
	script[n] = '\0';
	assert_int_equal(system(script), 0);
}

static void expect(struct world *w, const char *name, enum verdict v, const char *text)
{
	const struct check *c;

	look(w);
	c = find(w, name);
	if (c->verdict != v || !strstr(c->text, text))
		print_message("%s: %s: %s\n", name, check_verdict_name(c->verdict), c->text);
	assert_int_equal(c->verdict, v);
	assert_non_null(strstr(c->text, text));
}

/* As expect; then its remedies are run until it is ok, one for each node at most. */
static void expect_mended(struct world *w, const char *name, enum verdict v, const char *text)
{
	char remedy[CHECK_REMEDY_BYTES];

	expect(w, name, v, text);
	for (unsigned i = 0; i < 2 && find(w, name)->verdict != CHECK_OK; i++) {
		assert_string_not_equal(find(w, name)->remedy, "");
		strcpy(remedy, find(w, name)->remedy);
		run_remedy(w, remedy);
		look(w);
	}
	if (find(w, name)->verdict != CHECK_OK)
		print_message("%s: not mended by: %s: %s\n", name, remedy, find(w, name)->text);
	assert_int_equal(find(w, name)->verdict, CHECK_OK);
}

/* ---- the cases ------------------------------------------------------------------ */

static void all_is_well(void **state)
{
	struct world *w = *state;

	look(w);
	for (unsigned i = 0; i < w->checks.n; i++) {
		if (w->checks.item[i].verdict != CHECK_OK)
			print_message("%s: %s\n", w->checks.item[i].name, w->checks.item[i].text);
		assert_int_equal(w->checks.item[i].verdict, CHECK_OK);
		assert_string_equal(w->checks.item[i].remedy, "");
	}
	assert_true(w->checks.n >= 15);
}

static void huge_pages_of_a_node(void **state)
{
	struct world *w = *state;

	put_pages(w, 1, SMALL, 100);
	expect_mended(w, "huge-pages", CHECK_WARNING,
		      "node 1: 100 pages of 2 MiB are free, 2048 are wanted");
}

static void huge_pages_of_no_node(void **state)
{
	struct world *w = *state;

	put_pages(w, 0, SMALL, 0);
	put_pages(w, 1, SMALL, 0);
	w->p.insist = true;
	expect_mended(w, "huge-pages", CHECK_WRONG, "0 pages of 2 MiB are free");
	/* Who wants none lacks none. */
	put_pages(w, 0, SMALL, 0);
	w->p.want_2m = w->p.insist = false;
	expect(w, "huge-pages", CHECK_OK, "none wanted");
}

static void pages_of_1_gib(void **state)
{
	struct world *w = *state;

	w->p.want_1g = w->p.insist = true;
	expect_mended(w, "huge-pages", CHECK_WRONG, "0 pages of 1 GiB are free, 4 are wanted");
	/* Told nothing, either size is good. */
	put_pages(w, 0, LARGE, 0);
	w->p.insist = false;
	expect(w, "huge-pages", CHECK_OK, "enough pages of ");
}

static void no_such_pages_in_the_kernel(void **state)
{
	struct world *w = *state;
	char path[128];

	for (int node = 0; node < 2; node++) {
		snprintf(path, sizeof(path), "%s/" NODE "%d" LARGE, w->root, node);
		nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	}
	w->p.want_1g = w->p.insist = true;
	expect(w, "huge-pages", CHECK_WRONG, "no pages of 1 GiB");
	assert_string_equal(find(w, "huge-pages")->remedy, "");
}

/* No echo mends what the node does not have. */
static void more_than_the_node_has(void **state)
{
	struct world *w = *state;

	put_pages(w, 0, SMALL, 0);
	put_memory(w, 0, 1024);
	expect(w, "huge-pages", CHECK_WARNING, "the node has only 1024 MiB free for more");
	assert_string_equal(find(w, "huge-pages")->remedy, "");
}

static void an_arena_that_is_there(void **state)
{
	struct world *w = *state;

	/* It took the pages: none is free, and none is missing. */
	for (int node = 0; node < 2; node++) {
		put_pages(w, node, SMALL, 0);
		w->node[node].taken = true;
		w->node[node].pages = ARENA_HUGETLB_2M;
	}
	expect(w, "huge-pages", CHECK_OK, "4096 MiB in hugetlb 2 MiB");
	w->node[1].pages = ARENA_THP;
	expect(w, "huge-pages", CHECK_WARNING, "node 1: 0 pages of 2 MiB are free");
	put_pages(w, 1, SMALL, 4096);
	expect(w, "huge-pages", CHECK_WARNING, "enough huge pages are free now");
	assert_non_null(strstr(find(w, "huge-pages")->remedy, "systemctl stop sparqd"));
}

static void in_ordinary_memory(struct world *w)
{
	w->p.want_2m = false;
}

static void memory_of_a_node(void **state)
{
	struct world *w = *state;
	char text[256];
	FILE *f;

	in_ordinary_memory(w);
	put_memory(w, 1, 2048);
	expect(w, "memory", CHECK_WRONG, "node 1: 2048 MiB can be had, 4096 are wanted");
	run_remedy(w, find(w, "memory")->remedy);
	/* One assignment is left, of less than twice what the least node has. */
	f = fopen(w->config, "re");
	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	assert_string_equal(text, "workers = 1\npool_bytes = 3570M\n");
	w->node[0].bytes = w->node[1].bytes = 3570 / 2 * MIB;
	expect(w, "memory", CHECK_OK, "can be had");
}

static void thp(void **state)
{
	struct world *w = *state;

	put(w, "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always advise [never]\n");
	expect(w, "thp-shmem", CHECK_OK, "not needed");
	in_ordinary_memory(w);
	expect(w, "thp-shmem", CHECK_WARNING, "8192 MiB of the pool in pages of 4 KiB");
	run_remedy(w, find(w, "thp-shmem")->remedy);
	/* The kernel prints the choice between brackets. */
	put(w, "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never\n");
	expect(w, "thp-shmem", CHECK_OK, "advise");
}

static void memory_limit_of_the_group(void **state)
{
	struct world *w = *state;

	in_ordinary_memory(w);
	put(w, GROUP "memory.max", "%lu\n", 6 * GIB);
	put(w, GROUP "memory.current", "%lu\n", GIB);
	expect_mended(w, "cgroup-memory", CHECK_WRONG,
		      "leaves 5120 MiB of memory, 9081 are wanted");
	/* Reserved pages do not count there. */
	put(w, GROUP "memory.max", "%lu\n", GIB + 256 * MIB);
	w->p.want_2m = true;
	expect(w, "cgroup-memory", CHECK_OK, "leaves 256 MiB");
}

static void hugetlb_limit_of_the_group(void **state)
{
	struct world *w = *state;

	put(w, GROUP "hugetlb.2MB.max", "%lu\n", GIB);
	put(w, GROUP "hugetlb.2MB.current", "0\n");
	expect_mended(w, "cgroup-hugetlb", CHECK_WRONG,
		      "leaves 1024 MiB of pages of 2 MiB, 8192 are wanted");
}

static void overcommit(void **state)
{
	struct world *w = *state;

	in_ordinary_memory(w);
	put(w, "proc/sys/vm/overcommit_memory", "2\n");
	expect(w, "overcommit", CHECK_OK, "= 2");
	w->node[0].bytes = 16 * GIB;
	expect_mended(w, "overcommit", CHECK_WRONG, "leaves 15360 MiB");
}

static void swap(void **state)
{
	struct world *w = *state;

	put_swap(w, 1 << 20);
	expect(w, "swap", CHECK_OK, "reserved pages");
	in_ordinary_memory(w);
	expect_mended(w, "swap", CHECK_WARNING,
		      "8192 MiB of the pool may be swapped out (1024 MiB of swap)");
}

static void memlock(void **state)
{
	struct world *w = *state;

	w->p.locked_bytes = 8 * MIB;
	expect(w, "memlock", CHECK_OK, "8 MiB are locked");
	w->p.locked_bytes = 16 * MIB;
	expect(w, "memlock", CHECK_WARNING, "RLIMIT_MEMLOCK is 8192 KiB");
	assert_string_equal(find(w, "memlock")->remedy, "ulimit -l 16384");
	w->p.unit = "sparqd.service";
	look(w);
	assert_non_null(strstr(find(w, "memlock")->remedy, "LimitMEMLOCK=infinity"));
	w->p.memlock_bytes = UINT64_MAX;
	expect(w, "memlock", CHECK_OK, "16 MiB are locked");
}

static void max_map_count(void **state)
{
	struct world *w = *state;

	w->p.maps = 132096;
	expect_mended(w, "max-map-count", CHECK_WARNING, "65530, max_sessions may want 132096");
}

static void io_uring(void **state)
{
	struct world *w = *state;

	w->p.uring = -ENOSYS;
	expect(w, "io-uring", CHECK_WARNING, "this kernel does not have it");
	assert_string_equal(find(w, "io-uring")->remedy, "");
	w->p.uring = -EPERM;
	expect(w, "io-uring", CHECK_WARNING, "a filter of system calls forbids it");
	put(w, "proc/sys/kernel/io_uring_disabled", "2\n");
	expect(w, "io-uring", CHECK_WARNING, "kernel.io_uring_disabled forbids it");
	run_remedy(w, find(w, "io-uring")->remedy);
	w->p.uring = 0; /* the caller tries again */
	expect(w, "io-uring", CHECK_OK, "can be used");
}

static void nodes(void **state)
{
	struct world *w = *state;

	expect(w, "cpus", CHECK_OK, "4 on 2 nodes");
	put(w, "sys/devices/system/node/online", "0-2\n");
	put(w, NODE "0/distance", "10 20 40\n");
	put(w, NODE "1/distance", "20 10 24\n");
	put(w, NODE "2/distance", "40 24 10\n");
	put(w, NODE "2/cpulist", "\n");
	put_memory(w, 2, 8192);
	expect(w, "cpus", CHECK_OK, "4 on 2 nodes");
	expect(w, "numa", CHECK_OK, "node 2 has 16384 MiB and no CPUs: the pool has no part of it");
	w->nodes = "0-2";
	expect(w, "numa", CHECK_OK, "those of node 1 work for it (distance 24)");
	put(w, "proc/self/status", "Cpus_allowed_list:\t0-2\n");
	expect(w, "cpus", CHECK_OK, "3 of 4");
	w->node[1].node = 7;
	expect(w, "memory", CHECK_WRONG, "node 7: a part of the pool was made for it");
}

static void balancing(void **state)
{
	struct world *w = *state;

	put(w, "proc/sys/kernel/numa_balancing", "1\n");
	expect_mended(w, "numa-balancing", CHECK_WARNING, "unmaps pages");
}

static void governor(void **state)
{
	struct world *w = *state;
	char path[128];

	put(w, "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n");
	put(w, "sys/devices/system/cpu/cpu2/cpufreq/scaling_driver", "intel_pstate\n");
	expect(w, "governor", CHECK_OK, "");
	put(w, "sys/devices/system/cpu/cpu2/cpufreq/scaling_driver", "acpi-cpufreq\n");
	expect_mended(w, "governor", CHECK_WARNING, "1 of 4 CPUs have \"powersave\"");
	for (int cpu = 0; cpu < 4; cpu++) {
		snprintf(path, sizeof(path),
			 "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", w->root, cpu);
		unlink(path);
	}
	expect(w, "governor", CHECK_UNKNOWN, "no cpufreq");
}

static void gpu(void **state)
{
	struct world *w = *state;

	expect(w, "gpu", CHECK_OK, "none");
	/* A network card, and audio of a graphics card, are no devices that compute. */
	put(w, DEVICE "0000:01:00.0/vendor", "0x15b3\n");
	put(w, DEVICE "0000:01:00.0/class", "0x020000\n");
	put(w, DEVICE "0000:65:00.1/vendor", "0x10de\n");
	put(w, DEVICE "0000:65:00.1/class", "0x040300\n");
	expect(w, "gpu", CHECK_OK, "none");
	put(w, DEVICE "0000:65:00.0/vendor", "0x10de\n");
	put(w, DEVICE "0000:65:00.0/class", "0x030200\n");
	expect(w, "gpu", CHECK_WARNING, "1 of NVIDIA on the bus (0000:65:00.0) and no driver");
	assert_string_equal(find(w, "gpu")->remedy, "modprobe nvidia");
	put(w, "etc/debian_version", "12.7\n");
	expect(w, "gpu", CHECK_WARNING, "no driver for it");
	assert_non_null(strstr(find(w, "gpu")->remedy, "apt-get install nvidia-driver"));
}

/* A driver that is there is not yet one that this process may use. */
static void gpu_driver(void **state)
{
	struct world *w = *state;

	put(w, "proc/driver/nvidia/version",
	    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC "
	    "2024\n");
	expect(w, "gpu", CHECK_WARNING, "NVIDIA driver 550.54.15 finds no device");
	put(w, "proc/driver/nvidia/gpus/0000:65:00.0/information", "Model: H200\n");
	put(w, "proc/driver/nvidia/version",
	    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n");
	expect(w, "gpu", CHECK_WARNING,
	       "NVIDIA driver 570.86.15, 1 device, and /dev/nvidiactl cannot be opened");
	assert_string_equal(find(w, "gpu")->remedy, "nvidia-modprobe -c 0 -u");
	put(w, "dev/nvidiactl", "");
	put(w, "dev/nvidia0", "");
	w->p.unit = "sparqd.service";
	expect(w, "gpu", CHECK_WARNING, "/dev/nvidia-uvm cannot be opened");
	assert_non_null(strstr(find(w, "gpu")->remedy, "sparqd.service.d/gpu.conf"));
	put(w, "dev/nvidia-uvm", "");
	expect(w, "gpu", CHECK_OK, "NVIDIA driver 570.86.15, 1 device");
}

/* Files that are not there, or not readable, make a check unknown and never ok by default. */
static void unreadable(void **state)
{
	struct world *w = *state;
	char path[128];

	in_ordinary_memory(w);
	snprintf(path, sizeof(path), "%s/proc/sys", w->root);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	snprintf(path, sizeof(path), "%s/sys/kernel", w->root);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	expect(w, "thp-shmem", CHECK_UNKNOWN, "No such file");
	expect(w, "overcommit", CHECK_UNKNOWN, "No such file");
	expect(w, "max-map-count", CHECK_UNKNOWN, "No such file");
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_WORLD(all_is_well),
		IN_WORLD(huge_pages_of_a_node),
		IN_WORLD(huge_pages_of_no_node),
		IN_WORLD(pages_of_1_gib),
		IN_WORLD(no_such_pages_in_the_kernel),
		IN_WORLD(more_than_the_node_has),
		IN_WORLD(an_arena_that_is_there),
		IN_WORLD(memory_of_a_node),
		IN_WORLD(thp),
		IN_WORLD(memory_limit_of_the_group),
		IN_WORLD(hugetlb_limit_of_the_group),
		IN_WORLD(overcommit),
		IN_WORLD(swap),
		IN_WORLD(memlock),
		IN_WORLD(max_map_count),
		IN_WORLD(io_uring),
		IN_WORLD(nodes),
		IN_WORLD(balancing),
		IN_WORLD(governor),
		IN_WORLD(gpu),
		IN_WORLD(gpu_driver),
		IN_WORLD(unreadable),
	};

	return cmocka_run_group_tests_name("preflight", tests, NULL, NULL);
}
