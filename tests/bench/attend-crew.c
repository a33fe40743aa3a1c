/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads that wait spinning and take items from a counter: the least
 * that sharing a step can cost. Each is tied to the CPU that a daemon's worker
 * of the same number would have, for two CPUs of one machine are not equally
 * fast; the caller is let loose again at the end.
 *
 *   round odd: work is out    round even: everybody is back
 */
#include "tests/bench/attend.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "numa/pin.h"
#include "shm/base.h"

struct crew {
	unsigned threads; /* the caller is one of them */
	cpu_set_t before; /* where the caller may run otherwise */
	atomic_uint started;
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

/* Where there are fewer CPUs than threads, or none may be chosen, they run where they are put. */
static void tie(unsigned thread)
{
	static struct topo topo;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	unsigned node;

	pthread_mutex_lock(&lock);
	if (!topo.n_cpus && topo_read("/", &topo) < 0)
		topo.n_cpus = 0;
	if (thread < topo.n_cpus)
		pin_to_cpu(topo_cpu(&topo, thread, &node));
	pthread_mutex_unlock(&lock);
}

static void *member(void *argument)
{
	struct crew *c = argument;
	unsigned seen = 0;

	tie(atomic_fetch_add(&c->started, 1));
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
	*c = (struct crew){ .threads = threads, .started = 1 };
	c->thread = calloc(threads, sizeof(*c->thread));
	pthread_getaffinity_np(pthread_self(), sizeof(c->before), &c->before);
	tie(0);
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
	pthread_setaffinity_np(pthread_self(), sizeof(c->before), &c->before);
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
