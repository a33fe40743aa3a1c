/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches whose newest rows are a device's: both halves together answer as a cache
 * without a device does, as closely as the merge rounds, whatever is asked, and what
 * cannot be cut is computed whole. Whoever has more rows than the device has memory relies on
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shm/base.h"
#include "tests/gpu/step-world.h"

#define BOUND 4e-6
static const char *module;

static void assert_done(struct sparq_cqe cqe, uint32_t n)
{
	assert_int_equal(cqe.aux, 0);
	assert_int_equal(cqe.res, n);
}

static uint64_t sum(const uint64_t bytes[KV_PLANES])
{
	uint64_t n = 0;

	for (unsigned p = 0; p < KV_PLANES; p++)
		n += bytes[p];
	return n;
}

static void open_with(struct world *w, const char *device, const char *policy, const char *options)
{
	const struct world_params p = {
		.module = module, .device = device, .policy = policy, .options = options
	};

	world_open(w, &p);
}

/* Dense: each half reads its own rows once, and together they are all. */
static void test_dense(void **state)
{
	struct world w;
	struct device_stat stat;
	struct sparq_cqe cqe;

	open_with(&w, "cuda:0,host,rows=600", NULL, NULL);
	for (uint32_t s = 0; s < WORLD_SEQUENCES; s++)
		world_grow(&w, s, 200 + 700 * s);
	cqe = world_attend(&w, WORLD_SEQUENCES, 1, 0, BOUND);
	assert_done(cqe, WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.items, WORLD_SEQUENCES);
	for (unsigned i = 0; i < DEVICE_BESIDES; i++)
		assert_int_equal(stat.beside_items[i], 0);
	/* At most a kilobyte a row, of 200 to 600 rows each and what the last extent has besides.
	 */
	assert_true(sum(stat.read_bytes) > 0);
	assert_true(sum(stat.read_bytes) < cqe.bytes_read / 2);
	for (uint16_t n_q = 2; n_q <= 16; n_q += 7)
		assert_done(world_attend(&w, WORLD_SEQUENCES, n_q, 0, BOUND), WORLD_SEQUENCES);
	assert_done(world_attend(&w, WORLD_SEQUENCES, 3, SPARQ_SQE_FULL, BOUND), WORLD_SEQUENCES);
	assert_int_equal(world_stat(&w).items, 5 * WORLD_SEQUENCES);
	world_close(&w);
}

/* A window that ends on either side of the cut. */
static void test_window(void **state)
{
	static const char *const options[] = { "recent=40", "recent=1000", "recent=1 first=300" };

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		struct world w;

		open_with(&w, "cuda:0,host,rows=300", "window", options[i]);
		world_grow(&w, 0, 2500);
		world_grow(&w, 1, 700);
		assert_done(world_attend(&w, 2, 1, 0, BOUND), 2);
		assert_done(world_attend(&w, 2, 5, 0, BOUND), 2);
		assert_int_equal(world_stat(&w).items, 4);
		world_close(&w);
	}
}

/* k of each half: with as many as there are rows it is dense; with fewer, of each. */
static void test_sparq(void **state)
{
	struct world w;
	const struct sparq_report *report;

	open_with(&w, "cuda:0,host,rows=1100", "sparq", "k=4000 r=16 dense_below=0");
	world_grow(&w, 0, 3200);
	assert_done(world_attend(&w, 1, 1, 0, BOUND), 1);
	assert_int_equal(world_report(&w, 0)->n_scored, 3200);
	assert_int_equal(world_report(&w, 0)->n_selected, 3200);
	world_close(&w);

	open_with(&w, "cuda:0,host,rows=1100", "sparq", "k=64 r=16 dense_below=0 tail=select");
	world_grow(&w, 0, 3200);
	assert_done(world_attend(&w, 1, 1, 0, 10), 1);
	report = world_report(&w, 0);
	assert_int_equal(report->n_scored, 3200);
	assert_int_equal(report->n_selected, 2 * 64 + 16); /* and the sinks */
	assert_true(report->alpha_min > 0 && report->alpha_min < 1);
	assert_int_equal(world_stat(&w).items, 1);
	world_close(&w);
}

/* What has no halves is refused when the cache is made, with what is allowed. */
static void test_refused(void **state)
{
	struct sparq_msg_cache_create m = { .layers = 1,
					    .heads = 4,
					    .kv_heads = 4,
					    .k_dim = 64,
					    .v_dim = 64,
					    .k_format = "f16",
					    .policy = "sparq",
					    .device = "cuda:0,host" };
	static const char *const words[] = { "cuda:0,hosts",
					     "cuda:0,rows=5",
					     "cuda:0,host,rows=0",
					     "cuda:0,host,rows=",
					     "cuda:0,host,rows=05",
					     "cuda:16,host",
					     "cuda:0,host,rows=2147483648" };
	char why[SPARQ_ERROR_TEXT];
	struct cache *c;
	struct world w;

	open_with(&w, "cuda:0,host", NULL, NULL);
	assert_int_equal(cache_create(&w.store, w.user, &m, &c, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "mean=off is allowed"));
	strcpy(m.options, "mean=off");
	assert_int_equal(cache_create(&w.store, w.user, &m, &c, why), 0);
	cache_unref(c);
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		strcpy(m.device, words[i]);
		assert_int_equal(cache_create(&w.store, w.user, &m, &c, why), -EINVAL);
		assert_non_null(strstr(why, words[i]));
	}
	world_close(&w);
}

/* By room: as many rows as all caches of the device have room for together. */
static void test_room(void **state)
{
	const struct world_params p = { .module = module,
					.device = "cuda:0,host",
					.device_bytes = 10 * MIB };
	struct world w;
	struct device_stat stat;

	world_open(&w, &p);
	world_grow(&w, 0, 400);
	assert_done(world_attend(&w, 1, 1, 0, 0), 1);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 1); /* all of it is there: bit by bit the same */
	for (uint32_t s = 0; s < 4; s++)
		world_grow(&w, s, 4000);
	for (unsigned i = 0; i < 3; i++)
		assert_done(world_attend(&w, 4, 1, 0, BOUND), 4);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 13);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], 0);
	world_close(&w);
}

/* A half that the device cannot do: all of the step is done here. */
static void test_without(void **state)
{
	struct world w;
	struct device_stat stat;

	open_with(&w, "cuda:0,host,rows=600", NULL, NULL);
	world_grow(&w, 0, 3000);
	assert_done(world_attend(&w, 1, WORLD_MOST_Q, 0, 0), 1);
	stat = world_stat(&w);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_KERNEL], 1);
	world_set(&w, "full=0");
	assert_done(world_attend(&w, 1, 1, 0, 0), 1);
	assert_int_equal(world_stat(&w).beside_items[DEVICE_BESIDE_MEMORY], 1);
	world_set(&w, "lost");
	while (world_stat(&w).state != DEVICE_LOST)
		assert_done(world_attend(&w, 1, 1, 0, 0), 1);
	assert_done(world_attend(&w, 1, 1, 0, 0), 1);
	assert_true(world_stat(&w).beside_items[DEVICE_BESIDE_LOST] > 0);
	assert_int_equal(world_stat(&w).items, 0);
	world_close(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),   cmocka_unit_test(test_window),
		cmocka_unit_test(test_sparq),   cmocka_unit_test(test_room),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_without),
	};

	module = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
