/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that live for one step; a barrier lets them begin together. */
#include "tests/kernels/crew.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

#define MAX_HEADS 16u
#define MAX_WORKERS 8u

struct job {
	uint32_t head, share;
};

struct crew {
	struct kv_exec exec[MAX_HEADS];
	_Atomic uint32_t left[MAX_HEADS]; /* shares that nobody has ended */
	struct job *job;
	uint32_t jobs;
	_Atomic uint32_t next;
	pthread_barrier_t start;
};

static void *work(void *arg)
{
	struct crew *c = arg;

	kv_thread_init();
	pthread_barrier_wait(&c->start);
	for (uint32_t i; (i = atomic_fetch_add(&c->next, 1)) < c->jobs;) {
		const struct job *j = &c->job[i];

		kv_exec_share(&c->exec[j->head], j->share);
		/* The others' shares are seen by whoever counts to 0. */
		if (atomic_fetch_sub(&c->left[j->head], 1) == 1)
			kv_exec_finish(&c->exec[j->head]);
	}
	return NULL;
}

static void shuffle(struct job *job, uint32_t n, uint64_t random)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j;
		struct job swapped = job[i - 1];

		random = random * 6364136223846793005u + 1442695040888963407u;
		j = (uint32_t)((random >> 33) % i);
		job[i - 1] = job[j];
		job[j] = swapped;
	}
}

static void deal(struct crew *c, const struct rig *r, const struct kv_plan *plan,
		 const struct kv_query *query, char *scratch)
{
	uint64_t bytes = kv_exec_scratch_bytes(r->space, plan, &r->view, query);
	uint32_t heads = r->space->kv_heads;

	for (uint32_t h = 0; h < heads; h++) {
		kv_exec_init(&c->exec[h], r->space, plan, &r->view, query, h, scratch + h * bytes);
		atomic_init(&c->left[h], c->exec[h].shares);
		c->job = realloc(c->job, (c->jobs + c->exec[h].shares) * sizeof(*c->job));
		for (uint32_t i = 0; i < c->exec[h].shares; i++)
			c->job[c->jobs++] = (struct job){ h, i };
	}
}

void crew_attend(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		 void *scratch, unsigned workers, uint64_t random, struct kv_result *ret)
{
	pthread_t thread[MAX_WORKERS];
	struct crew c = { .jobs = 0 };

	if (workers > MAX_WORKERS || r->space->kv_heads > MAX_HEADS)
		abort();
	deal(&c, r, plan, query, scratch);
	shuffle(c.job, c.jobs, random);
	pthread_barrier_init(&c.start, NULL, workers);
	for (unsigned i = 0; i < workers; i++)
		if (pthread_create(&thread[i], NULL, work, &c))
			abort();
	for (unsigned i = 0; i < workers; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&c.start);
	for (uint32_t h = 0; h < r->space->kv_heads; h++)
		ret[h] = c.exec[h].result;
	free(c.job);
}

const char *crew_differs(const struct kv_result *a, const struct kv_result *b, size_t heads,
			 uint32_t dim)
{
	if (memcmp(a->y, b->y, heads * dim * sizeof(*a->y)))
		return "y";
	if (memcmp(a->lse, b->lse, heads * sizeof(*a->lse)))
		return "lse";
	if (a->n_selected != b->n_selected || a->n_scored != b->n_scored)
		return "the number of rows";
	if (a->alpha_min != b->alpha_min || a->alpha_sum != b->alpha_sum)
		return "alpha";
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) ? "the bytes read" : NULL;
}
