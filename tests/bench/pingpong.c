/* SPDX-License-Identifier: Apache-2.0 */
/* One cache line there and back: see pingpong.h. */
#include "tests/bench/pingpong.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "shm/atomic.h"
#include "shm/base.h"

/* A sample is a batch of round trips: the clock's own 20 ns and its steps vanish in it. */
#define SAMPLES 201
#define ROUNDS 200
#define LINE_BYTES 128

struct court {
	uint32_t ball __attribute__((aligned(LINE_BYTES))); /* odd: with b; 0xffffffff: over */
	int cpu_b __attribute__((aligned(LINE_BYTES)));
	uint32_t b_pinned; /* 0 not yet, 1 yes, 2 cannot */
};

static bool pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

/* Answers 2k + 1 with 2k + 2. */
static void *return_balls(void *arg)
{
	struct court *c = arg;
	uint32_t expected = 1;
	bool pinned = pin(c->cpu_b);

	store_release(&c->b_pinned, pinned ? 1 : 2);
	while (pinned) {
		uint32_t ball = load_acquire(&c->ball);

		if (ball == UINT32_MAX)
			break;
		if (ball != expected)
			continue;
		store_release(&c->ball, expected + 1);
		expected += 2;
	}
	return NULL;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double serve_balls(struct court *c)
{
	double sample_ns[SAMPLES];
	uint32_t ball = 0;

	for (unsigned s = 0; s < SAMPLES; s++) {
		double start = now_ns();

		for (unsigned i = 0; i < ROUNDS; i++) {
			store_release(&c->ball, ball + 1);
			ball += 2;
			while (load_acquire(&c->ball) != ball)
				;
		}
		sample_ns[s] = (now_ns() - start) / ROUNDS;
	}
	qsort(sample_ns, SAMPLES, sizeof(sample_ns[0]), compare);
	return sample_ns[SAMPLES / 2];
}

double pingpong_ns(int cpu_a, int cpu_b)
{
	struct court c = { .cpu_b = cpu_b };
	cpu_set_t before;
	pthread_t thread;
	double ns = 0;

	if (pthread_getaffinity_np(pthread_self(), sizeof(before), &before) != 0)
		return 0;
	if (pthread_create(&thread, NULL, return_balls, &c) != 0)
		return 0;
	while (load_acquire(&c.b_pinned) == 0)
		sched_yield();
	if (c.b_pinned == 1 && pin(cpu_a))
		ns = serve_balls(&c);
	store_release(&c.ball, UINT32_MAX);
	pthread_join(thread, NULL);
	pthread_setaffinity_np(pthread_self(), sizeof(before), &before);
	return ns;
}

double pingpong_line_ns(void)
{
	int cpu[2], n = 0;
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return 0;
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &allowed))
			cpu[n++] = i;
	return n == 2 ? pingpong_ns(cpu[0], cpu[1]) : 0;
}
