/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling: the pool relies on every page being there afterwards or an error
 * saying that it is not, and the end of a start on it stopping when told to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "numa/fill.h"
#include "shm/base.h"

#define SLACK_BYTES (8 * 32 * MIB) /* what threads may have in hand when they are told to stop */

static char *map(size_t bytes, int protection)
{
	char *base =
		mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(base != MAP_FAILED);
	/* Page by page: what is there is then what was asked for. */
	madvise(base, bytes, MADV_NOHUGEPAGE);
	return base;
}

static size_t resident_bytes(char *base, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
	FREE_MEMORY unsigned char *there = calloc(bytes / page, 1);

	assert_non_null(there);
	assert_int_equal(mincore(base, bytes, there), 0);
	for (size_t i = 0; i < bytes / page; i++)
		n += there[i] & 1;
	return n * page;
}

static cpu_set_t all_cpus(void)
{
	cpu_set_t set;

	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	return set;
}

struct seen {
	size_t done, total;
	int end;
};

static int look(void *arg, size_t done, size_t total)
{
	struct seen *s = arg;

	s->done = done;
	s->total = total;
	return s->end;
}

/* With a crew and without; the last slice is a short one. */
static void every_page_is_there(void **state)
{
	cpu_set_t cpus = all_cpus();
	size_t bytes = 101 * MIB;
	struct fill_range r[] = {
		{ .base = map(bytes, PROT_READ | PROT_WRITE), .bytes = bytes, .cpus = &cpus },
		{ .base = map(bytes, PROT_READ | PROT_WRITE),
		  .bytes = bytes,
		  .page_bytes = 4 * KIB },
	};
	struct seen seen = { 0 };

	assert_int_equal(resident_bytes(r[0].base, bytes), 0);
	assert_int_equal(fill_ranges(r, ARRAY_SIZE(r), look, &seen), 0);
	assert_int_equal(seen.done, 2 * bytes);
	assert_int_equal(seen.total, 2 * bytes);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		assert_int_equal(r[i].error, 0);
		assert_int_equal(resident_bytes(r[i].base, bytes), bytes);
		munmap(r[i].base, bytes);
	}
}

/* A node without the pages must not keep another from having its own. */
static void an_error_is_of_its_range(void **state)
{
	cpu_set_t cpus = all_cpus();
	size_t bytes = 64 * MIB;
	struct fill_range r[] = {
		{ .base = map(bytes, PROT_NONE), .bytes = bytes, .cpus = &cpus, .error = 1 },
		{ .base = map(bytes, PROT_READ | PROT_WRITE),
		  .bytes = bytes,
		  .cpus = &cpus,
		  .error = 1 },
	};

	assert_int_equal(fill_ranges(r, ARRAY_SIZE(r), NULL, NULL), 0);
	assert_true(r[0].error < 0);
	assert_int_equal(r[1].error, 0);
	assert_int_equal(resident_bytes(r[1].base, bytes), bytes);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		munmap(r[i].base, bytes);
}

/* CPUs that this process may not use: an error, not a range that is silently empty. */
static void no_thread_is_an_error(void **state)
{
	size_t bytes = 2 * MIB;
	cpu_set_t none;
	struct fill_range r = { .base = map(bytes, PROT_READ | PROT_WRITE),
				.bytes = bytes,
				.cpus = &none };

	CPU_ZERO(&none);
	assert_int_equal(fill_ranges(&r, 1, NULL, NULL), 0);
	assert_true(r.error < 0);
	munmap(r.base, bytes);
}

/* Told to end it ends: of a gibibyte that takes longer than the first call to come, the rest is not
 * touched. */
static void told_to_end_it_ends(void **state)
{
	size_t bytes = GIB;
	struct fill_range r = { .base = map(bytes, PROT_READ | PROT_WRITE), .bytes = bytes };
	struct seen seen = { .end = -ECANCELED };

	assert_int_equal(fill_ranges(&r, 1, look, &seen), -ECANCELED);
	assert_true(resident_bytes(r.base, bytes) <= seen.done + SLACK_BYTES);
	munmap(r.base, bytes);
}

static void nothing_to_fill(void **state)
{
	struct seen seen = { .done = 1 };

	assert_int_equal(fill_ranges(NULL, 0, look, &seen), 0);
	assert_int_equal(seen.done, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_page_is_there),   cmocka_unit_test(an_error_is_of_its_range),
		cmocka_unit_test(no_thread_is_an_error), cmocka_unit_test(told_to_end_it_ends),
		cmocka_unit_test(nothing_to_fill),
	};

	return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
