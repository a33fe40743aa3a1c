/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entries are lost with a daemon: an engine repeats exactly those, so one
 * too few is a token that never comes, one too many an append done twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "client/private.h"

static void test_in_order(void **state)
{
	struct flight f;
	uint64_t lost;

	assert_int_equal(flight_init(&f, 3), 0);
	for (uint64_t i = 0; i < 1000; i++) {
		flight_add(&f, i);
		flight_add(&f, i + 5000);
		flight_done(&f, i);
		flight_done(&f, i + 5000);
		assert_int_equal(f.live, 0);
	}
	assert_false(flight_take(&f, &lost));
	flight_deinit(&f);
}

/* One slow entry while thousands pass it: the table must not grow past what can be in flight. */
static void test_one_slow(void **state)
{
	struct flight f;
	uint64_t lost;

	assert_int_equal(flight_init(&f, 4), 0);
	flight_add(&f, 42);
	for (uint64_t i = 100; i < 10000; i++) {
		flight_add(&f, i);
		flight_add(&f, i);
		flight_done(&f, i);
		assert_int_equal(f.live, 2);
		flight_done(&f, i);
	}
	flight_done(&f, 7); /* nobody asked for it */
	assert_int_equal(f.live, 1);
	assert_true(flight_take(&f, &lost));
	assert_int_equal(lost, 42);
	assert_false(flight_take(&f, &lost));
	flight_deinit(&f);
}

/* Against a plain count per value, in any order, equal values among them. */
static void test_random(void **state)
{
	enum { MOST = 24, VALUES = 10 };
	unsigned count[VALUES] = {}, n = 0;
	uint64_t seed = 12345, lost;
	struct flight f;

	assert_int_equal(flight_init(&f, MOST), 0);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned value =
			(unsigned)((seed = seed * 6364136223846793005u + 1) >> 40) % VALUES;

		if ((seed >> 33) % 2 && n < MOST) {
			flight_add(&f, value);
			count[value]++;
			n++;
		} else if (count[value]) {
			flight_done(&f, value);
			count[value]--;
			n--;
		}
		assert_int_equal(f.live, n);
	}
	assert_true(n > 0);
	while (flight_take(&f, &lost)) {
		assert_true(count[lost] > 0);
		count[lost]--;
		n--;
	}
	assert_int_equal(n, 0);
	flight_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_one_slow),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
