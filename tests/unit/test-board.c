/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares are the unit of every result: each must run exactly once, by anybody,
 * and a task's finish must see all of them and come once. The workers rely on
 * board_finish returning only when nothing of the wave is touched any more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "daemon/board.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define MAX_SHARES 40

struct counted {
	struct board_task task;
	uint32_t runs[MAX_SHARES];  /* atomic */
	uint32_t plain[MAX_SHARES]; /* not atomic: TSan would see an unordered finish */
	uint32_t finished;
	uint32_t sum;
};

static void count_share(struct board_task *t, uint32_t share)
{
	struct counted *c = container_of(t, struct counted, task);

	fetch_add(&c->runs[share], 1);
	c->plain[share]++;
}

static void count_finish(struct board_task *t)
{
	struct counted *c = container_of(t, struct counted, task);

	c->finished++;
	c->sum = 0;
	for (uint32_t i = 0; i < t->shares; i++)
		c->sum += c->plain[i];
}

static void fill(struct counted *c, struct board_task **list, uint32_t n, uint32_t seed)
{
	memset(c, 0, n * sizeof(*c));
	for (uint32_t i = 0; i < n; i++) {
		c[i].task.share = count_share;
		c[i].task.finish = count_finish;
		c[i].task.shares = 1 + (seed * 7 + i * 5) % MAX_SHARES;
		list[i] = &c[i].task;
	}
}

static void check(const struct counted *c, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(c[i].finished, 1);
		assert_int_equal(c[i].sum, c[i].task.shares);
		for (uint32_t j = 0; j < MAX_SHARES; j++)
			assert_int_equal(c[i].runs[j], j < c[i].task.shares);
	}
}

static void alone(void **state)
{
	struct board b = { 0 };
	struct counted c[5];
	struct board_task *list[5];

	for (uint32_t n = 1; n <= 5; n++) {
		fill(c, list, n, n);
		board_run_alone(&b, board_prepare(&b, list, n));
		check(c, n);
	}
	assert_false(board_help(&b));
}

static void nothing_to_take_before_open(void **state)
{
	struct board b = { 0 };
	struct counted c[2];
	struct board_task *list[2];

	fill(c, list, 2, 3);
	board_prepare(&b, list, 2);
	assert_false(board_is_open(&b));
	assert_false(board_help(&b));
}

struct helper {
	struct board *board;
	uint32_t stop;
	uint64_t helped;
};

static void *help(void *arg)
{
	struct helper *h = arg;

	while (!load_acquire(&h->stop))
		h->helped += board_help(h->board);
	return NULL;
}

/* Thousands of short waves with helpers that never pause: a ticket of one wave must never be taken
 * for a share of the next. */
static void many_waves_with_helpers(void **state)
{
	struct board b = { 0 };
	static struct counted c[9];
	struct board_task *list[9];
	struct helper h[2] = { { &b, 0, 0 }, { &b, 0, 0 } };
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, help, &h[i]), 0);
	for (uint32_t wave = 0; wave < 3000; wave++) {
		uint32_t n = 1 + wave % 9, shares;

		fill(c, list, n, wave);
		shares = board_prepare(&b, list, n);
		board_open(&b, shares);
		board_finish(&b, shares);
		check(c, n);
	}
	for (int i = 0; i < 2; i++) {
		store_release(&h[i].stop, 1);
		pthread_join(thread[i], NULL);
	}
	print_message("shares run by helpers: %llu and %llu\n", (unsigned long long)h[0].helped,
		      (unsigned long long)h[1].helped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone),
		cmocka_unit_test(nothing_to_take_before_open),
		cmocka_unit_test(many_waves_with_helpers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
