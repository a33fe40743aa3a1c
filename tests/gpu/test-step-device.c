/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device cannot do is done, and said: entries whose sequences do not fit its
 * memory together go by parts, a sequence that does not fit by itself and steps without
 * a kernel go by a processor, as do all once it is lost. Whoever sends steps to a cache relies
 * on the same results, whoever runs the host on being told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "shm/base.h"
#include "tests/gpu/step-world.h"

static const char *module;

/* Six sequences of a megabyte a layer or so. */
static void open_six(struct world *w, uint64_t device_bytes)
{
	const struct world_params p = { .module = module, .device_bytes = device_bytes };

	world_open(w, &p);
	for (uint32_t s = 0; s < WORLD_SEQUENCES; s++)
		world_grow(w, s, 1000 + 300 * s);
}

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

static void test_fits(void **state)
{
	struct world w;
	struct device_stat stat;
	struct sparq_cqe cqe;

	open_six(&w, 0);
	cqe = world_attend(&w, WORLD_SEQUENCES, 1, 0, 0);
	assert_done(cqe, WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.batches, 1);
	assert_int_equal(stat.items, WORLD_SEQUENCES);
	assert_int_equal(stat.evicted_bytes, 0);
	assert_int_equal(sum(stat.read_bytes), cqe.bytes_read);
	assert_int_equal(sum(stat.beside_bytes), 0);
	world_close(&w);
}

/* Each alone fits: all are the device's, in several batches, and again when they were in it once.
 */
static void test_parts(void **state)
{
	struct world w;
	struct device_stat stat;

	open_six(&w, 14 * MIB);
	for (unsigned i = 0; i < 5; i++)
		assert_done(world_attend(&w, WORLD_SEQUENCES, 1, 0, 0), WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 5 * WORLD_SEQUENCES);
	assert_true(stat.batches > 5);
	assert_true(stat.evicted_bytes > 0);
	assert_true(stat.mapped_bytes <= 14 * MIB);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], 0);
	world_close(&w);
}

/* One granule holds none of them: nothing is taken from others in vain. */
static void test_too_large(void **state)
{
	struct world w;
	struct device_stat stat;
	struct sparq_cqe cqe;

	open_six(&w, 2 * MIB);
	cqe = world_attend(&w, WORLD_SEQUENCES, 2, 0, 0);
	assert_done(cqe, WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 0);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], WORLD_SEQUENCES);
	assert_int_equal(sum(stat.beside_bytes), cqe.bytes_read);
	world_close(&w);
}

/* Some fit, some do not, in one entry: each goes its way. */
static void test_mixed(void **state)
{
	const struct world_params p = { .module = module, .device_bytes = 10 * MIB };
	struct world w;
	struct device_stat stat;

	world_open(&w, &p);
	world_grow(&w, 0, 500);
	world_grow(&w, 1, 12000);
	world_grow(&w, 2, 500);
	assert_done(world_attend(&w, 3, 1, 0, 0), 3);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 2);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], 1);
	world_close(&w);
}

/* The driver has less than was promised, later more: it is asked again. */
static void test_others_memory(void **state)
{
	struct world w;
	struct device_stat stat;

	open_six(&w, 0);
	world_set(&w, "full=0");
	assert_done(world_attend(&w, WORLD_SEQUENCES, 1, 0, 0), WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], WORLD_SEQUENCES);
	world_set(&w, "full=6");
	while (world_stat(&w).items == 0)
		assert_done(world_attend(&w, WORLD_SEQUENCES, 1, 0, 0), WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_true(stat.mapped_bytes <= 12 * MIB);
	world_close(&w);
}

/* It says no when half of an item is on its way there: that memory is the next item's, and nothing
 * is written to it in its place. */
static void test_midway(void **state)
{
	const struct world_params p = { .module = module };
	struct world w;
	struct device_stat stat;

	world_open(&w, &p);
	world_grow(&w, 1, 200);
	world_grow(&w, 0, 12000);
	world_grow(&w, 1, 300);
	world_set(&w, "full=4");
	assert_done(world_attend(&w, 2, 1, 0, 0), 2);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 1);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_MEMORY], 1);
	assert_true(stat.evicted_bytes > 0);
	world_close(&w);
}

/* Drafts and prompts: by a processor where there is no kernel, counted with what they read. */
static void test_no_kernel(void **state)
{
	const struct world_params p = { .module = module, .format = "hier4" };
	struct world w;
	struct device_stat stat;
	struct sparq_cqe cqe;

	world_open(&w, &p);
	world_grow(&w, 0, 3000);
	cqe = world_attend(&w, 1, WORLD_MOST_Q, 0, 0);
	assert_done(cqe, 1);
	stat = world_stat(&w);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_KERNEL], 1);
	assert_int_equal(sum(stat.beside_bytes), cqe.bytes_read);
	assert_int_equal(stat.items, 0);
	world_set(&w, "queries=64");
	assert_done(world_attend(&w, 1, WORLD_MOST_Q, 0, 0), 1);
	stat = world_stat(&w);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_KERNEL], 1);
	assert_int_equal(stat.items, 1);
	world_close(&w);
}

/* Drafts read the upper planes alone, there as here. */
static void test_draft(void **state)
{
	const struct world_params p = { .module = module, .format = "hier4" };
	struct world w;
	struct device_stat stat;

	world_open(&w, &p);
	world_grow(&w, 0, 3000);
	assert_done(world_attend(&w, 1, 1, SPARQ_SQE_DRAFT, 0), 1);
	stat = world_stat(&w);
	assert_int_equal(stat.items, 1);
	assert_true(stat.read_bytes[KV_PLANE_V_UPPER] > 0);
	assert_int_equal(stat.read_bytes[KV_PLANE_V_LOWER], 0);
	world_close(&w);
}

/* It falls off the bus: whatever is asked then, and whenever, is answered all the same. */
static void test_lost(void **state)
{
	struct world w;
	struct device_stat stat;

	open_six(&w, 0);
	assert_done(world_attend(&w, WORLD_SEQUENCES, 1, 0, 0), WORLD_SEQUENCES);
	world_set(&w, "lost");
	assert_done(world_attend(&w, WORLD_SEQUENCES, 1, 0, 0), WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.state, DEVICE_LOST);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_LOST], WORLD_SEQUENCES);
	world_grow(&w, 0, 700);
	assert_done(world_attend(&w, WORLD_SEQUENCES, 2, 0, 0), WORLD_SEQUENCES);
	stat = world_stat(&w);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_LOST], 2 * WORLD_SEQUENCES);
	world_close(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fits),      cmocka_unit_test(test_parts),
		cmocka_unit_test(test_too_large), cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_no_kernel), cmocka_unit_test(test_others_memory),
		cmocka_unit_test(test_lost),      cmocka_unit_test(test_draft),
		cmocka_unit_test(test_midway),
	};

	module = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
