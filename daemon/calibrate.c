/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming through the pool: see calibrate.h. */
#include "daemon/calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "numa/pin.h"
#include "numa/sysfs.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define BLOCK_BYTES (256 * KIB) /* between two looks at the clock */
#define REGION_MAX (4 * GIB)    /* more of it would be no other memory */
/* Of less than so many times the caches a part would still be there from the pass before. */
#define CACHES_LEAST 2u

struct calibration {
	pthread_t thread;
	uint32_t cancel; /* atomic */
	uint32_t n_done; /* atomic: result[] below it is whole */
	unsigned n;
	struct calibrate_node *node;
	struct calibrated *result;
};

struct reader {
	pthread_t thread;
	struct calibration *of;
	uint32_t *go; /* atomic: all start at once */
	int cpu;
	const uint8_t *memory;
	size_t bytes;
	uint64_t read_bytes, ns;
	uint64_t sink; /* so that nothing of it can be left out */
};

/* ---- one thread -------------------------------------------------------------- */

typedef uint64_t line __attribute__((vector_size(64), aligned(64), may_alias));

/* Others may write there meanwhile, and what is read means nothing. */
__attribute__((no_sanitize("thread"))) static uint64_t read_block(const uint8_t *memory)
{
	const line *at = (const line *)(const void *)memory;
	line a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
	uint64_t sum = 0;

	for (size_t i = 0; i < BLOCK_BYTES / sizeof(line); i += 4) {
		a ^= at[i];
		b ^= at[i + 1];
		c ^= at[i + 2];
		d ^= at[i + 3];
	}
	a ^= b ^ c ^ d;
	for (unsigned i = 0; i < sizeof(line) / sizeof(uint64_t); i++)
		sum ^= a[i];
	return sum;
}

static void *reader_thread(void *arg)
{
	struct reader *r = arg;
	uint64_t begin, now;
	size_t at = 0;

	if (r->cpu >= 0)
		pin_to_cpu(r->cpu); /* where it cannot, it reads from where it is */
	while (!load_acquire(r->go))
		sched_yield();
	begin = now = (uint64_t)clock_now_ns();
	while (now - begin < CALIBRATE_MS * 1000000ull && !load_relaxed(&r->of->cancel)) {
		r->sink ^= read_block(r->memory + at);
		r->read_bytes += BLOCK_BYTES;
		at = at + 2 * BLOCK_BYTES <= r->bytes ? at + BLOCK_BYTES : 0;
		now = (uint64_t)clock_now_ns();
	}
	r->ns = now - begin;
	return NULL;
}

/* ---- one node ------------------------------------------------------------------ */

/* Starts the node's readers, each with a part of its memory; how many. */
static unsigned start_readers(struct calibration *c, const struct calibrate_node *n,
			      struct reader *reader, uint32_t *go)
{
	size_t part = MIN(n->bytes, REGION_MAX) / n->n_threads / BLOCK_BYTES * BLOCK_BYTES;
	unsigned i;

	for (i = 0; i < n->n_threads; i++) {
		reader[i] = (struct reader){
			.of = c,
			.go = go,
			.cpu = n->cpu[i],
			.memory = (const uint8_t *)n->memory + i * part,
			.bytes = part,
		};
		if (pthread_create(&reader[i].thread, NULL, reader_thread, &reader[i]) != 0)
			break;
	}
	return i;
}

static void measure(struct calibration *c, const struct calibrate_node *n, struct calibrated *ret)
{
	struct reader reader[CALIBRATE_MAX_THREADS];
	uint32_t go = 0;
	unsigned n_started = start_readers(c, n, reader, &go);
	double rate = 0;

	/* Each reader was set up before it can see this. */
	store_release(&go, 1);
	for (unsigned i = 0; i < n_started; i++) {
		pthread_join(reader[i].thread, NULL);
		if (reader[i].ns)
			rate += (double)reader[i].read_bytes / (double)reader[i].ns * 1e9;
	}
	ret->n_threads = n_started;
	if (n_started < n->n_threads)
		snprintf(ret->why, sizeof(ret->why), "only %u of %u threads could be started",
			 n_started, n->n_threads);
	else if (load_relaxed(&c->cancel))
		snprintf(ret->why, sizeof(ret->why), "it was cut short");
	else
		ret->bytes_s = (uint64_t)rate;
	ret->taken_s = (uint64_t)time(NULL);
}

/* A figure that would be of something else is none. */
static bool can_measure(const struct calibrate_node *n, struct calibrated *ret)
{
	if (n->n_threads == 0)
		snprintf(ret->why, sizeof(ret->why), "no worker runs on this node");
	else if (n->bytes < n->n_threads * BLOCK_BYTES)
		snprintf(ret->why, sizeof(ret->why),
			 "its pool of %zu KiB is too small for %u threads: make pool_bytes larger",
			 n->bytes / KIB, n->n_threads);
	else if (MIN(n->bytes, REGION_MAX) < CACHES_LEAST * n->cache_bytes)
		snprintf(ret->why, sizeof(ret->why),
			 "its pool of %zu MiB would be read from the caches, of %zu MiB: make "
			 "pool_bytes larger",
			 n->bytes / MIB, n->cache_bytes / MIB);
	return !ret->why[0];
}

static void *calibrate_thread(void *arg)
{
	struct calibration *c = arg;

	for (unsigned i = 0; i < c->n; i++) {
		struct calibrated *result = &c->result[i];

		if (can_measure(&c->node[i], result))
			measure(c, &c->node[i], result);
		/* The result is whole before it counts. */
		store_release(&c->n_done, i + 1);
	}
	return NULL;
}

/* ---- all of them ----------------------------------------------------------------- */

int calibrate_start(const struct calibrate_node *node, unsigned n, struct calibration **ret)
{
	struct calibration *c = calloc(1, sizeof(*c));
	int r = ENOMEM;

	if (!c)
		return -ENOMEM;
	c->n = n;
	c->node = calloc(n, sizeof(*node));
	c->result = calloc(n, sizeof(*c->result));
	if (c->node && c->result) {
		memcpy(c->node, node, n * sizeof(*node));
		r = pthread_create(&c->thread, NULL, calibrate_thread, c);
	}
	if (r) {
		free(c->node);
		free(c->result);
		free(c);
		return -r;
	}
	pthread_setname_np(c->thread, "calibrate");
	*ret = c;
	return 0;
}

struct calibration *calibrate_free(struct calibration *c)
{
	if (!c)
		return NULL;
	/* Orders nothing: who sees it late reads on for 200 ms at most. */
	store_relaxed(&c->cancel, 1);
	pthread_join(c->thread, NULL);
	free(c->node);
	free(c->result);
	free(c);
	return NULL;
}

unsigned calibrate_done(const struct calibration *c, unsigned *ret_of)
{
	*ret_of = c ? c->n : 0;
	return c ? load_acquire(&c->n_done) : 0;
}

bool calibrate_get(const struct calibration *c, unsigned node, struct calibrated *ret)
{
	unsigned of;

	if (node >= calibrate_done(c, &of))
		return false;
	*ret = c->result[node];
	return true;
}

/* ---- caches ------------------------------------------------------------------------ */

/* Is it the first CPU of those that share its cache? */
static bool is_first(int dir, const int *cpu, unsigned i)
{
	cpu_set_t shared;
	char path[96];

	snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list",
		 cpu[i]);
	if (sysfs_list(dir, path, &shared) < 0)
		return false;
	for (unsigned k = 0; k < i; k++)
		if (cpu[k] >= 0 && CPU_ISSET((size_t)cpu[k], &shared))
			return false;
	return true;
}

size_t calibrate_cache_bytes(const char *root, const int *cpu, unsigned n)
{
	CLOSE_FD int dir = open(root, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	size_t bytes = 0;

	for (unsigned i = 0; dir >= 0 && i < n; i++) {
		char path[96];
		uint64_t kib;

		if (cpu[i] < 0 || !is_first(dir, cpu, i))
			continue;
		snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/cache/index3/size",
			 cpu[i]);
		if (sysfs_number(dir, path, &kib) == 0) /* "32768K" */
			bytes += kib * KIB;
	}
	return bytes;
}
