/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that somebody moved are found while the daemon works, and nothing is looked for while it
 * does not: administrators rely on the figure, and on an idle daemon costing nothing. That pages
 * are elsewhere is played by an arena that says it belongs to a node that there is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "daemon/patrol.h"
#include "shm/base.h"
#include "shm/clock.h"

#define NOWHERE 63

struct world {
	struct loop *loop;
	struct placement placement;
	struct patrol patrol;
	uint64_t steps;
	bool works; /* a step between any two looks */
};

static uint64_t count_steps(void *arg)
{
	struct world *w = arg;

	w->steps += w->works;
	return w->steps;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(loop_new(LOOP_BEST, &w->loop), 0);
	for (unsigned i = 0; i < 2; i++) {
		const struct arena_params p = { .name = "test", .bytes = 6 * MIB, .node = -1 };

		assert_int_equal(arena_create(&p, &w->placement.arena[i], NULL), 0);
	}
	w->placement.n = 2;
	patrol_init(&w->patrol, w->loop, &w->placement, count_steps, w);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < 2; i++)
		arena_deinit(&w->placement.arena[i]);
	loop_free(w->loop);
	free(w);
	return 0;
}

static void run_for(struct world *w, uint64_t ms)
{
	uint64_t end = (uint64_t)clock_now_ns() + ms * 1000000;

	while ((uint64_t)clock_now_ns() < end)
		assert_int_equal(loop_step(w->loop, 1000000), 0);
}

static size_t pages_of(const struct arena *a)
{
	return a->bytes / a->page_bytes;
}

/* Found by the way, within the first slices. */
static void found_while_it_works(void **state)
{
	struct world *w = *state;

	w->works = true;
	w->placement.arena[0].node = NOWHERE;
	patrol_watch(&w->patrol, true);
	run_for(w, 1300);
	assert_int_equal(placement_misplaced(&w->placement), 0); /* it rests */
	w->patrol.rest_ns = 0;
	run_for(w, 1300);
	assert_true(placement_misplaced(&w->placement) > 0);
	assert_int_equal(w->patrol.rounds, 0);
	patrol_watch(&w->patrol, false);
}

static void nothing_while_nobody_works(void **state)
{
	struct world *w = *state;

	w->patrol.rest_ns = 0;
	w->placement.arena[0].node = NOWHERE;
	patrol_watch(&w->patrol, true);
	run_for(w, 2500);
	assert_int_equal(placement_misplaced(&w->placement), 0);
	assert_int_equal(w->patrol.page, 0);
	patrol_watch(&w->patrol, false);
	run_for(w, 1200);
	/* Nobody is connected: it does not even look at its clock. */
	assert_int_equal(w->patrol.timer.at_ns, 0);
}

static void asked(void **state)
{
	struct world *w = *state;
	struct arena *a = w->placement.arena;

	a[1].node = NOWHERE;
	patrol_ask(&w->patrol, false);
	assert_true(patrol_is_hurried(&w->patrol));
	run_for(w, 300);
	assert_false(patrol_is_hurried(&w->patrol));
	assert_int_equal(w->patrol.rounds, 1);
	assert_int_equal(a[0].misplaced_pages, 0);
	assert_int_equal(a[1].misplaced_pages, pages_of(&a[1]));
	assert_true(w->patrol.told);
	/* And what is right again counts no more. */
	a[1].node = -1;
	patrol_ask(&w->patrol, false);
	run_for(w, 300);
	assert_int_equal(placement_misplaced(&w->placement), 0);
	assert_false(w->patrol.told);
	assert_int_equal(w->patrol.timer.at_ns, 0);
}

/* A node that is not there takes nothing: what could not be brought back is still said. */
static void what_cannot_be_repaired(void **state)
{
	struct world *w = *state;
	struct arena *a = w->placement.arena;

	memset(a[0].base, 7, a[0].bytes);
	a[0].node = NOWHERE;
	patrol_ask(&w->patrol, true);
	run_for(w, 500);
	assert_false(patrol_is_hurried(&w->patrol));
	assert_int_equal(((uint8_t *)a[0].base)[a[0].bytes - 1], 7);
	assert_int_equal(w->patrol.rounds, 1);
	assert_int_equal(a[0].misplaced_pages, pages_of(&a[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(found_while_it_works, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_while_nobody_works, set_up, tear_down),
		cmocka_unit_test_setup_teardown(asked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_repaired, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
