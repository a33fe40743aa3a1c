/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares are the unit of every result: each must run exactly once, by anybody,
 * and a task's finish must see all of them and come once. The workers rely on
 * board_finish returning only when nothing of the wave is touched any more, and
 * on a helper never touching another node's memory while its own has work.
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
	uint32_t nodes; /* its shares take turns on so many; 0: they lie nowhere */
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

/* As rows in ranges of four over the nodes. */
static uint32_t node_of(const struct board_task *t, uint32_t share)
{
	const struct counted *c = container_of(t, struct counted, task);

	return c->nodes ? share / 4 % c->nodes : BOARD_ANYWHERE;
}

static void fill(struct counted *c, struct board_task **list, uint32_t n, uint32_t seed,
		 uint32_t nodes)
{
	memset(c, 0, n * sizeof(*c));
	for (uint32_t i = 0; i < n; i++) {
		c[i].task.share = count_share;
		c[i].task.finish = count_finish;
		c[i].task.node = node_of;
		c[i].task.shares = 1 + (seed * 7 + i * 5) % MAX_SHARES;
		c[i].nodes = nodes;
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

static uint32_t shares_on(const struct counted *c, uint32_t n, uint32_t node)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t share = 0; share < c[i].task.shares; share++)
			sum += node_of(&c[i].task, share) == node;
	return sum;
}

/* ---- one thread --------------------------------------------------------------- */

/* Where shares lie decides when they run, never how many there are or what they are: results are
 * the same bits on any machine. */
static void alone(void **state)
{
	for (uint32_t nodes = 1; nodes <= 4; nodes++) {
		struct board b;
		struct counted c[5];
		struct board_task *list[5];
		struct board_hand hand = { .node = (int)nodes - 1 };

		assert_int_equal(board_init(&b, nodes, 5), 0);
		for (uint32_t n = 1; n <= 5; n++) {
			uint32_t shares = 0;

			fill(c, list, n, n, nodes);
			for (uint32_t i = 0; i < n; i++)
				shares += c[i].task.shares;
			assert_int_equal(board_prepare(&b, list, n), shares);
			board_run_alone(&b, &hand);
			check(c, n);
		}
		assert_false(board_help(&b, &hand, true));
		board_deinit(&b);
	}
}

static void nothing_to_take_before_open(void **state)
{
	struct board b;
	struct counted c[2];
	struct board_task *list[2];
	struct board_hand hand = { .node = 0 };

	assert_int_equal(board_init(&b, 2, 2), 0);
	fill(c, list, 2, 3, 2);
	board_prepare(&b, list, 2);
	assert_false(board_is_open(&b));
	assert_false(board_help(&b, &hand, true));
	board_deinit(&b);
}

/* A worker must not be made to read another node's memory while nobody asks it to: whoever puts
 * such work up, a client that chose its worker included, cannot slow the others down. */
static void a_helper_keeps_to_its_node(void **state)
{
	struct board b;
	struct counted c[3];
	struct board_task *list[3];
	struct board_hand own = { .node = 0 }, helper = { .node = 1 };
	uint32_t near;

	assert_int_equal(board_init(&b, 3, 30), 0);
	fill(c, list, 3, 9, 3);
	near = shares_on(c, 3, 1);
	board_prepare(&b, list, 3);
	assert_int_equal(board_shares(&b, 1), near);
	assert_true(board_has_far(&b, &helper));
	board_open(&b);
	for (uint32_t i = 0; i < near; i++)
		assert_true(board_help(&b, &helper, false));
	assert_false(board_help(&b, &helper, false));
	assert_int_equal(helper.near, near);
	assert_int_equal(helper.far, 0);
	assert_int_equal(shares_on(c, 3, 1), near);
	assert_true(board_is_open(&b));
	/* Idle for long enough, it may. */
	assert_true(board_help(&b, &helper, true));
	assert_int_equal(helper.far, 1);
	board_finish(&b, &own);
	check(c, 3);
	assert_int_equal(own.near + own.far + helper.near + helper.far,
			 shares_on(c, 3, 0) + near + shares_on(c, 3, 2));
	board_deinit(&b);
}

/* Memory of no CPU: what lies there is work of the node that is to work for it, first to last. */
static void a_node_without_hands(void **state)
{
	struct board b;
	struct counted c[3];
	struct board_task *list[3];
	struct board_hand own = { .node = 0 }, helper = { .node = 1 };
	uint32_t near;

	assert_int_equal(board_init(&b, 3, 30), 0);
	b.lane_of[2] = 1;
	fill(c, list, 3, 9, 3);
	near = shares_on(c, 3, 1) + shares_on(c, 3, 2);
	board_prepare(&b, list, 3);
	assert_int_equal(board_shares(&b, 1), near);
	assert_int_equal(board_shares(&b, 2), 0);
	board_open(&b);
	while (board_help(&b, &helper, false))
		;
	assert_int_equal(helper.near, near);
	assert_int_equal(helper.far, 0);
	board_finish(&b, &own);
	check(c, 3);
	assert_int_equal(own.near, shares_on(c, 3, 0));
	board_deinit(&b);
}

/* Shares that lie nowhere are near to everybody, and count as neither. */
static void what_lies_nowhere_is_anybodys(void **state)
{
	struct board b;
	struct counted c[2];
	struct board_task *list[2];
	struct board_hand own = { .node = 0 }, helper = { .node = 2 };
	uint32_t shares;

	assert_int_equal(board_init(&b, 3, 2), 0);
	fill(c, list, 2, 4, 0);
	shares = board_prepare(&b, list, 2);
	assert_int_equal(board_shares(&b, BOARD_ANYWHERE), shares);
	assert_false(board_has_far(&b, &own));
	board_open(&b);
	assert_true(board_help(&b, &helper, false));
	board_finish(&b, &own);
	check(c, 2);
	assert_int_equal(own.near + own.far + helper.near + helper.far, 0);
	board_deinit(&b);
}

/* A worker that may run anywhere takes everything, and claims nothing. */
static void unpinned(void **state)
{
	struct board b;
	struct counted c[2];
	struct board_task *list[2];
	struct board_hand own = { .node = -1 }, helper = { .node = -1 };

	assert_int_equal(board_init(&b, 2, 2), 0);
	fill(c, list, 2, 5, 2);
	board_prepare(&b, list, 2);
	board_open(&b);
	while (board_help(&b, &helper, false))
		;
	board_finish(&b, &own);
	check(c, 2);
	assert_int_equal(own.near + own.far + helper.near + helper.far, 0);
	board_deinit(&b);
}

struct order {
	struct board_task task;
	uint32_t at[12], n; /* nodes, in the order in which their shares ran; 9: another board */
	unsigned elsewhere;
};

static void note_share(struct board_task *t, uint32_t share)
{
	struct order *o = container_of(t, struct order, task);

	o->at[o->n++] = share % 3;
}

static uint32_t third(const struct board_task *t, uint32_t share)
{
	return share % 3;
}

static bool run_elsewhere(void *arg)
{
	struct order *o = arg;

	if (!o->elsewhere)
		return false;
	o->elsewhere--;
	o->at[o->n++] = 9;
	return true;
}

/* Its node first, then what its node has elsewhere (but not for ever: a client waits), then the
 * others', the nearest first. */
static void the_owner_goes_far_last(void **state)
{
	static const uint8_t order[] = { 1, 2, 0 };
	static const uint32_t bounded[] = { 1, 1, 9, 9, 9, 9, 2, 2, 0, 0 };
	struct order o = { .task = { .share = note_share, .node = third, .shares = 6 },
			   .elsewhere = 100 };
	struct board_task *list = &o.task;
	struct board_hand own = {
		.node = 1, .order = order, .near_elsewhere = run_elsewhere, .arg = &o
	};
	struct board b;

	assert_int_equal(board_init(&b, 3, 4), 0);
	assert_int_equal(board_prepare(&b, &list, 1), 6);
	board_open(&b);
	board_finish(&b, &own);
	assert_int_equal(o.n, ARRAY_SIZE(bounded));
	for (uint32_t i = 0; i < o.n; i++)
		assert_int_equal(o.at[i], bounded[i]);
	assert_int_equal(own.near, 2);
	assert_int_equal(own.far, 4);
	board_deinit(&b);
}

/* A board has room for so many pieces; a task with more goes on as anybody's. */
static void more_pieces_than_room(void **state)
{
	struct board b;
	struct counted c[3];
	struct board_task *list[3];
	struct board_hand own = { .node = 0 };

	assert_int_equal(board_init(&b, 4, 3), 0);
	fill(c, list, 3, 0, 4);
	for (uint32_t i = 0; i < 3; i++)
		c[i].task.shares = MAX_SHARES; /* ten pieces */
	assert_int_equal(board_prepare(&b, list, 3), 3 * MAX_SHARES);
	/* Six pieces: the first task takes four, the others keep one each. */
	assert_int_equal(board_shares(&b, 0), 4);
	assert_int_equal(board_shares(&b, 1), 4);
	assert_int_equal(board_shares(&b, 2), 4);
	assert_int_equal(board_shares(&b, BOARD_ANYWHERE), 3 * MAX_SHARES - 12);
	board_open(&b);
	board_finish(&b, &own);
	check(c, 3);
	board_deinit(&b);
}

/* ---- several ------------------------------------------------------------------- */

struct helper {
	struct board *board;
	struct board_hand hand;
	bool far;
	uint32_t stop;
	uint64_t helped;
};

static void *help(void *arg)
{
	struct helper *h = arg;

	while (!load_acquire(&h->stop))
		h->helped += board_help(h->board, &h->hand, h->far);
	return NULL;
}

/* Thousands of short waves with helpers that never pause: a ticket of one wave must never be taken
 * for a share of the next. */
static void many_waves(uint32_t nodes, const struct helper *helpers)
{
	struct board b;
	static struct counted c[9];
	struct board_task *list[9];
	struct board_hand own = { .node = 0 };
	struct helper h[2] = { helpers[0], helpers[1] };
	uint64_t placed = 0;
	pthread_t thread[2];

	assert_int_equal(board_init(&b, nodes, 9), 0);
	b.manned = 3;
	for (int i = 0; i < 2; i++) {
		h[i].board = &b;
		assert_int_equal(pthread_create(&thread[i], NULL, help, &h[i]), 0);
	}
	for (uint32_t wave = 0; wave < 3000; wave++) {
		uint32_t n = 1 + wave % 9;

		/* One task's pieces at most fit whole; with more, some are anybody's. */
		fill(c, list, n, wave, nodes);
		board_prepare(&b, list, n);
		for (uint32_t node = 0; node < nodes; node++)
			placed += board_shares(&b, node);
		board_open(&b);
		board_finish(&b, &own);
		check(c, n);
	}
	for (int i = 0; i < 2; i++) {
		store_release(&h[i].stop, 1);
		pthread_join(thread[i], NULL);
	}
	print_message(
		"%u nodes: shares run by helpers: %llu and %llu, far: %llu, %llu, owner %llu\n",
		nodes, (unsigned long long)h[0].helped, (unsigned long long)h[1].helped,
		(unsigned long long)h[0].hand.far, (unsigned long long)h[1].hand.far,
		(unsigned long long)own.far);
	for (int i = 0; i < 2; i++)
		assert_true(h[i].far || h[i].hand.far == 0);
	/* Each placed share is in exactly one count. */
	assert_int_equal(own.near + own.far + h[0].hand.near + h[0].hand.far + h[1].hand.near +
				 h[1].hand.far,
			 placed);
	board_deinit(&b);
}

static void many_waves_with_helpers(void **state)
{
	static const struct helper h[2] = { { .hand = { .node = 0 } }, { .hand = { .node = 0 } } };

	many_waves(1, h);
}

static void many_waves_on_two_nodes(void **state)
{
	static const struct helper h[2] = { { .hand = { .node = 0 } }, { .hand = { .node = 1 } } };

	many_waves(2, h);
}

static void many_waves_with_far_helpers(void **state)
{
	static const struct helper h[2] = { { .hand = { .node = 1 }, .far = true },
					    { .hand = { .node = 3 }, .far = true } };

	many_waves(4, h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone),
		cmocka_unit_test(nothing_to_take_before_open),
		cmocka_unit_test(a_helper_keeps_to_its_node),
		cmocka_unit_test(a_node_without_hands),
		cmocka_unit_test(what_lies_nowhere_is_anybodys),
		cmocka_unit_test(unpinned),
		cmocka_unit_test(the_owner_goes_far_last),
		cmocka_unit_test(more_pieces_than_room),
		cmocka_unit_test(many_waves_with_helpers),
		cmocka_unit_test(many_waves_on_two_nodes),
		cmocka_unit_test(many_waves_with_far_helpers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
