/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool that is nearly full: whoever asks for what is there gets it, whatever others try at the
 * same time. Clients rely on it: a refusal means that something has to go.
 */
#include "daemon/page.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define UNIT (2 * MIB)
#define UNITS 4u
#define ROUNDS 600000u

struct world {
	struct arena arena[2];
	struct pool pool;
	page_ref first, last, other; /* units 0 and 3 of node 0, and all of node 1 */
	uint32_t over;               /* atomic */
	uint64_t refused;            /* of the large one */
};

static struct page_size units(size_t n)
{
	return (struct page_size){ .whole = n * UNIT - 64 };
}

static page_ref take(struct world *w, unsigned node, size_t n)
{
	page_ref page;

	assert_int_equal(pool_take(&w->pool, node, units(n), 1, &page), 0);
	assert_int_equal(pool_node_of(page), node);
	return page;
}

/* Two units between others; the search for two begins where only the first of a run is free. */
static void lay_out(struct world *w)
{
	const struct page_size stripe = { .whole = 2 * (UNIT - 64), .part = UNIT - 64 };
	page_ref page[UNITS];

	for (unsigned i = UNITS; i-- > 0;)
		page[i] = take(w, 0, 1);
	pool_put(&w->pool, page[3]);
	assert_int_equal(pool_take(&w->pool, 0, stripe, 1, &w->last), 0);
	assert_true(pool_is_striped(w->last));
	pool_put(&w->pool, page[2]);
	pool_put(&w->pool, page[1]);
	w->first = page[0];
	w->other = take(w, 1, UNITS - 1);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	for (unsigned i = 0; i < 2; i++) {
		struct arena *a = &w->arena[i];

		*a = ARENA_NULL;
		a->bytes = UNITS * UNIT;
		a->base = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(a->base, MAP_FAILED);
	}
	assert_int_equal(pool_init(&w->pool, w->arena, 2, NULL, false), 0);
	lay_out(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	pool_put(&w->pool, w->first);
	pool_put(&w->pool, w->last);
	pool_put(&w->pool, w->other);
	assert_int_equal(w->pool.used_bytes, 0);
	pool_deinit(&w->pool);
	for (unsigned i = 0; i < 2; i++)
		munmap(w->arena[i].base, w->arena[i].bytes);
	free(w);
	return 0;
}

/* Wants three units, of which the third is never free. */
static void *want_much(void *arg)
{
	struct world *w = arg;

	while (!load_relaxed(&w->over)) {
		page_ref page;

		if (pool_take(&w->pool, 0, units(3), 1, &page) == 0)
			return w;
		store_relaxed(&w->refused, w->refused + 1);
	}
	return NULL;
}

/* Wants the two units that are free, but for what another claims and cannot keep. */
static void refused_by_no_attempt(void **state)
{
	struct world *w = *state;
	pthread_t much;
	void *got;

	assert_int_equal(pthread_create(&much, NULL, want_much, w), 0);
	while (load_relaxed(&w->refused) == 0)
		;
	for (unsigned i = 0; i < ROUNDS; i++)
		pool_put(&w->pool, take(w, 0, 2));
	store_relaxed(&w->over, 1u);
	pthread_join(much, &got);
	assert_null(got);
	/* Else nobody was in anybody's way. */
	assert_true(w->refused > ROUNDS / 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refused_by_no_attempt, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
