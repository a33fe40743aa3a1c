/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas on whatever this machine has. The pool relies on three things: memory
 * that is handed out never faults, it lies where it was asked to lie or is
 * counted, and a kept descriptor brings the same bytes back.
 *
 * Huge pages: as root the test reserves 8 of 2 MiB on each node and restores
 * the counts; else those cases are skipped. Machines with several nodes (see
 * tests/system/numa-guest.sh) also run the cases that move pages away.
 */
#include <fcntl.h>
#include <numaif.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "numa/arena.h"
#include "numa/topo.h"
#include "shm/base.h"

#define HUGE_PAGES 8
#define LOCK_FILE "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static struct topo topo;

/* The counts before this test, by node index; -1: not ours to restore. */
static long reserved_before[TOPO_MAX_NODES];
static int lock = -1;

static void fill(const struct arena *a)
{
	uint64_t *word = a->base;

	for (size_t i = 0; i < a->bytes / sizeof(*word); i++)
		word[i] = i * 0x9e3779b97f4a7c15;
}

static void assert_filled(const struct arena *a)
{
	const uint64_t *word = a->base;
	size_t wrong = 0;

	for (size_t i = 0; i < a->bytes / sizeof(*word); i++)
		wrong += word[i] != i * 0x9e3779b97f4a7c15;
	assert_int_equal(wrong, 0);
}

static void assert_zero(const struct arena *a)
{
	const uint64_t *word = a->base;
	uint64_t any = 0;

	for (size_t i = 0; i < a->bytes / sizeof(*word); i++)
		any |= word[i];
	assert_int_equal(any, 0);
}

static void shmem_arena(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = 5 * MIB, .node = topo.node[0].id };
	char why[ARENA_WHY_BYTES] = "untouched";
	struct stat st;

	assert_int_equal(arena_create(&p, &a, why), 0);
	assert_int_equal(a.bytes, 6 * MIB);
	assert_int_equal((uintptr_t)a.base % (2 * MIB), 0);
	assert_true(a.pages == ARENA_THP || a.pages == ARENA_SMALL);
	/* A fall is explained, and only a fall. */
	assert_int_equal(a.pages == ARENA_SMALL, strstr(why, "echo advise >") != NULL);
	assert_int_equal(a.misplaced_pages, 0);
	assert_zero(&a);
	fill(&a);
	assert_filled(&a);
	assert_int_equal(fstat(a.fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, 6 * MIB);
	assert_int_equal(fcntl(a.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

struct seen {
	size_t done, total;
	unsigned calls;
};

static int on_progress(void *arg, size_t done, size_t total)
{
	struct seen *s = arg;

	assert_true(done >= s->done && done <= total);
	*s = (struct seen){ .done = done, .total = total, .calls = s->calls + 1 };
	return 0;
}

/* Two at once, as two nodes are: one sum, and each in its own memory. */
static void several_at_once(void **state)
{
	struct arena a[3] = { ARENA_NULL, ARENA_NULL, ARENA_NULL };
	struct arena_params p[3];
	struct seen seen = { 0 };
	char why[3][ARENA_WHY_BYTES];

	for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
		p[i] = (struct arena_params){ .name = "test",
					      .bytes = (70 * i + 2) * MIB,
					      .node = topo.node[i % topo.n_nodes].id,
					      .cpus = &topo.node[i % topo.n_nodes].cpus };
	assert_int_equal(arena_create_all(p, ARRAY_SIZE(p), on_progress, &seen, a, why), 0);
	assert_true(seen.calls > 0);
	assert_int_equal(seen.total, (2 + 72 + 142) * MIB);
	assert_int_equal(seen.done, seen.total);
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
		assert_int_equal(a[i].bytes, p[i].bytes);
		assert_int_equal(a[i].node, p[i].node);
		assert_int_equal(a[i].misplaced_pages, 0);
		assert_zero(&a[i]);
		fill(&a[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
		assert_filled(&a[i]);
		arena_deinit(&a[i]);
	}
}

/* One that cannot be had takes the others with it: a pool is whole or not there. */
static void one_of_several_fails(void **state)
{
	struct arena a[2] = { ARENA_NULL, ARENA_NULL };
	struct arena_params p[2] = {
		{ .name = "test", .bytes = 4 * MIB, .node = -1 },
		{ .name = "test", .bytes = 1024 * 1024 * GIB, .node = -1 },
	};
	char why[2][ARENA_WHY_BYTES];

	assert_int_equal(arena_create_all(p, 2, NULL, NULL, a, why), -ENOMEM);
	assert_string_equal(why[0], "");
	assert_non_null(strstr(why[1], "1073741824 MiB"));
	assert_null(a[0].base);
	assert_int_equal(a[0].fd, -1);
	p[0].bytes = 0;
	assert_int_equal(arena_create_all(p, 2, NULL, NULL, a, why), -EINVAL);
	assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0); /* no half-made arena closes it */
}

static int end_at_once(void *arg, size_t done, size_t total)
{
	unsigned *calls = arg;

	++*calls;
	return -ECANCELED;
}

/* Whoever stops the daemon while it starts does not wait for the memory it wanted. */
static void progress_ends_it(void **state)
{
	struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = GIB, .node = -1 };
	unsigned calls = 0;
	char why[1][ARENA_WHY_BYTES];

	assert_int_equal(arena_create_all(&p, 1, end_at_once, &calls, &a, why), -ECANCELED);
	assert_int_equal(calls, 1);
	assert_string_equal(why[0], "");
	assert_null(a.base);
	assert_int_equal(a.fd, -1);
}

static void more_than_there_is(void **state)
{
	struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test",
				  .bytes = 1024 * 1024 * GIB,
				  .node = -1,
				  .want_1g = true,
				  .want_2m = true };
	char why[ARENA_WHY_BYTES] = "";

	assert_int_equal(arena_create(&p, &a, why), -ENOMEM);
	assert_non_null(strstr(why, "1073741824 MiB"));
	assert_null(a.base);
	assert_int_equal(a.fd, -1);
	p.bytes = 0;
	assert_int_equal(arena_create(&p, &a, why), -EINVAL);
	p.bytes = SIZE_MAX;
	assert_int_equal(arena_create(&p, &a, why), -EINVAL);
}

static void no_such_node(void **state)
{
	struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = 2 * MIB, .node = 1000 };
	char why[ARENA_WHY_BYTES] = "";

	assert_true(arena_create(&p, &a, why) < 0);
	assert_non_null(strstr(why, "node 1000"));
	assert_null(a.base);
}

/* As a restart does: the process that made it is gone, the descriptor is not. */
static void adopt_brings_the_bytes_back(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	CLEANUP(arena_deinit) struct arena again = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = 4 * MIB, .node = topo.node[0].id };
	enum arena_pages pages;
	int kept;

	assert_int_equal(arena_create(&p, &a, NULL), 0);
	pages = a.pages;
	fill(&a);
	kept = fcntl(a.fd, F_DUPFD_CLOEXEC, 0);
	assert_true(kept >= 0);
	arena_deinit(&a);
	assert_null(a.base);
	assert_int_equal(arena_adopt(kept, topo.node[0].id, &again), 0);
	assert_int_equal(again.fd, kept);
	assert_int_equal(again.bytes, 4 * MIB);
	assert_int_equal(again.pages, pages);
	assert_int_equal(again.misplaced_pages, 0);
	assert_filled(&again);
}

static void adopt_refuses_what_is_no_arena(void **state)
{
	CLOSE_FD int odd = memfd_create("odd", MFD_CLOEXEC);
	CLOSE_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct arena a = ARENA_NULL;

	assert_int_equal(ftruncate(odd, 2 * MIB + 4096), 0);
	assert_int_equal(arena_adopt(odd, -1, &a), -EINVAL);
	assert_int_equal(arena_adopt(null, -1, &a), -EINVAL);
	assert_int_equal(arena_adopt(-1, -1, &a), -EBADF);
	assert_true(fcntl(odd, F_GETFD) >= 0); /* still the caller's */
	assert_null(a.base);
}

/* One node is enough to see that the count counts: ask for a node it is not on. */
static void pages_elsewhere_are_counted(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = 4 * MIB, .node = topo.node[0].id };

	assert_int_equal(arena_create(&p, &a, NULL), 0);
	a.node = topo.node[0].id + 1;
	assert_int_equal(arena_verify(&a), 0);
	assert_int_equal(a.misplaced_pages, a.bytes / a.page_bytes);
	a.node = topo.node[0].id;
	assert_int_equal(arena_verify(&a), 0);
	assert_int_equal(a.misplaced_pages, 0);
}

/* Moves `n` pages to another node behind the arena's back; how many went. */
static unsigned move_away(struct arena *a, int to, unsigned n)
{
	unsigned moved = 0;

	for (unsigned i = 0; i < n; i++) {
		void *page = (char *)a->base + 2 * i * a->page_bytes;
		int status = -1;

		if (move_pages(0, 1, &page, &to, &status, MPOL_MF_MOVE) == 0 && status == to)
			moved++;
	}
	return moved;
}

static void moved_pages_are_counted(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test", .bytes = 4 * MIB, .node = topo.node[0].id };

	if (topo.n_nodes < 2)
		skip();
	assert_int_equal(arena_create(&p, &a, NULL), 0);
	fill(&a);
	assert_int_equal(a.misplaced_pages, 0);
	assert_int_equal(move_away(&a, topo.node[1].id, 3), 3);
	assert_int_equal(arena_verify(&a), 0);
	assert_int_equal(a.misplaced_pages, 3);
	assert_filled(&a);
}

static void each_node_serves_its_own(void **state)
{
	for (unsigned i = 0; i < topo.n_nodes; i++) {
		CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
		struct arena_params p = { .name = "test",
					  .bytes = 2 * MIB,
					  .node = topo.node[i].id };
		int on = -1;

		assert_int_equal(arena_create(&p, &a, NULL), 0);
		assert_int_equal(a.misplaced_pages, 0);
		/* A second witness, which the arena does not use. */
		assert_int_equal(get_mempolicy(&on, NULL, 0, a.base, MPOL_F_NODE | MPOL_F_ADDR), 0);
		assert_int_equal(on, topo.node[i].id);
	}
}

static void count_path(unsigned i, char *ret, size_t n)
{
	snprintf(ret, n, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages",
		 topo.node[i].id);
	if (access(ret, F_OK) < 0)
		snprintf(ret, n, "%s", LOCK_FILE);
}

static long read_count(unsigned i)
{
	char path[128];
	long value = -1;
	FILE *f;

	count_path(i, path, sizeof(path));
	f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

static long write_count(unsigned i, long value)
{
	char path[128];
	FILE *f;

	count_path(i, path, sizeof(path));
	f = fopen(path, "we");
	if (f) {
		fprintf(f, "%ld", value);
		fclose(f);
	}
	return read_count(i);
}

/* Restores exactly; the lock keeps two runs of this test from restoring each other's counts. */
static int give_huge_pages_back(void **state)
{
	int r = 0;

	for (unsigned i = 0; i < topo.n_nodes && lock >= 0; i++) {
		if (reserved_before[i] >= 0 &&
		    write_count(i, reserved_before[i]) != reserved_before[i])
			r = -1;
	}
	close_fd(&lock);
	return r;
}

/* 8 more pages on each node; on failure the cases see too few and skip. */
static int take_huge_pages(void **state)
{
	lock = open(LOCK_FILE, O_RDONLY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return 0;
	for (unsigned i = 0; i < topo.n_nodes; i++) {
		reserved_before[i] = read_count(i);
		if (reserved_before[i] >= 0)
			write_count(i, reserved_before[i] + HUGE_PAGES);
	}
	return topo_read("/", &topo);
}

static bool lacks_huge_pages(void)
{
	for (unsigned i = 0; i < topo.n_nodes; i++) {
		if (topo.node[i].huge_free[0] < HUGE_PAGES) {
			print_message("node %d: %lu of %d huge pages, no root: skipped\n",
				      topo.node[i].id, (unsigned long)topo.node[i].huge_free[0],
				      HUGE_PAGES);
			return true;
		}
	}
	return false;
}

static void hugetlb_arena_on_each_node(void **state)
{
	if (lacks_huge_pages())
		skip();
	for (unsigned i = 0; i < topo.n_nodes; i++) {
		CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
		CLEANUP(arena_deinit) struct arena again = ARENA_NULL;
		struct arena_params p = { .name = "test",
					  .bytes = HUGE_PAGES / 2 * 2 * MIB,
					  .node = topo.node[i].id,
					  .want_2m = true };
		char why[ARENA_WHY_BYTES] = "untouched";
		int on = -1, kept;

		assert_int_equal(arena_create(&p, &a, why), 0);
		assert_string_equal(why, "");
		assert_int_equal(a.pages, ARENA_HUGETLB_2M);
		assert_int_equal(a.page_bytes, 2 * MIB);
		assert_int_equal(a.misplaced_pages, 0);
		assert_int_equal(get_mempolicy(&on, NULL, 0, a.base, MPOL_F_NODE | MPOL_F_ADDR), 0);
		assert_int_equal(on, topo.node[i].id);
		fill(&a);
		kept = fcntl(a.fd, F_DUPFD_CLOEXEC, 0);
		arena_deinit(&a);
		assert_int_equal(arena_adopt(kept, topo.node[i].id, &again), 0);
		assert_int_equal(again.pages, ARENA_HUGETLB_2M);
		assert_int_equal(again.misplaced_pages, 0);
		assert_filled(&again);
	}
}

/* Never SIGBUS: one page more than the node has must fall, and say which command mends it. */
static void one_huge_page_too_few(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct topo_node *n = &topo.node[0];
	struct arena_params p = { .name = "test",
				  .node = n->id,
				  .want_2m = true,
				  .bytes = (n->huge_free[0] + 1) * 2 * MIB };
	char why[ARENA_WHY_BYTES], expected[48];

	if (lacks_huge_pages())
		skip();
	assert_int_equal(arena_create(&p, &a, why), 0);
	assert_true(a.pages == ARENA_THP || a.pages == ARENA_SMALL);
	snprintf(expected, sizeof(expected), "echo %ld > /sys/", read_count(0) + 1);
	assert_non_null(strstr(why, expected));
	assert_non_null(strstr(why, "nr_hugepages"));
	fill(&a);
	assert_filled(&a);
}

static void moved_huge_pages_are_counted(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct arena_params p = { .name = "test",
				  .bytes = HUGE_PAGES * 2 * MIB,
				  .node = topo.node[0].id,
				  .want_2m = true };

	if (topo.n_nodes < 2 || lacks_huge_pages())
		skip();
	assert_int_equal(arena_create(&p, &a, NULL), 0);
	fill(&a);
	assert_int_equal(move_away(&a, topo.node[1].id, 2), 2);
	assert_int_equal(arena_verify(&a), 0);
	assert_int_equal(a.misplaced_pages, 2);
	assert_filled(&a);
}

/* What a machine has without any preparation, and the command for it. */
static void no_huge_pages_at_all(void **state)
{
	CLEANUP(arena_deinit) struct arena a = ARENA_NULL;
	struct arena_params p = {
		.name = "test", .bytes = 4 * MIB, .node = -1, .want_1g = true, .want_2m = true
	};
	char why[ARENA_WHY_BYTES];
	uint64_t free_pages = 0;

	for (unsigned i = 0; i < topo.n_nodes; i++)
		free_pages += topo.node[i].huge_free[0];
	assert_int_equal(arena_create(&p, &a, why), 0);
	if (free_pages >= 2) {
		assert_int_equal(a.pages, ARENA_HUGETLB_2M);
		assert_non_null(strstr(why, "1 GiB")); /* why it is not 1 GiB pages */
		return;
	}
	assert_true(a.pages == ARENA_THP || a.pages == ARENA_SMALL);
	assert_non_null(strstr(why, "sysctl vm.nr_hugepages="));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shmem_arena),
		cmocka_unit_test(several_at_once),
		cmocka_unit_test(one_of_several_fails),
		cmocka_unit_test(progress_ends_it),
		cmocka_unit_test(more_than_there_is),
		cmocka_unit_test(no_such_node),
		cmocka_unit_test(adopt_brings_the_bytes_back),
		cmocka_unit_test(adopt_refuses_what_is_no_arena),
		cmocka_unit_test(pages_elsewhere_are_counted),
		cmocka_unit_test(moved_pages_are_counted),
		cmocka_unit_test(each_node_serves_its_own),
		cmocka_unit_test(no_huge_pages_at_all),
	};
	const struct CMUnitTest huge[] = {
		cmocka_unit_test(hugetlb_arena_on_each_node),
		cmocka_unit_test(one_huge_page_too_few),
		cmocka_unit_test(moved_huge_pages_are_counted),
		cmocka_unit_test(no_huge_pages_at_all),
	};
	int failed;

	if (topo_read("/", &topo) < 0)
		return 1;
	failed = cmocka_run_group_tests_name("arena", tests, NULL, NULL);
	failed += cmocka_run_group_tests_name("arena, huge pages", huge, take_huge_pages,
					      give_huge_pages_back);
	return failed;
}
