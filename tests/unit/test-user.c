/* SPDX-License-Identifier: Apache-2.0 */
/* Quotas: whoever is charged without a lock must never be charged past the limit, nor lose a
 * refund. */
#include "daemon/user.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "shm/atomic.h"

static const uint64_t limits[USER_WHATS] = { 1000, 2, 3, 4, 5 };

/* A user is one slot, however many sessions it has; its slot goes with the last of them. */
static void slots(void **state)
{
	struct users u = { 0 };
	struct user *a, *b, *c;

	(void)state;
	users_limit(&u, limits);
	assert_int_equal(users_get(&u, 1000, &a), 0);
	assert_int_equal(users_get(&u, 1001, &b), 0);
	assert_int_equal(users_get(&u, 1000, &c), 0);
	assert_ptr_equal(a, c);
	assert_ptr_not_equal(a, b);
	assert_int_equal(a->limit[USER_SEQUENCES], 5);
	users_put(&u, c);
	users_put(&u, a);
	assert_ptr_equal(u.first, b);
	assert_null(b->next);
	assert_null(users_put(&u, NULL));
	users_deinit(&u);
	assert_null(u.first);
}

/* Parked sequences stay charged to somebody who has no session: that must not be forgotten. */
static void charged_slot_stays(void **state)
{
	struct users u = { 0 };
	struct user *a, *again;

	(void)state;
	users_limit(&u, limits);
	assert_int_equal(users_get(&u, 7, &a), 0);
	assert_int_equal(user_charge(a, USER_BYTES, 10), 0);
	users_put(&u, a);
	assert_int_equal(users_get(&u, 7, &again), 0);
	assert_ptr_equal(a, again);
	assert_int_equal(again->charged[USER_BYTES], 10);
	user_refund(a, USER_BYTES, 10);
	users_put(&u, a);
	assert_null(u.first);
}

static void limit(void **state)
{
	static const uint64_t less[USER_WHATS] = { 5, 0, 0, 0, 0 };
	struct users u = { 0 };
	struct user *a;

	(void)state;
	users_limit(&u, limits);
	assert_int_equal(users_get(&u, 7, &a), 0);
	assert_int_equal(user_charge(a, USER_BYTES, 1000), 0);
	assert_int_equal(user_charge(a, USER_BYTES, 1), -EDQUOT);
	assert_int_equal(a->charged[USER_BYTES], 1000);
	user_refund(a, USER_BYTES, 1);
	assert_int_equal(user_charge(a, USER_BYTES, 2), -EDQUOT);
	assert_int_equal(user_charge(a, USER_BYTES, UINT64_MAX), -EDQUOT);
	assert_int_equal(user_charge(a, USER_BYTES, 1), 0);
	/* A reload may set a limit below what is charged: nothing more, and refunds work. */
	users_limit(&u, less);
	assert_int_equal(user_charge(a, USER_BYTES, 0), -EDQUOT);
	user_refund(a, USER_BYTES, 1000);
	assert_int_equal(user_charge(a, USER_BYTES, 5), 0);
	assert_int_equal(user_charge(a, USER_SESSIONS, 1), -EDQUOT);
	users_deinit(&u);
}

#define ROUNDS 20000

static void *charger(void *arg)
{
	struct user *a = arg;
	uint64_t most = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t n = 1 + i % 300, now;

		if (user_charge(a, USER_BYTES, n) < 0)
			continue;
		now = load_relaxed(&a->charged[USER_BYTES]);
		most = now > most ? now : most;
		user_refund(a, USER_BYTES, n);
	}
	return (void *)(uintptr_t)most;
}

static void threads(void **state)
{
	struct users u = { 0 };
	struct user *a;
	pthread_t t[4];
	void *most;

	(void)state;
	users_limit(&u, limits);
	assert_int_equal(users_get(&u, 7, &a), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, charger, a), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &most);
		assert_in_range((uintptr_t)most, 0, limits[USER_BYTES]);
	}
	assert_int_equal(a->charged[USER_BYTES], 0);
	users_deinit(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots),
		cmocka_unit_test(charged_slot_stays),
		cmocka_unit_test(limit),
		cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
