/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that populate. A page is cleared by the CPU that asks for it, so one
 * thread fills at the speed of one core, and from the wrong node over the link
 * between them.
 *
 * Each range has a cursor; its threads take slice after slice from it until the
 * range is full, one of them failed, or somebody wants an end. The caller
 * waits, tells how far it is, and joins them all: nothing runs on after the
 * return.
 */
#include "numa/fill.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <time.h>

#include "shm/base.h"

#define SLICE_BYTES (32 * MIB) /* some milliseconds: within it nobody is heard */
#define THREADS_MOST 32        /* for a range: memory is busy long before a node has more */
#define PROGRESS_NS 100000000l

/* All but what is const under `lock`, which is taken once a slice. */
struct filling {
	pthread_mutex_t lock;
	pthread_cond_t news;
	bool stop;
	size_t done, total;
	unsigned running;
};

struct crew {
	struct filling *f;
	struct fill_range *range;
	size_t next;
	unsigned n;
	pthread_t thread[THREADS_MOST];
};

/* Unlike fallocate this honours the binding, and unlike a touch it fails instead of killing. */
int fill_here(void *base, size_t bytes)
{
	for (;;) {
		if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
			return 0;
		if (errno == EFAULT) /* would have been SIGBUS */
			return -ENOMEM;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
}

/* The next slice; 0 bytes: there is none. */
static size_t take_slice(struct crew *c, char **ret)
{
	struct fill_range *r = c->range;
	size_t bytes = 0;

	pthread_mutex_lock(&c->f->lock);
	if (!c->f->stop && r->error == 0)
		bytes = MIN(MAX(r->page_bytes, SLICE_BYTES), r->bytes - c->next);
	*ret = (char *)r->base + c->next;
	c->next += bytes;
	pthread_mutex_unlock(&c->f->lock);
	return bytes;
}

static void put_slice(struct crew *c, size_t bytes, int error)
{
	pthread_mutex_lock(&c->f->lock);
	if (error == 0)
		c->f->done += bytes;
	else if (c->range->error == 0)
		c->range->error = error;
	pthread_mutex_unlock(&c->f->lock);
}

static void *run(void *arg)
{
	struct crew *c = arg;
	size_t bytes;
	char *at;

	while ((bytes = take_slice(c, &at)) > 0)
		put_slice(c, bytes, fill_here(at, bytes));
	pthread_mutex_lock(&c->f->lock);
	c->f->running--;
	pthread_cond_signal(&c->f->news);
	pthread_mutex_unlock(&c->f->lock);
	return NULL;
}

static unsigned crew_size(const struct fill_range *r)
{
	size_t slices = DIV_UP(r->bytes, MAX(r->page_bytes, SLICE_BYTES));
	unsigned cpus = r->cpus ? (unsigned)CPU_COUNT(r->cpus) : 1;

	return (unsigned)MIN(MIN(slices, THREADS_MOST), MAX(cpus, 1u));
}

/* As many threads as it may have; fewer are enough, none is an error of the range. */
static void start_crew(struct crew *c)
{
	const cpu_set_t *cpus = c->range->cpus;
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r == 0 && cpus)
		r = pthread_attr_setaffinity_np(&attr, sizeof(*cpus), cpus);
	for (unsigned n = crew_size(c->range); r == 0 && c->n < n; c->n++) {
		pthread_mutex_lock(&c->f->lock);
		c->f->running++;
		pthread_mutex_unlock(&c->f->lock);
		r = pthread_create(&c->thread[c->n], &attr, run, c);
		if (r == 0)
			continue;
		pthread_mutex_lock(&c->f->lock);
		c->f->running--;
		pthread_mutex_unlock(&c->f->lock);
		break;
	}
	pthread_attr_destroy(&attr);
	if (c->n == 0)
		put_slice(c, 0, -r);
}

/* Until no thread runs: what `progress` made of it. */
static int wait_for_all(struct filling *f, fill_progress *progress, void *arg)
{
	struct timespec until;
	unsigned running;
	int r = 0;

	do {
		size_t done;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PROGRESS_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_mutex_lock(&f->lock);
		while (f->running > 0 && pthread_cond_timedwait(&f->news, &f->lock, &until) == 0)
			;
		running = f->running;
		done = f->done;
		pthread_mutex_unlock(&f->lock);
		if (progress && r == 0)
			r = progress(arg, done, f->total);
		if (r != 0) {
			pthread_mutex_lock(&f->lock);
			f->stop = true;
			pthread_mutex_unlock(&f->lock);
		}
	} while (running > 0);
	return r;
}

static int filling_init(struct filling *f)
{
	pthread_condattr_t attr;
	int r = pthread_condattr_init(&attr);

	if (r != 0)
		return -r;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = pthread_cond_init(&f->news, &attr);
	pthread_condattr_destroy(&attr);
	return r ? -r : -pthread_mutex_init(&f->lock, NULL);
}

int fill_ranges(struct fill_range *ranges, unsigned n, fill_progress *progress, void *arg)
{
	FREE_MEMORY struct crew *crews = calloc(MAX(n, 1u), sizeof(*crews));
	struct filling f = { .stop = false };
	int r = crews ? filling_init(&f) : -ENOMEM;

	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++) {
		crews[i] = (struct crew){ .f = &f, .range = &ranges[i] };
		ranges[i].error = 0;
		f.total += ranges[i].bytes;
	}
	for (unsigned i = 0; i < n; i++)
		start_crew(&crews[i]);
	r = wait_for_all(&f, progress, arg);
	for (unsigned i = 0; i < n; i++)
		for (unsigned t = 0; t < crews[i].n; t++)
			pthread_join(crews[i].thread[t], NULL);
	pthread_cond_destroy(&f.news);
	pthread_mutex_destroy(&f.lock);
	return r;
}
