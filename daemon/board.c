/* SPDX-License-Identifier: Apache-2.0 */
/* Shares of a step, handed out by one word: see board.h. */
#include "daemon/board.h"

#include <assert.h>
#include <sched.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define PAUSES_BEFORE_YIELD 2000

static uint64_t ticket(uint32_t next, uint32_t n)
{
	return (uint64_t)next << 32 | n;
}

uint32_t board_prepare(struct board *b, struct board_task **task, uint32_t n_tasks)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < n_tasks; i++) {
		assert(task[i]->shares > 0);
		task[i]->first = n;
		store_relaxed(&task[i]->left, task[i]->shares);
		n += task[i]->shares;
	}
	b->task = task;
	b->n_tasks = n_tasks;
	store_relaxed(&b->done, 0);
	return n;
}

void board_open(struct board *b, uint32_t n_shares)
{
	/* The tasks, and all they point at, are visible to whoever takes a ticket. */
	store_release(&b->ticket, ticket(0, n_shares));
}

/* Takes the next share. The acquire sees the tasks that board_open released: the word it was
 * compared with can only be of the tasks that are up now. */
static bool take(struct board *b, uint32_t *ret_share)
{
	uint64_t now = load_relaxed(&b->ticket);

	for (;;) {
		uint32_t next = (uint32_t)(now >> 32), n = (uint32_t)now;

		if (next >= n)
			return false;
		if (compare_exchange(&b->ticket, &now, ticket(next + 1, n))) {
			*ret_share = next;
			return true;
		}
	}
}

static struct board_task *task_of(const struct board *b, uint32_t share)
{
	uint32_t low = 0, high = b->n_tasks;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (b->task[middle]->first <= share)
			low = middle;
		else
			high = middle;
	}
	return b->task[low];
}

static void run(struct board *b, uint32_t share)
{
	struct board_task *t = task_of(b, share);

	t->share(t, share - t->first);
	/* Whoever brings `left` to 0 has acquired what all other shares wrote. */
	if (fetch_sub(&t->left, 1) == 1 && t->finish)
		t->finish(t);
	/* The owner's acquire of the full count sees every result. */
	fetch_add(&b->done, 1);
}

void board_finish(struct board *b, uint32_t n_shares)
{
	uint32_t share;

	while (take(b, &share))
		run(b, share);
	for (uint32_t i = 0; load_acquire(&b->done) != n_shares; i++) {
		if (i < PAUSES_BEFORE_YIELD)
			cpu_pause();
		else
			sched_yield(); /* a helper lost its CPU, perhaps to us */
	}
}

void board_run_alone(struct board *b, uint32_t n_shares)
{
	for (uint32_t i = 0; i < n_shares; i++)
		run(b, i);
}

bool board_is_open(const struct board *b)
{
	uint64_t now = load_relaxed(&b->ticket);

	return (uint32_t)(now >> 32) < (uint32_t)now;
}

bool board_help(struct board *b)
{
	uint32_t share;

	if (!take(b, &share))
		return false;
	run(b, share);
	return true;
}
