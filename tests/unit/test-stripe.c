/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages in parts, one on every node. Kernels find all parts by one distance, users must not find
 * each other's bytes in any of them, recovery has one name for all.
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
#define NODES 3u
#define UNITS 16u

struct fixture {
	struct arena arena[NODES];
	struct pool pool;
	uint64_t notes[NODES * 2 * UNITS];
};

static void map(struct arena *a, size_t units)
{
	*a = ARENA_NULL;
	a->bytes = units * UNIT;
	a->base = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(a->base, MAP_FAILED);
}

static int setup_of(void **state, const size_t units[NODES])
{
	struct fixture *f = calloc(1, sizeof(*f));

	for (unsigned i = 0; i < NODES; i++)
		map(&f->arena[i], units[i]);
	assert_int_equal(pool_init(&f->pool, f->arena, NODES, f->notes, false), 0);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_of(state, (const size_t[]){ UNITS, UNITS, UNITS });
}

static int setup_unequal(void **state)
{
	return setup_of(state, (const size_t[]){ UNITS, UNITS / 4, 2 * UNITS });
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->pool.used_bytes, 0);
	for (unsigned i = 0; i < NODES; i++)
		assert_int_equal(pool_node_used_bytes(&f->pool, i), 0);
	pool_deinit(&f->pool);
	for (unsigned i = 0; i < NODES; i++)
		munmap(f->arena[i].base, f->arena[i].bytes);
	free(f);
	return 0;
}

static struct page_size striped(size_t part)
{
	return (struct page_size){ .whole = part * NODES, .part = part };
}

static struct page_size whole(size_t bytes)
{
	return (struct page_size){ .whole = bytes };
}

static uint8_t *part(const struct fixture *f, page_ref page, unsigned node)
{
	uint8_t *data = pool_data(&f->pool, page);

	return pool_is_striped(page) ? data + pool_shift(&f->pool, node) : data;
}

/* Nothing takes more than this. */
#define MOST 4096u
static page_ref page[MOST];

static unsigned take_all(struct fixture *f, struct page_size size, unsigned node, unsigned from)
{
	unsigned n = from;

	while (n < MOST && pool_take(&f->pool, node, size, 1, &page[n]) == 0)
		n++;
	assert_true(n < MOST);
	return n;
}

static void put_all(struct fixture *f, unsigned n)
{
	while (n)
		pool_put(&f->pool, page[--n]);
}

/* ---- where --------------------------------------------------------------------------- */

static void a_part_on_each(void **state)
{
	struct fixture *f = *state;
	page_ref p;

	assert_int_equal(pool_take(&f->pool, 1, striped(70000), 1, &p), 0);
	assert_true(pool_is_striped(p));
	for (unsigned i = 0; i < NODES; i++) {
		const uint8_t *base = f->arena[i].base, *at = part(f, p, i);

		assert_true(at >= base && at + 70000 <= base + f->arena[i].bytes);
		assert_int_equal(at - base, part(f, p, 0) - (uint8_t *)f->arena[0].base);
		assert_int_equal(pool_node_used_bytes(&f->pool, i), f->pool.used_bytes / NODES);
	}
	assert_true(f->pool.used_bytes <= pool_charge(&f->pool, striped(70000)));
	pool_put(&f->pool, p);
}

/* The charge is one for each size, wherever the page lies: it is refunded without looking. */
static void charge_covers_both(void **state)
{
	struct fixture *f = *state;

	for (size_t bytes = 64; bytes < UNIT; bytes += bytes / 3 + 64) {
		uint64_t charge = pool_charge(&f->pool, striped(bytes));
		page_ref p;

		assert_int_equal(pool_take(&f->pool, 0, striped(bytes), 1, &p), 0);
		assert_true(f->pool.used_bytes <= charge);
		pool_put(&f->pool, p);
		assert_int_equal(pool_take(&f->pool, 0, whole(bytes * NODES), 1, &p), 0);
		assert_true(f->pool.used_bytes <= charge);
		assert_true(charge <= bytes * NODES + NODES * 4224);
		pool_put(&f->pool, p);
	}
}

/* Stripes at one end, whole pages at the other: what is free of one kind suits the other. */
static void from_both_ends(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	for (unsigned i = 0; i < UNITS / 2; i++) {
		assert_int_equal(pool_take(&f->pool, 0, striped(UNIT - 64), 1, &page[n++]), 0);
		for (unsigned node = 0; node < NODES; node++)
			assert_int_equal(pool_take(&f->pool, node, whole(UNIT - 64), 1, &page[n++]),
					 0);
	}
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pool_is_striped(page[i]), i % (NODES + 1) == 0);
	assert_int_equal(f->pool.unstriped, 0);
	for (unsigned i = 0; i < NODES; i++)
		assert_int_equal(pool_node_strayed(&f->pool, i), 0);
	put_all(f, n);
}

/* A full node: the page is there all the same, whole, and said to be. */
static void one_node_full(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;
	page_ref p;

	for (unsigned i = 0; i < UNITS; i++)
		assert_int_equal(pool_take(&f->pool, 1, whole(UNIT - 64), 1, &page[n++]), 0);
	assert_int_equal(f->pool.unstriped, 0);
	assert_int_equal(pool_take(&f->pool, 1, striped(70000), 1, &p), 0);
	assert_false(pool_is_striped(p));
	assert_int_not_equal(pool_node_of(p), 1);
	assert_int_equal(f->pool.unstriped, 1);
	assert_int_equal(pool_node_strayed(&f->pool, 1), 1);
	pool_put(&f->pool, p);
	pool_put(&f->pool, page[--n]);
	assert_int_equal(pool_take(&f->pool, 1, striped(70000), 1, &p), 0);
	assert_true(pool_is_striped(p));
	assert_int_equal(f->pool.unstriped, 1);
	pool_put(&f->pool, p);
	put_all(f, n);
}

/* To the last unit, by both kinds; and then all of it is free for either. */
static void all_comes_back(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 3; round++) {
		unsigned n = take_all(f, striped(UNIT - 64), 0, 0), stripes = 0;

		for (unsigned i = 0; i < n; i++)
			stripes += pool_is_striped(page[i]);
		assert_int_equal(stripes, f->pool.stripe_units);
		n = take_all(f, whole(UNIT - 64), 0, n);
		assert_true(f->pool.used_bytes > f->pool.bytes / 10 * 9);
		put_all(f, n);
		assert_int_equal(f->pool.used_bytes, 0);
		n = take_all(f, whole(UNIT - 64), 2, 0);
		assert_int_equal(n, f->pool.bytes / UNIT);
		put_all(f, n);
	}
}

/* The smallest arena decides how far stripes reach; the others have the rest for whole pages. */
static void unequal(void **state)
{
	struct fixture *f = *state;
	unsigned n = take_all(f, striped(UNIT - 64), 0, 0), stripes = 0;

	assert_int_equal(f->pool.stripe_units, UNITS / 4);
	for (unsigned i = 0; i < n; i++)
		stripes += pool_is_striped(page[i]);
	assert_int_equal(stripes, UNITS / 4);
	put_all(f, n);
	/* Whole pages begin where there are no stripes. */
	for (n = 0; n < UNITS / 4 * 3; n++)
		assert_int_equal(pool_take(&f->pool, 0, whole(UNIT - 64), 1, &page[n]), 0);
	for (; n < UNITS; n++) {
		assert_int_equal(pool_take(&f->pool, 0, striped(UNIT - 64), 1, &page[n]), 0);
		assert_true(pool_is_striped(page[n]));
	}
	put_all(f, n);
	assert_true(pool_could_take(&f->pool, whole(2 * UNITS * UNIT - 4096)));
	assert_true(pool_could_take(&f->pool, striped(UNITS / 4 * UNIT - 4096)));
	assert_false(pool_could_take(&f->pool, whole(2 * UNITS * UNIT + 1)));
	assert_false(pool_could_take(&f->pool, striped(UNITS * UNIT)));
}

/* New sequences go round, and pass over a node that has less room than the others. */
static void chosen(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	for (unsigned turn = 0; turn < 2 * NODES; turn++)
		assert_int_equal(pool_node_choose(&f->pool, turn), turn % NODES);
	for (unsigned i = 0; i < UNITS / 2; i++)
		assert_int_equal(pool_take(&f->pool, 1, whole(UNIT - 64), 1, &page[n++]), 0);
	for (unsigned turn = 0; turn < 2 * NODES; turn++)
		assert_int_not_equal(pool_node_choose(&f->pool, turn), 1);
	put_all(f, n);
}

/* ---- whose --------------------------------------------------------------------------- */

static bool only(const uint8_t *b, size_t n, uint8_t byte)
{
	for (size_t i = 0; i < n; i++)
		if (b[i] != byte)
			return false;
	return true;
}

/* Another user finds zeroes in every part; the same one what he left. Whole pages and stripes
 * inherit from each other. */
static void zeroed_for_others(void **state)
{
	struct fixture *f = *state;
	const size_t n = UNIT - 64;
	page_ref p, again;

	assert_int_equal(pool_take(&f->pool, 0, striped(n), 1, &p), 0);
	for (unsigned i = 0; i < NODES; i++)
		memset(part(f, p, i), 0x55, n);
	pool_put(&f->pool, p);
	assert_int_equal(pool_take(&f->pool, 0, striped(n), 1, &again), 0);
	assert_true(again == p);
	for (unsigned i = 0; i < NODES; i++)
		assert_true(only(part(f, again, i), n, 0x55));
	pool_put(&f->pool, again);
	assert_int_equal(pool_take(&f->pool, 0, striped(n), 2, &again), 0);
	assert_true(again == p);
	for (unsigned i = 0; i < NODES; i++)
		assert_true(only(part(f, again, i), n, 0));
	pool_put(&f->pool, again);
}

static void zeroed_between_kinds(void **state)
{
	struct fixture *f = *state;
	const size_t n = UNIT - 64;

	for (unsigned from = 0; from < NODES; from++) {
		unsigned taken = 0;
		page_ref p;

		/* All of one node was somebody's. */
		for (; taken < UNITS; taken++) {
			assert_int_equal(pool_take(&f->pool, from, whole(n), 1, &page[taken]), 0);
			assert_int_equal(pool_node_of(page[taken]), from);
			memset(part(f, page[taken], 0), 0x77, n);
		}
		put_all(f, taken);
		assert_int_equal(pool_take(&f->pool, 0, striped(n), 2, &p), 0);
		assert_true(pool_is_striped(p));
		for (unsigned i = 0; i < NODES; i++)
			assert_true(only(part(f, p, i), n, 0));
		for (unsigned i = 0; i < NODES; i++)
			memset(part(f, p, i), 0x66, n);
		pool_put(&f->pool, p);
		for (taken = 0; taken < UNITS; taken++) {
			assert_int_equal(pool_take(&f->pool, from, whole(n), 3, &page[taken]), 0);
			assert_true(only(part(f, page[taken], 0), n, 0));
		}
		put_all(f, taken);
	}
}

/* ---- at once -------------------------------------------------------------------------- */

#define HELD 24u
#define ROUNDS 20000u

struct worker {
	struct fixture *f;
	uint32_t uid;
	unsigned seed, stripes, wholes;
};

struct held {
	page_ref page;
	size_t bytes; /* of a part, or of all */
};

static bool is_mine(const struct worker *w, const struct held *h)
{
	for (unsigned i = 0; i < (pool_is_striped(h->page) ? NODES : 1); i++) {
		const uint8_t *at = part(w->f, h->page, i);

		if (at[0] != (uint8_t)w->uid || at[h->bytes - 1] != (uint8_t)w->uid)
			return false;
	}
	return true;
}

static bool take_one(struct worker *w, struct held *h)
{
	static const size_t sizes[] = { 4096, 9000, 70000, MIB, UNIT - 64, 3 * MIB };
	size_t n = sizes[rand_r(&w->seed) % ARRAY_SIZE(sizes)];
	struct page_size size = rand_r(&w->seed) % 2 ? striped(n) : whole(n);
	unsigned node = (unsigned)rand_r(&w->seed) % NODES;

	if (pool_take(&w->f->pool, node, size, w->uid, &h->page) < 0)
		return true;
	h->bytes = n;
	w->stripes += pool_is_striped(h->page);
	w->wholes += !pool_is_striped(h->page);
	for (unsigned i = 0; i < (pool_is_striped(h->page) ? NODES : 1); i++) {
		uint8_t *at = part(w->f, h->page, i);

		if ((at[0] && at[0] != (uint8_t)w->uid) ||
		    (at[n - 1] && at[n - 1] != (uint8_t)w->uid))
			return false; /* somebody else's */
		at[0] = at[n - 1] = (uint8_t)w->uid;
	}
	return true;
}

/* NULL: every page was its own, and held nobody else's bytes. */
static void *stress(void *arg)
{
	struct worker *w = arg;
	struct held held[HELD] = { 0 };

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct held *h = &held[(unsigned)rand_r(&w->seed) % HELD];

		if (!h->page) {
			if (!take_one(w, h))
				return w;
			continue;
		}
		if (!is_mine(w, h))
			return w;
		pool_put(&w->f->pool, h->page);
		h->page = 0;
	}
	for (unsigned i = 0; i < HELD; i++)
		if (held[i].page)
			pool_put(&w->f->pool, held[i].page);
	return NULL;
}

/* Workers of several users on all nodes: no page overlaps, nothing is lost on the way. */
static void no_overlap(void **state)
{
	struct fixture *f = *state;
	struct worker w[4];
	pthread_t t[4];
	page_ref p;
	void *what;

	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ .f = f, .seed = i + 1, .uid = 11 + i };
		assert_int_equal(pthread_create(&t[i], NULL, stress, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &what);
		assert_null(what);
		assert_true(w[i].stripes > 100 && w[i].wholes > 100);
	}
	assert_int_equal(f->pool.used_bytes, 0);
	assert_int_equal(pool_take(&f->pool, 0, striped(f->pool.stripe_units * UNIT - 4096), 1, &p),
			 0);
	assert_true(pool_is_striped(p));
	pool_put(&f->pool, p);
}

/* ---- after a restart ---------------------------------------------------------------------- */

#define KEPT 300u
struct kept {
	page_ref page[KEPT];
	struct page_size size[KEPT];
	unsigned n;
};

static void leave(struct fixture *f, struct kept *k, unsigned seed)
{
	static const size_t sizes[] = { 4096, 5000, 70000, MIB, 5 * MIB };

	k->n = 0;
	for (unsigned i = 0; i < KEPT; i++) {
		size_t n = sizes[rand_r(&seed) % ARRAY_SIZE(sizes)];
		struct page_size size = rand_r(&seed) % 2 ? striped(n) : whole(n);

		if (rand_r(&seed) % 3 == 0 && k->n > 0)
			pool_put(&f->pool, k->page[--k->n]);
		else if (pool_take(&f->pool, i % NODES, size, 7, &k->page[k->n]) == 0)
			k->size[k->n++] = size;
	}
	assert_true(k->n > 10);
}

static void restart(struct fixture *f)
{
	pool_deinit(&f->pool);
	assert_int_equal(pool_init(&f->pool, f->arena, NODES, f->notes, true), 0);
}

static void found_again(void **state)
{
	struct fixture *f = *state;
	struct kept k;

	for (unsigned seed = 1; seed < 20; seed++) {
		uint64_t used[NODES];
		unsigned n;

		leave(f, &k, seed);
		for (unsigned i = 0; i < NODES; i++)
			used[i] = pool_node_used_bytes(&f->pool, i);
		restart(f);
		for (unsigned i = 0; i < k.n; i++) {
			assert_int_equal(pool_mark(&f->pool, k.page[i], k.size[i], 7), 0);
			assert_int_equal(pool_mark(&f->pool, k.page[i], k.size[i], 7), -EEXIST);
			for (unsigned j = 0; j < NODES; j++)
				memset(part(f, k.page[i], j), (int)i + 1, 64);
		}
		for (unsigned i = 0; i < NODES; i++)
			assert_int_equal(pool_node_used_bytes(&f->pool, i), used[i]);
		n = take_all(f, striped(100000), 0, 0);
		for (unsigned i = 0; i < n; i++)
			for (unsigned j = 0; j < NODES; j++)
				memset(part(f, page[i], j), 0xee, 100000);
		put_all(f, n);
		for (unsigned i = 0; i < k.n; i++) {
			for (unsigned j = 0; j < NODES; j++)
				assert_true(only(part(f, k.page[i], j), 64, (uint8_t)(i + 1)));
			pool_put(&f->pool, k.page[i]);
		}
	}
}

/* What a damaged catalogue may say is not believed. */
static void not_found(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 5;
	struct kept k;

	leave(f, &k, 3);
	restart(f);
	for (unsigned i = 0; i < k.n; i++) {
		struct page_size other = { k.size[i].whole, k.size[i].part ? 0 : 4096 };

		if (pool_is_striped(k.page[i])) /* of a cache that has none */
			assert_int_equal(pool_mark(&f->pool, k.page[i], other, 7), -EUCLEAN);
		assert_int_equal(pool_mark(&f->pool, k.page[i] + 64, k.size[i], 7), -EUCLEAN);
		/* A stripe by the name of a whole page, and the other way round. */
		assert_int_equal(pool_mark(&f->pool,
					   (k.page[i] & ((1ull << 56) - 1)) |
						   (pool_is_striped(k.page[i])
							    ? 0
							    : (uint64_t)POOL_STRIPED << 56),
					   striped(k.size[i].part ? k.size[i].part : 4096), 7),
				 -EUCLEAN);
	}
	assert_int_equal(f->pool.used_bytes, 0);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned i = (unsigned)rand_r(&seed) % k.n;
		page_ref p = k.page[i] ^ 1ull << rand_r(&seed) % 30;

		f->notes[rand_r(&seed) % ARRAY_SIZE(f->notes)] ^= 1ull << rand_r(&seed) % 64;
		if (pool_mark(&f->pool, p, k.size[i], 7) == 0)
			pool_put(&f->pool, p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_part_on_each, setup, teardown),
		cmocka_unit_test_setup_teardown(charge_covers_both, setup, teardown),
		cmocka_unit_test_setup_teardown(from_both_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(one_node_full, setup, teardown),
		cmocka_unit_test_setup_teardown(all_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(all_comes_back, setup_unequal, teardown),
		cmocka_unit_test_setup_teardown(unequal, setup_unequal, teardown),
		cmocka_unit_test_setup_teardown(chosen, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroed_for_others, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroed_between_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(no_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(no_overlap, setup_unequal, teardown),
		cmocka_unit_test_setup_teardown(found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(found_again, setup_unequal, teardown),
		cmocka_unit_test_setup_teardown(not_found, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
