/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What saves the pool a look at all units: however many sizes of pages come and go, a size that
 * comes later is served as the first one was; and a size that found nothing says nothing of
 * another. Everybody relies on it who shares a daemon with a client that makes many caches.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "daemon/page-private.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define UNITS 16u
#define UNIT (2 * MIB)

struct fixture {
	struct arena arena;
	struct pool pool;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->arena = ARENA_NULL;
	f->arena.bytes = UNITS * UNIT;
	f->arena.base = mmap(NULL, f->arena.bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(f->arena.base, MAP_FAILED);
	assert_int_equal(pool_init(&f->pool, &f->arena, 1, NULL, false), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->pool.used_bytes, 0);
	pool_deinit(&f->pool);
	munmap(f->arena.base, f->arena.bytes);
	free(f);
	return 0;
}

static int take(struct pool *p, size_t bytes, page_ref *ret)
{
	return pool_take(p, 0, (struct page_size){ .whole = bytes }, 1, ret);
}

static struct pool_hint *hint_of(struct pool *p, size_t bytes)
{
	return pool_hint_of(&p->node[0], class_of(bytes));
}

static bool is_in_vain(struct pool *p, size_t bytes)
{
	return hint_is_in_vain(hint_of(p, bytes), class_of(bytes), load_relaxed(&p->released));
}

/* Eight times as many as there were hints when each was one size's for ever. */
static void any_number_of_sizes(void **state)
{
	struct fixture *f = *state;
	struct pool *p = &f->pool;
	page_ref page, all;

	for (size_t i = 1; i <= 512; i++) {
		size_t bytes = i * 4096;

		assert_int_equal(take(p, bytes, &page), 0);
		pool_put(p, page);
		assert_int_equal(load_relaxed(&hint_of(p, bytes)->open), 0);
	}
	/* The pool is full: who looks once need not look again. */
	assert_int_equal(take(p, (UNITS - 1) * UNIT + UNIT / 2, &all), 0);
	for (size_t i = 1; i <= 512; i++) {
		assert_int_equal(take(p, i * 4096, &page), -ENOSPC);
		assert_true(is_in_vain(p, i * 4096));
	}
	pool_put(p, all);
	for (size_t i = 1; i <= 512; i++) {
		assert_false(is_in_vain(p, i * 4096));
		assert_int_equal(take(p, i * 4096, &page), 0);
		pool_put(p, page);
	}
}

/* A look that found nothing says so until one page comes back, not until a whole slab does. */
static void one_page_back(void **state)
{
	struct fixture *f = *state;
	struct pool *p = &f->pool;
	page_ref page[2 * UNITS + 1];
	unsigned n = 0;

	while (take(p, UNIT / 2, &page[n]) == 0)
		n++;
	assert_true(n >= UNITS && is_in_vain(p, UNIT / 2));
	pool_put(p, page[--n]);
	assert_false(is_in_vain(p, UNIT / 2));
	assert_int_equal(take(p, UNIT / 2, &page[n++]), 0);
	while (n)
		pool_put(p, page[--n]);
}

/* Two sizes of one hint: the first page of the other one that is large, and as many small ones. */
static size_t twin_of(struct pool *p, size_t bytes, size_t least)
{
	while (hint_of(p, least) != hint_of(p, bytes) || class_of(least) == class_of(bytes))
		least += GRAIN * 2;
	return least;
}

/* That there is no run for a large page is no reason to refuse a small one. */
static void a_shared_hint_hides_nothing(void **state)
{
	struct fixture *f = *state;
	struct pool *p = &f->pool;
	size_t small = 4096, large = twin_of(p, small, 3 * UNIT);
	page_ref all, one, other, page;

	assert_int_equal(take(p, (UNITS - 2) * UNIT + UNIT / 2, &all), 0);
	assert_int_equal(take(p, large, &page), -ENOSPC);
	assert_true(is_in_vain(p, large));
	assert_false(is_in_vain(p, small));
	assert_int_equal(take(p, small, &one), 0);
	/* The small one's free pages are no room for the large one, and it finds that out again. */
	assert_int_equal(take(p, large, &page), -ENOSPC);
	assert_int_equal(take(p, small, &other), 0);
	pool_put(p, all);
	assert_int_equal(take(p, large, &page), 0);
	pool_put(p, page);
	pool_put(p, one);
	pool_put(p, other);
	assert_int_equal(load_relaxed(&hint_of(p, small)->open), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(any_number_of_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(one_page_back, setup, teardown),
		cmocka_unit_test_setup_teardown(a_shared_hint_hides_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
