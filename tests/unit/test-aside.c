/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs beside the control thread. The control socket relies on each coming back exactly once, by
 * done() or by drop(), on its own thread; and on one that is cancelled never being answered, for
 * who would get the answer is gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include "daemon/aside.h"
#include "shm/atomic.h"
#include "shm/base.h"

struct bench {
	struct loop *loop;
	struct aside *aside;
	pthread_t control;
	uint32_t gate;                           /* atomic: jobs of gated() wait for it */
	uint32_t started;                        /* atomic: jobs that have begun */
	uint32_t order[ASIDE_QUEUED + 2], n_ran; /* written by the thread */
	unsigned n_done, n_dropped;
};

struct task {
	struct aside_job job;
	struct bench *bench;
	uint32_t number;
	bool saw_cancel;
	int nice;
	unsigned done, dropped;
};

static void note(struct task *t)
{
	struct bench *b = t->bench;

	assert_false(pthread_equal(pthread_self(), b->control));
	b->order[b->n_ran++] = t->number;
	t->nice = getpriority(PRIO_PROCESS, 0);
	fetch_add(&b->started, 1);
}

static void at_once(struct aside_job *j)
{
	note(container_of(j, struct task, job));
}

/* Until the gate opens, or nobody wants it any more. */
static void gated(struct aside_job *j)
{
	struct task *t = container_of(j, struct task, job);

	note(t);
	while (!load_acquire(&t->bench->gate) && !t->saw_cancel) {
		t->saw_cancel = aside_is_cancelled(t->bench->aside);
		sched_yield();
	}
}

static void done(struct aside_job *j)
{
	struct task *t = container_of(j, struct task, job);

	assert_true(pthread_equal(pthread_self(), t->bench->control));
	t->done++;
	t->bench->n_done++;
}

static void drop(struct aside_job *j)
{
	struct task *t = container_of(j, struct task, job);

	assert_true(pthread_equal(pthread_self(), t->bench->control));
	t->dropped++;
	t->bench->n_dropped++;
}

static struct task task(struct bench *b, uint32_t number, void (*run)(struct aside_job *))
{
	return (struct task){ .job = { .run = run, .done = done, .drop = drop },
			      .bench = b,
			      .number = number };
}

static void begin(struct bench *b)
{
	*b = (struct bench){ .control = pthread_self() };
	assert_int_equal(loop_new(LOOP_EPOLL, &b->loop), 0);
	assert_int_equal(aside_new(b->loop, &b->aside), 0);
}

static void end(struct bench *b)
{
	b->aside = aside_free(b->aside);
	loop_free(b->loop);
}

/* Until so many came back. */
static void await(struct bench *b, unsigned n)
{
	for (unsigned i = 0; b->n_done + b->n_dropped < n && i < 1000; i++)
		assert_int_equal(loop_step(b->loop, 10000000), 0);
	assert_int_equal(b->n_done + b->n_dropped, n);
}

static void await_started(const struct bench *b, uint32_t n)
{
	while (load_acquire(&b->started) < n)
		sched_yield();
}

static void in_order_and_low(void **state)
{
	struct task t[3];
	struct bench b;

	begin(&b);
	t[0] = task(&b, 0, gated);
	t[1] = task(&b, 1, at_once);
	t[2] = task(&b, 2, at_once);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(aside_put(b.aside, &t[i].job), 0);
	await_started(&b, 1);
	assert_int_equal(loop_step(b.loop, 0), 0);
	assert_int_equal(b.n_done, 0); /* and this thread goes on */
	store_release(&b.gate, 1);
	await(&b, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(b.order[i], i);
		assert_int_equal(t[i].done, 1);
		assert_int_equal(t[i].nice, MIN(getpriority(PRIO_PROCESS, 0) + 10, 19));
	}
	end(&b);
	assert_int_equal(b.n_dropped, 0);
}

/* Who sends many must be told, and hold no memory meanwhile. */
static void a_bounded_number_waits(void **state)
{
	struct task t[ASIDE_QUEUED + 2];
	struct bench b;

	begin(&b);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		t[i] = task(&b, i, gated);
	assert_int_equal(aside_put(b.aside, &t[0].job), 0);
	await_started(&b, 1);
	for (unsigned i = 1; i <= ASIDE_QUEUED; i++)
		assert_int_equal(aside_put(b.aside, &t[i].job), 0);
	assert_int_equal(aside_put(b.aside, &t[ASIDE_QUEUED + 1].job), -EAGAIN);
	store_release(&b.gate, 1);
	await(&b, ASIDE_QUEUED + 1);
	assert_int_equal(t[ASIDE_QUEUED + 1].done + t[ASIDE_QUEUED + 1].dropped, 0);
	assert_int_equal(aside_put(b.aside, &t[ASIDE_QUEUED + 1].job), 0);
	await(&b, ASIDE_QUEUED + 2);
	end(&b);
}

/* In whatever state it is. */
static void cancelled(void **state)
{
	struct task t[3];
	struct bench b;

	begin(&b);
	for (unsigned i = 0; i < 3; i++)
		t[i] = task(&b, i, i < 1 ? gated : at_once);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(aside_put(b.aside, &t[i].job), 0);
	await_started(&b, 1);
	aside_cancel(b.aside, &t[1].job); /* it waits: now */
	assert_int_equal(t[1].dropped, 1);
	aside_cancel(b.aside, &t[0].job); /* it runs: when it has ended */
	assert_int_equal(t[0].dropped, 0);
	await_started(&b, 2);
	assert_true(t[0].saw_cancel);
	assert_int_equal(b.order[1], 2);
	/* It has ended, and this thread has not heard of it. */
	aside_cancel(b.aside, &t[2].job);
	await(&b, 3);
	assert_int_equal(b.n_done, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(t[i].dropped, 1);
	assert_false(aside_is_cancelled(b.aside)); /* this thread runs none */
	assert_false(aside_is_cancelled(NULL));
	end(&b);
}

/* The daemon ends: nothing is left behind, and nothing is waited for but what runs. */
static void ended(void **state)
{
	struct task t[3];
	struct bench b;

	begin(&b);
	for (unsigned i = 0; i < 3; i++) {
		t[i] = task(&b, i, gated);
		assert_int_equal(aside_put(b.aside, &t[i].job), 0);
	}
	await_started(&b, 1);
	end(&b);
	assert_true(t[0].saw_cancel);
	assert_int_equal(b.n_ran, 1);
	assert_int_equal(b.n_dropped, 3);
	assert_int_equal(b.n_done, 0);
	begin(&b); /* one that never had a job has no thread */
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_and_low),
		cmocka_unit_test(a_bounded_number_waits),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
