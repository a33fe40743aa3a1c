/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measuring read bandwidth. "Percent of roofline" has it as its denominator, so a figure that
 * would be of caches, or of fewer threads than it says, must not come about; and the control thread
 * relies on the end being prompt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/calibrate.h"
#include "shm/base.h"
#include "shm/clock.h"

#define BYTES (8 * MIB)

static int set_up(void **state)
{
	void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 1, BYTES);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	return munmap(*state, BYTES);
}

static struct calibrate_node node_of(void *memory, unsigned n_threads)
{
	struct calibrate_node n = { .memory = memory, .bytes = BYTES, .n_threads = n_threads };

	for (unsigned i = 0; i < n_threads; i++)
		n.cpu[i] = -1;
	return n;
}

static void finish(const struct calibration *c)
{
	int64_t limit = clock_now_ns() + 20 * NS_PER_S;

	while (calibrate_runs(c) && clock_now_ns() < limit)
		usleep(1000);
	assert_false(calibrate_runs(c));
}

static void test_nodes_are_measured_in_turn(void **state)
{
	const struct calibrate_node node[] = { node_of(*state, 1), node_of(*state, 2) };
	struct calibration *c;
	struct calibrated r;
	unsigned of;

	assert_int_equal(calibrate_start(node, 2, &c), 0);
	assert_true(calibrate_runs(c));
	assert_false(calibrate_get(c, 1, &r)); /* not yet */
	finish(c);
	assert_int_equal(calibrate_done(c, &of), 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(calibrate_get(c, i, &r));
		assert_string_equal(r.why, "");
		assert_int_equal(r.n_threads, i + 1);
		/* Slower than any memory, faster than any machine: units are right. */
		assert_in_range(r.bytes_s, 10 * MIB, 100000 * GIB);
		assert_true(r.taken_s > 1700000000);
	}
	calibrate_free(c);
}

static void refused(struct calibrate_node n, const char *word)
{
	struct calibration *c;
	struct calibrated r;

	assert_int_equal(calibrate_start(&n, 1, &c), 0);
	finish(c);
	assert_true(calibrate_get(c, 0, &r));
	assert_int_equal(r.bytes_s, 0);
	if (!strstr(r.why, word))
		fail_msg("%s: no \"%s\"", r.why, word);
	calibrate_free(c);
}

static void test_a_wrong_figure_is_none(void **state)
{
	struct calibrate_node n = node_of(*state, 1);

	n.cache_bytes = BYTES; /* half of it would come from there */
	refused(n, "caches");
	n = node_of(*state, 64);
	n.bytes = MIB;
	refused(n, "too small");
	refused(node_of(*state, 0), "no worker");
}

static void test_the_end_is_prompt(void **state)
{
	struct calibrate_node node[8];
	struct calibration *c;
	int64_t before;

	for (unsigned i = 0; i < 8; i++)
		node[i] = node_of(*state, 1);
	assert_int_equal(calibrate_start(node, 8, &c), 0);
	before = clock_now_ns();
	calibrate_free(c);
	/* All of it would take eight times as long as one. */
	assert_true(clock_now_ns() - before < 8 * CALIBRATE_MS * INT64_C(1000000));
	assert_null(calibrate_free(NULL));
}

static void test_caches_are_counted_once(void **state)
{
	const int all[] = { 0, 1, 2, 3 }, one[] = { 3 }, shared[] = { 0, 1 }, none[] = { -1 };
	char root[4096];

	snprintf(root, sizeof(root), "%s/caches-2-l3", getenv("SPARQ_FIXTURES"));
	assert_int_equal(calibrate_cache_bytes(root, all, 4), 32 * MIB);
	assert_int_equal(calibrate_cache_bytes(root, one, 1), 16 * MIB);
	assert_int_equal(calibrate_cache_bytes(root, shared, 2), 16 * MIB);
	assert_int_equal(calibrate_cache_bytes(root, none, 1), 0);
	assert_int_equal(calibrate_cache_bytes("/nosuch", all, 4), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nodes_are_measured_in_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_wrong_figure_is_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_the_end_is_prompt, set_up, tear_down),
		cmocka_unit_test(test_caches_are_counted_once),
	};

	return cmocka_run_group_tests_name("calibrate", tests, NULL, NULL);
}
