/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: pages never overlap, all memory comes back, nobody reads another uid's bytes. Workers
 * and control thread use it at once without a lock, so most of it runs in threads.
 */
#include "daemon/page.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define UNIT (2 * MIB)

struct fixture {
	struct arena arena[2];
	struct pool pool;
};

static int setup_n(void **state, unsigned nodes, size_t units)
{
	struct fixture *f = calloc(1, sizeof(*f));

	for (unsigned i = 0; i < nodes; i++) {
		f->arena[i] = ARENA_NULL;
		f->arena[i].bytes = units * UNIT;
		f->arena[i].base = mmap(NULL, units * UNIT, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(f->arena[i].base, MAP_FAILED);
	}
	assert_int_equal(pool_init(&f->pool, f->arena, nodes, NULL, false), 0);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_n(state, 1, 16);
}

static int setup_two(void **state)
{
	return setup_n(state, 2, 4);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pool_deinit(&f->pool);
	for (unsigned i = 0; i < 2; i++)
		if (f->arena[i].base)
			munmap(f->arena[i].base, f->arena[i].bytes);
	free(f);
	return 0;
}

static struct page_size whole(size_t bytes)
{
	return (struct page_size){ .whole = bytes };
}

static page_ref take(struct pool *p, size_t bytes, uint32_t uid)
{
	page_ref page = 0;

	assert_int_equal(pool_take(p, 0, whole(bytes), uid, &page), 0);
	assert_true(page != 0);
	return page;
}

/* Equal planes of successive pages must fall into different cache sets: the strides are odd
 * multiples of a line, also between pages that have a slab each. */
static void strides(void **state)
{
	static const size_t sizes[] = { 1, 64, 4096, 65536, 262144, MIB, UNIT, 3 * UNIT / 2 };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t stride = pool_charge(&f->pool, whole(sizes[i]));
		page_ref a = take(&f->pool, sizes[i], 1), b = take(&f->pool, sizes[i], 1);
		uintptr_t at = (uintptr_t)pool_data(&f->pool, a),
			  bt = (uintptr_t)pool_data(&f->pool, b);

		assert_true(stride >= sizes[i]);
		assert_int_equal(stride % 128, 64);
		assert_int_equal(at % 64, 0);
		assert_int_not_equal(at % 4096, bt % 4096);
		assert_int_equal(f->pool.used_bytes, 2 * stride);
		pool_put(&f->pool, a);
		pool_put(&f->pool, b);
		assert_int_equal(f->pool.used_bytes, 0);
	}
}

/* What one class leaves, another can have whole. */
static void all_comes_back(void **state)
{
	static const size_t sizes[] = { 4096, 300000, MIB, 16 * UNIT - 4096, 5 * MIB, 1 };
	struct fixture *f = *state;
	page_ref *page = calloc(16 * UNIT / 4096, sizeof(*page));

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = 0;

		while (pool_take(&f->pool, 0, whole(sizes[i]), 1, &page[n]) == 0)
			n++;
		/* Three quarters at least are pages, of whatever size; runs that are not full
		 * are what is left. */
		assert_true(n * pool_charge(&f->pool, whole(sizes[i])) >= 16 * UNIT / 4 * 3);
		assert_true(pool_free_bytes(&f->pool) <= 16 * UNIT / 4);
		while (n)
			pool_put(&f->pool, page[--n]);
		assert_int_equal(f->pool.used_bytes, 0);
	}
	free(page);
}

static void too_large(void **state)
{
	struct fixture *f = *state;
	page_ref page = 77;

	assert_int_equal(pool_take(&f->pool, 0, whole(16 * UNIT + 1), 1, &page), -ENOSPC);
	assert_int_equal(pool_take(&f->pool, 0, whole(SIZE_MAX / 2), 1, &page), -ENOSPC);
	assert_int_equal(page, 77);
	assert_int_equal(f->pool.used_bytes, 0);
}

static void other_node(void **state)
{
	struct fixture *f = *state;
	page_ref page[8];

	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(pool_take(&f->pool, 1, whole(UNIT - 64), 1, &page[i]), 0);
		assert_int_equal(pool_node_of(page[i]), i < 4);
	}
	assert_int_equal(pool_take(&f->pool, 1, whole(UNIT - 64), 1, &page[0]), -ENOSPC);
	for (unsigned i = 0; i < 8; i++)
		pool_put(&f->pool, page[i]);
}

static bool only(const void *at, size_t n, uint8_t byte)
{
	const uint8_t *b = at;

	for (size_t i = 0; i < n; i++)
		if (b[i] != byte)
			return false;
	return true;
}

/* The same size again: whoever had the page before decides. */
static void zeroed_for_others(void **state)
{
	static const size_t sizes[] = { 5000, 400000, 3 * MIB };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		/* Keeps the slab of the class alive. */
		page_ref other = take(&f->pool, sizes[i], 7), page = take(&f->pool, sizes[i], 7),
			 again;

		memset(pool_data(&f->pool, page), 0xaa, sizes[i]);
		pool_put(&f->pool, page);
		again = take(&f->pool, sizes[i], 7);
		assert_int_equal(again, page);
		assert_true(only(pool_data(&f->pool, again), sizes[i], 0xaa));
		pool_put(&f->pool, again);
		again = take(&f->pool, sizes[i], 8);
		assert_int_equal(again, page);
		assert_true(only(pool_data(&f->pool, again), sizes[i], 0));
		pool_put(&f->pool, again);
		pool_put(&f->pool, other);
	}
}

/* Another size: page boundaries move, and what lies in a page is of several owners. */
static void zeroed_across_classes(void **state)
{
	static const uint32_t uids[] = { 7, 8, 0, UINT32_MAX - 1 };
	struct fixture *f = *state;
	page_ref page[4096];

	for (unsigned round = 0; round < 12; round++) {
		size_t bytes = 30000 + 41000 * (size_t)round, n = 0;
		page_ref passing;

		while (n < ARRAY_SIZE(page) &&
		       pool_take(&f->pool, 0, whole(bytes), uids[round % 4], &page[n]) == 0) {
			uint8_t *data = pool_data(&f->pool, page[n++]);

			/* 0, or what this very uid left. */
			for (size_t i = 0; i < bytes; i += 61)
				assert_true(data[i] == 0 || data[i] == 0x40 + round % 4);
			memset(data, 0x40 + (int)(round % 4), bytes);
			/* Most slabs are this uid's alone; some are mixed. */
			if (n % 50 == 25 &&
			    pool_take(&f->pool, 0, whole(bytes), 99, &passing) == 0) {
				memset(pool_data(&f->pool, passing), 0x99, bytes);
				pool_put(&f->pool, passing);
			}
		}
		assert_true(n > 20);
		while (n)
			pool_put(&f->pool, page[--n]);
	}
	assert_int_equal(f->pool.used_bytes, 0);
}

/* A unit that two uids shared, cut anew: no part of it is either's own. */
static void zeroed_where_mixed(void **state)
{
	static const uint32_t order[][2] = { { 7, 8 }, { 8, 7 } };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		page_ref a = take(&f->pool, 5000, order[i][0]),
			 b = take(&f->pool, 5000, order[i][1]);
		page_ref whole;

		memset(pool_data(&f->pool, a), 0xaa, 5000);
		memset(pool_data(&f->pool, b), 0xbb, 5000);
		pool_put(&f->pool, a);
		pool_put(&f->pool, b);
		whole = take(&f->pool, 300000, 8);
		assert_ptr_equal(pool_data(&f->pool, whole), f->arena[0].base);
		assert_true(only(pool_data(&f->pool, whole), 300000, 0));
		pool_put(&f->pool, whole);
	}
}

/* ---- threads ----------------------------------------------------------------- */

#define HELD 24
#define ROUNDS 8000

struct worker {
	struct pool *pool;
	uint32_t seed, uid;
	uint64_t taken, refused;
};

static uint32_t next(struct worker *w)
{
	w->seed = w->seed * 1664525u + 1013904223u;
	return w->seed >> 8;
}

/* Marks the page at both ends and in between; whoever overlaps finds it at put. */
static void mark(void *data, size_t bytes, uint64_t value)
{
	uint64_t *word = data;

	for (size_t i = 0; i < bytes / 8; i += 509)
		word[i] = value + i;
	word[bytes / 8 - 1] = ~value;
}

static bool marked(const void *data, size_t bytes, uint64_t value)
{
	const uint64_t *word = data;

	for (size_t i = 0; i + 1 < bytes / 8; i += 509)
		if (word[i] != value + i)
			return false;
	return word[bytes / 8 - 1] == ~value;
}

static void *stress(void *arg)
{
	static const size_t sizes[] = { 4160, 9000, 40000, 262144, 700000, 3 * MIB, 5 * MIB };
	struct worker *w = arg;
	struct {
		page_ref page;
		size_t bytes;
		uint64_t value;
	} held[HELD] = { 0 };

	for (unsigned round = 0; round < ROUNDS + HELD; round++) {
		unsigned i = round < ROUNDS ? next(w) % HELD : round - ROUNDS;

		if (held[i].page) {
			if (!marked(pool_data(w->pool, held[i].page), held[i].bytes, held[i].value))
				return w; /* overlap */
			pool_put(w->pool, held[i].page);
			held[i].page = 0;
		} else if (round < ROUNDS) {
			held[i].bytes =
				(sizes[next(w) % ARRAY_SIZE(sizes)] + next(w) % 3 * 128) / 8 * 8;
			if (pool_take(w->pool, next(w) % w->pool->n_nodes, whole(held[i].bytes),
				      w->uid, &held[i].page) < 0) {
				w->refused++;
				continue;
			}
			w->taken++;
			held[i].value = (uint64_t)w->uid << 48 | (uint64_t)round << 20;
			mark(pool_data(w->pool, held[i].page), held[i].bytes, held[i].value);
		}
	}
	return NULL;
}

static void no_overlap(void **state)
{
	struct fixture *f = *state;
	struct worker w[4] = { 0 };
	pthread_t t[4];
	page_ref page;
	void *what;
	uint64_t taken = 0, refused = 0;

	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ .pool = &f->pool, .seed = i + 1, .uid = 1000 + i };
		assert_int_equal(pthread_create(&t[i], NULL, stress, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &what);
		assert_null(what);
		taken += w[i].taken;
		refused += w[i].refused;
	}
	/* Of all: one that runs while the others sleep on a full pool is refused most of the time.
	 */
	assert_true(taken > ROUNDS / 4);
	assert_true(refused > 0); /* else the pool was too large to be contended */
	assert_int_equal(f->pool.used_bytes, 0);
	/* And all of it is one free run again. */
	assert_int_equal(pool_take(&f->pool, 0, whole(f->arena[0].bytes - 4096), 1, &page), 0);
	pool_put(&f->pool, page);
}

/* A page is free for each of four threads at any time: none may be refused because of how the
 * others move. */
static void *one_each(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < 20000; i++) {
		page_ref page;

		if (pool_take(w->pool, 0, whole(700000), w->uid, &page) < 0)
			return w;
		pool_put(w->pool, page);
	}
	return NULL;
}

static void never_refused(void **state)
{
	struct fixture *f = *state;
	struct worker w = { .pool = &f->pool, .uid = 5 };
	pthread_t t[4];
	void *what;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, one_each, &w), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &what);
		assert_null(what);
	}
	assert_int_equal(f->pool.used_bytes, 0);
}

/* ---- after a restart ------------------------------------------------------------- */

#define KEPT 400

struct kept {
	page_ref page[KEPT];
	size_t bytes[KEPT];
	unsigned n;
	uint64_t notes[32];
};

/* A pool that kept notes, with pages of many sizes out and some put back: left as it is. */
static void leave(struct fixture *f, struct kept *k, unsigned seed)
{
	static const size_t sizes[] = { 4096, 4096, 5000, 70000, 70000, MIB, 5 * MIB };

	pool_deinit(&f->pool);
	assert_int_equal(pool_init(&f->pool, f->arena, 1, k->notes, false), 0);
	for (unsigned i = 0; i < KEPT; i++) {
		size_t bytes = sizes[rand_r(&seed) % ARRAY_SIZE(sizes)];

		if (rand_r(&seed) % 3 == 0 && k->n > 0)
			pool_put(&f->pool, k->page[--k->n]);
		else if (pool_take(&f->pool, 0, whole(bytes), 7, &k->page[k->n]) == 0)
			k->bytes[k->n++] = bytes;
	}
	assert_true(k->n > 10);
}

/* Pages that are found again are as good as those that were taken: none of them is handed out,
 * all memory comes back, and what was free is nobody's to read. */
static void found_again(void **state)
{
	struct fixture *f = *state;

	for (unsigned seed = 1; seed < 30; seed++) {
		struct kept k = { .n = 0 };
		uint64_t used;
		page_ref page;

		leave(f, &k, seed);
		used = f->pool.used_bytes;
		pool_deinit(&f->pool);
		assert_int_equal(pool_init(&f->pool, f->arena, 1, k.notes, true), 0);
		for (unsigned i = 0; i < k.n; i++) {
			memset(pool_data(&f->pool, k.page[i]), (int)i + 1, k.bytes[i]);
			assert_int_equal(pool_mark(&f->pool, k.page[i], whole(k.bytes[i]), 7), 0);
			assert_int_equal(pool_mark(&f->pool, k.page[i], whole(k.bytes[i]), 7),
					 -EEXIST);
		}
		assert_int_equal(f->pool.used_bytes, used);
		while (pool_take(&f->pool, 0, whole(4096), 8, &page) == 0) {
			const uint8_t *bytes = pool_data(&f->pool, page);

			for (unsigned i = 0; i < 4096; i++)
				assert_int_equal(bytes[i], 0);
			memset(pool_data(&f->pool, page), 0xff, 4096);
		}
		for (unsigned i = 0; i < k.n; i++) {
			const uint8_t *bytes = pool_data(&f->pool, k.page[i]);

			assert_int_equal(bytes[0], (uint8_t)(i + 1));
			assert_int_equal(bytes[k.bytes[i] - 1], (uint8_t)(i + 1));
			pool_put(&f->pool, k.page[i]);
		}
	}
}

/* What a damaged catalogue may say: none of it is believed, and nothing breaks. */
static void not_found(void **state)
{
	struct fixture *f = *state;
	struct kept k = { .n = 0 };
	unsigned seed = 5;

	leave(f, &k, 3);
	pool_deinit(&f->pool);
	assert_int_equal(pool_init(&f->pool, f->arena, 1, k.notes, true), 0);
	assert_int_equal(pool_mark(&f->pool, 0, whole(4096), 7), -EUCLEAN);
	assert_int_equal(pool_mark(&f->pool, 1ull << 56 | 1, whole(4096), 7), -EUCLEAN);
	assert_int_equal(pool_mark(&f->pool, k.page[0] + 64, whole(k.bytes[0]), 7), -EUCLEAN);
	assert_int_equal(pool_mark(&f->pool, k.page[0], whole(k.bytes[0] + 4096), 7), -EUCLEAN);
	assert_int_equal(pool_mark(&f->pool, 16 * UNIT + 1, whole(k.bytes[0]), 7), -EUCLEAN);
	assert_int_equal(pool_mark(&f->pool, k.page[0], whole(SIZE_MAX), 7), -EUCLEAN);
	assert_int_equal(f->pool.used_bytes, 0);
	/* Notes of anything: marks end, and what they took can be put back. */
	for (unsigned round = 0; round < 200000; round++) {
		unsigned i = (unsigned)rand_r(&seed) % k.n;
		page_ref page = k.page[i] ^ 1ull << rand_r(&seed) % 30;

		k.notes[rand_r(&seed) % 16] ^= 1ull << rand_r(&seed) % 64;
		if (pool_mark(&f->pool, page, whole(k.bytes[i]), 7) == 0)
			pool_put(&f->pool, page);
	}
	assert_int_equal(f->pool.used_bytes, 0);
}

/* ---- holders ---------------------------------------------------------------- */

/* It is out, once, until the last of its holders puts it. */
static void shared(void **state)
{
	struct fixture *f = *state;
	page_ref page = take(&f->pool, 70000, 1), other;
	uint64_t used = f->pool.used_bytes;

	assert_false(pool_is_shared(&f->pool, page));
	pool_ref(&f->pool, page);
	pool_ref(&f->pool, page);
	assert_true(pool_is_shared(&f->pool, page));
	assert_int_equal(f->pool.used_bytes, used);
	pool_put(&f->pool, page);
	assert_true(pool_is_shared(&f->pool, page));
	pool_put(&f->pool, page);
	assert_false(pool_is_shared(&f->pool, page));
	other = take(&f->pool, 70000, 1);
	assert_true(other != page);
	pool_put(&f->pool, other);
	assert_int_equal(f->pool.used_bytes, used);
	pool_put(&f->pool, page);
	assert_int_equal(f->pool.used_bytes, 0);
	/* Its next owner is alone, whoever there was before. */
	page = take(&f->pool, 70000, 1);
	assert_false(pool_is_shared(&f->pool, page));
	pool_put(&f->pool, page);
}

/* What a fork's two sides do with a page: read it, or write it when alone. */
static void *hold_one(void *arg)
{
	struct worker *w = arg;
	page_ref page = (page_ref)w->uid;
	uint64_t *data = pool_data(w->pool, page), sum = 0;

	for (unsigned i = 0; i < 64; i++)
		sum += data[i];
	if (!pool_is_shared(w->pool, page))
		for (unsigned i = 0; i < 64; i++)
			data[i] = 0;
	pool_put(w->pool, page);
	return sum == 64 || sum == 0 ? NULL : w;
}

/* The last holder's writes come after all reads of the others. */
static void last_one_writes(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 300; round++) {
		page_ref page = take(&f->pool, 4096, 1);
		struct worker w = { .pool = &f->pool, .uid = (uint32_t)page };
		pthread_t t[3];
		void *what;

		assert_true((page_ref)w.uid == page);
		for (unsigned i = 0; i < 64; i++)
			((uint64_t *)pool_data(&f->pool, page))[i] = 1;
		pool_ref(&f->pool, page);
		pool_ref(&f->pool, page);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(pthread_create(&t[i], NULL, hold_one, &w), 0);
		for (unsigned i = 0; i < 3; i++) {
			pthread_join(t[i], &what);
			assert_null(what);
		}
		assert_int_equal(f->pool.used_bytes, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(strides, setup, teardown),
		cmocka_unit_test_setup_teardown(all_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(too_large, setup, teardown),
		cmocka_unit_test_setup_teardown(other_node, setup_two, teardown),
		cmocka_unit_test_setup_teardown(zeroed_for_others, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroed_across_classes, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroed_where_mixed, setup, teardown),
		cmocka_unit_test_setup_teardown(no_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(no_overlap, setup_two, teardown),
		cmocka_unit_test_setup_teardown(never_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(not_found, setup, teardown),
		cmocka_unit_test_setup_teardown(shared, setup, teardown),
		cmocka_unit_test_setup_teardown(last_one_writes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
