/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that fails at any call, and pages that move to other nodes while it has
 * copies of them: the answers are those of a cache without a device, whatever
 * happens when. Users of a device rely on it on the day it falls off the bus.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/move.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "tests/gpu/step-world.h"

static const char *module;

static void assert_done(struct sparq_cqe cqe, uint32_t n)
{
	assert_int_equal(cqe.aux, 0);
	assert_int_equal(cqe.res, n);
}

/* ---- at the Nth call ------------------------------------------------------------------- */

/* Rows, steps, more rows, steps of several: some forty calls of the back end. What it does after
 * is in `ret`. */
static void live_through(const char *device, const char *knobs, double bound,
			 struct device_stat *ret)
{
	const struct world_params p = {
		.module = module, .device = device, .device_bytes = 8 * MIB, .pool_bytes = 24 * MIB
	};
	struct world w;

	world_open(&w, &p);
	world_set(&w, knobs);
	for (uint32_t s = 0; s < 3; s++)
		world_grow(&w, s, 900);
	for (unsigned i = 0; i < 3; i++) {
		assert_done(world_attend(&w, 3, 1, 0, bound), 3);
		assert_done(world_attend(&w, 1, 4, 0, bound), 1);
		world_grow(&w, i, 200);
	}
	*ret = world_stat(&w);
	world_close(&w);
}

static uint64_t beside(const struct device_stat *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < DEVICE_BESIDES; i++)
		n += s->beside_items[i];
	return n;
}

/* From each call on, until it is not lost before the end. */
static void lose_at_each(const char *device, double bound)
{
	struct device_stat stat = { .state = DEVICE_LOST };
	unsigned n;

	for (n = 1; stat.state == DEVICE_LOST; n++) {
		char knobs[32];

		snprintf(knobs, sizeof(knobs), "lost_at=%u", n);
		live_through(device, knobs, bound, &stat);
		/* Each step was the device's or a processor's, once. */
		assert_int_equal(stat.items + beside(&stat), 12);
		assert_true(stat.state == DEVICE_LOST || !stat.beside_items[DEVICE_BESIDE_LOST]);
	}
	assert_true(n > 20);
}

static void test_lost_at(void **state)
{
	lose_at_each("cuda:0", 0);
}

static void test_lost_at_halves(void **state)
{
	lose_at_each("cuda:0,host,rows=300", 4e-6);
}

/* Memory that another program had for a moment: others' copies make room, or a processor helps. */
static void test_oom_at(void **state)
{
	struct device_stat stat;

	for (unsigned n = 1; n < 12; n++) {
		char knobs[32];

		snprintf(knobs, sizeof(knobs), "oom_at=%u", n);
		live_through("cuda:0", knobs, 0, &stat);
		assert_int_equal(stat.state, DEVICE_OPEN);
		assert_int_equal(stat.items + beside(&stat), 12);
	}
}

/* ---- pages that move --------------------------------------------------------------------- */

struct moving {
	struct world *w;
	struct mover mover;
	uint32_t seed, over; /* over: atomic */
};

/* Anywhere, but where it is. */
static unsigned goal(void *arg, const struct seq *s, unsigned home, page_ref page, uint64_t bytes)
{
	struct moving *m = arg;
	unsigned from = pool_node_of(page), to;

	m->seed = m->seed * 1664525 + 1013904223;
	to = (m->seed >> 10) % (WORLD_PARTS + (s->cache->parts != NULL));
	to = to == WORLD_PARTS ? POOL_STRIPED : to;
	return to == from ? MOVE_STAY : to;
}

static void move_all(struct moving *m, uint32_t s)
{
	struct move_at at = { 0 };
	int64_t r = -EAGAIN;

	for (unsigned i = 0; i < 200 && r && !load_relaxed(&m->over); i++) {
		uint32_t looks = 8;

		r = move_next(&m->mover, m->w->seq[0][s], &at, &looks);
		move_put_left(&m->mover, UINT32_MAX);
	}
}

/* The control thread, which nothing else keeps busy. */
static void *move_pages(void *arg)
{
	struct moving *m = arg;

	for (uint32_t s = 0; !load_relaxed(&m->over); s++)
		move_all(m, s % WORLD_SEQUENCES);
	return NULL;
}

/* `knobs` from the middle on. */
static uint64_t move_through(const char *options, const char *knobs, struct device_stat *ret)
{
	const struct world_params p = { .module = module,
					.options = options,
					.parts = WORLD_PARTS,
					.device_bytes = 24 * MIB,
					.pool_bytes = 64 * MIB };
	struct world w;
	struct moving m = { .w = &w, .seed = 7 };
	pthread_t thread;

	world_open(&w, &p);
	for (uint32_t s = 0; s < WORLD_SEQUENCES; s++)
		world_grow(&w, s, 900 + 100 * s);
	m.mover = (struct mover){ .store = &w.store, .goal = goal, .arg = &m };
	assert_int_equal(pthread_create(&thread, NULL, move_pages, &m), 0);
	for (uint32_t i = 0; i < 60; i++) {
		world_set(&w, i < 30 ? "" : knobs);
		assert_done(world_attend(&w, WORLD_SEQUENCES, 1 + i % 4, 0, 0), WORLD_SEQUENCES);
		world_grow(&w, i % WORLD_SEQUENCES, 1 + random() % 60);
	}
	store_relaxed(&m.over, 1);
	pthread_join(thread, NULL);
	for (unsigned i = 0; m.mover.n_left && i < 3; i++)
		move_put_left(&m.mover, UINT32_MAX);
	move_end(&m.mover);
	*ret = world_stat(&w);
	world_close(&w);
	return m.mover.moved_pages;
}

static void test_moves(void **state)
{
	static const char *const options[] = { "placement=heads", "placement=rows",
					       "placement=local" };
	struct device_stat stat;

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		assert_true(move_through(options[i], "", &stat) > 30);
		/* Pages lie about, so what they lie in may be more than there is room for. */
		assert_int_equal(stat.items + stat.beside_items[DEVICE_BESIDE_MEMORY],
				 60 * WORLD_SEQUENCES);
		assert_true(stat.items > 30 * WORLD_SEQUENCES);
	}
}

static void test_moves_lost(void **state)
{
	struct device_stat stat;

	assert_true(move_through("placement=heads", "lost", &stat) > 30);
	assert_int_equal(stat.state, DEVICE_LOST);
	assert_true(stat.items > 15 * WORLD_SEQUENCES);
	assert_int_equal(stat.beside_items[DEVICE_BESIDE_LOST], 30 * WORLD_SEQUENCES);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_at),    cmocka_unit_test(test_lost_at_halves),
		cmocka_unit_test(test_oom_at),     cmocka_unit_test(test_moves),
		cmocka_unit_test(test_moves_lost),
	};

	module = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
