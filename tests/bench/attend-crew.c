/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads that wait spinning and take items from a counter: the least
 * that sharing a step can cost.
 *
 *   round odd: work is out    round even: everybody is back
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "shm/base.h"
#include "tests/bench/attend.h"

struct crew {
	unsigned threads; /* the caller is one of them */
	pthread_t *thread;
	void (*work)(void *argument, unsigned i);
	void *argument;
	unsigned n;
	_Alignas(64) _Atomic unsigned round;
	_Alignas(64) _Atomic unsigned next;
	_Alignas(64) _Atomic unsigned away; /* threads that are not back */
	atomic_bool stop;
};

static void take_items(struct crew *c)
{
	unsigned i;

	while ((i = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed)) < c->n)
		c->work(c->argument, i);
}

static void relax(unsigned *spins)
{
	if (++*spins % 4096 == 0)
		sched_yield();
}

static void *member(void *argument)
{
	struct crew *c = argument;
	unsigned seen = 0;

	kv_thread_init();
	while (!atomic_load_explicit(&c->stop, memory_order_relaxed)) {
		unsigned spins = 0, round;

		while ((round = atomic_load_explicit(&c->round, memory_order_acquire)) == seen &&
		       !atomic_load_explicit(&c->stop, memory_order_relaxed))
			relax(&spins);
		if (round == seen)
			break;
		seen = round;
		take_items(c);
		atomic_fetch_sub_explicit(&c->away, 1, memory_order_release);
	}
	return NULL;
}

int crew_start(unsigned threads, struct crew **ret)
{
	struct crew *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));

	if (!c)
		return -ENOMEM;
	*c = (struct crew){ .threads = threads };
	c->thread = calloc(threads, sizeof(*c->thread));
	kv_thread_init();
	for (unsigned i = 1; i < threads; i++)
		if (!c->thread || pthread_create(&c->thread[i], NULL, member, c)) {
			c->threads = i;
			crew_stop(c);
			return -EAGAIN;
		}
	*ret = c;
	return 0;
}

void crew_stop(struct crew *c)
{
	atomic_store(&c->stop, true);
	for (unsigned i = 1; i < c->threads; i++)
		pthread_join(c->thread[i], NULL);
	free(c->thread);
	free(c);
}

void crew_run(struct crew *c, void (*work)(void *argument, unsigned i), void *argument, unsigned n)
{
	unsigned spins = 0;

	c->work = work;
	c->argument = argument;
	c->n = n;
	atomic_store_explicit(&c->next, 0, memory_order_relaxed);
	atomic_store_explicit(&c->away, c->threads - 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->round, 1, memory_order_release); /* all of the above */
	take_items(c);
	while (atomic_load_explicit(&c->away, memory_order_acquire)) /* what they wrote */
		relax(&spins);
}
