/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads with a queue and sequences each, on one connection, whose daemon may die
 * at any moment: they resume, repeat what was lost, and print what they
 * computed. All that is sent follows from a seed, so two runs print the same, or
 * something was lost, done twice, or read from an arena that was gone. "begun" is printed when all
 * are at work: before that a daemon that dies is no daemon.
 *
 *   survive SOCKET [threads [tokens [format]]]
 *
 * A control thread asks, forks and drops meanwhile, as an engine's scheduler does.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/sparq.h"

#define THREADS 16
#define LAYERS 2
#define HEADS 4
#define KV_HEADS 2
#define DIM 64
#define DEPTH 4 /* sequences of a thread, all in flight at once */
#define Q_FLOATS (HEADS * DIM)
#define KV_FLOATS (2 * KV_HEADS * DIM)
#define WAIT_NS 60000000000

struct place { /* of one entry, in the arena */
	_Alignas(64) float q[Q_FLOATS];
	float kv[KV_FLOATS];
	float o[Q_FLOATS];
};

struct worker {
	pthread_t thread;
	sparq *c;
	sparq_queue *queue;
	sparq_buf *buf;
	struct place *place; /* [DEPTH] */
	sparq_seq *seq[DEPTH];
	unsigned number, tokens, resumes;
	uint64_t sum[DEPTH];
};

static bool finished;    /* atomic */
static unsigned waiting; /* threads that have not done a token yet; atomic */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

static void draw(float *to, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++) {
		*state = *state * 6364136223846793005u + 1442695040888963407u;
		to[i] = (float)(int32_t)(*state >> 32) / 2147483648.0f;
	}
}

/* ---- a thread -------------------------------------------------------------------- */

static void fill(struct worker *w, unsigned i, unsigned token, unsigned layer, bool again)
{
	struct sparq_sqe *e = sparq_get_sqe(w->queue);
	struct place *p = &w->place[i];
	uint64_t at = sparq_buf_addr(w->buf) + i * sizeof(*p);
	uint64_t state = ((uint64_t)w->number * DEPTH + i) << 32 | token << 4 | layer;

	if (!e) /* ended: the submit below says so */
		return;
	draw(p->q, Q_FLOATS, &state);
	draw(p->kv, KV_FLOATS, &state);
	memset(p->o, 0xff, sizeof(p->o));
	sparq_prep_step(e, sparq_seq_id(w->seq[i]), (uint16_t)layer, at + offsetof(struct place, q),
			at + offsetof(struct place, kv), at + offsetof(struct place, o), token, 1,
			1);
	e->user_data = i;
	e->flags = again ? SPARQ_SQE_REPEAT : 0;
}

/* Takes what comes of `todo` entries, a bit each: which of them are still to be done. */
static unsigned take(struct worker *w, unsigned todo)
{
	while (todo) {
		struct sparq_cqe *cqe;
		int r = sparq_wait(w->queue, &cqe, WAIT_NS);

		if (r == -ENOTCONN)
			return todo;
		if (r == -EINTR)
			continue;
		if (r < 0)
			die("thread %u: wait: %s", w->number, strerror(-r));
		if (cqe->res == 1)
			todo &= ~(1u << cqe->user_data);
		else if (cqe->res != -ECONNRESET)
			die("thread %u: %s: %s", w->number, strerror(-cqe->res),
			    sparq_reason(cqe->aux >> 16));
		sparq_seen(w->queue, 1);
	}
	return 0;
}

static void resume(struct worker *w)
{
	struct sparq_cqe *cqe;
	int r;

	while (sparq_peek(w->queue, &cqe, 1) == 1)
		sparq_seen(w->queue, 1);
	r = sparq_queue_resume(w->queue, WAIT_NS);
	if (r < 0)
		die("thread %u: resume: %s", w->number, sparq_queue_error(w->queue));
	w->place = sparq_buf_data(w->buf, NULL);
	w->resumes++;
}

/* One layer of all sequences: entries that are lost are repeated, those that are done are not. */
static void step(struct worker *w, unsigned token, unsigned layer)
{
	const struct place *before = w->place;
	unsigned todo = (1u << DEPTH) - 1;
	bool again = false;

	while (todo) {
		unsigned left;

		for (unsigned i = 0; i < DEPTH; i++)
			if (todo & 1u << i)
				fill(w, i, token, layer, again);
		left = sparq_submit(w->queue, 0) < 0 ? todo : take(w, todo);
		/* What is done lies in the arena that it was done in. */
		for (unsigned i = 0; i < DEPTH; i++)
			for (unsigned b = 0; todo & ~left & 1u << i && b < sizeof(before->o); b++)
				w->sum[i] = (w->sum[i] ^ ((const uint8_t *)w->place[i].o)[b]) *
					    0x100000001b3;
		todo = left;
		again = true;
		if (todo)
			resume(w);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned token = 0; token < w->tokens; token++) {
		for (unsigned layer = 0; layer < LAYERS; layer++)
			step(w, token, layer);
		if (token == 0 && __atomic_sub_fetch(&waiting, 1, __ATOMIC_ACQ_REL) == 0) {
			puts("begun");
			fflush(stdout);
		}
	}
	w->queue = sparq_queue_close(w->queue);
	return NULL;
}

/* ---- beside them ------------------------------------------------------------------- */

/* NULL, unless a call failed. Once at least, however late it comes to run. */
static void *control(void *arg)
{
	sparq_cache *k = arg;

	do {
		sparq_seq *parent = NULL, *child = NULL;

		if (sparq_seq_create(k, NULL, &parent) < 0 || sparq_seq_fork(parent, 0, &child) < 0)
			return k;
		sparq_seq_unref(child);
		sparq_seq_unref(parent);
		usleep(500);
	} while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE));
	return NULL;
}

static void open_worker(struct worker *w, sparq *c, sparq_cache *k)
{
	char name[32];

	w->c = c;
	w->sum[0] = w->sum[1] = w->sum[2] = w->sum[3] = 0xcbf29ce484222325;
	if (sparq_queue_create(c, NULL, &w->queue) < 0 ||
	    sparq_buf_alloc(c, DEPTH * sizeof(struct place), &w->buf) < 0)
		die("thread %u: %s", w->number, sparq_error(c));
	w->place = sparq_buf_data(w->buf, NULL);
	for (unsigned i = 0; i < DEPTH; i++) {
		snprintf(name, sizeof(name), "s%u-%u", w->number, i);
		if (sparq_seq_create(k, i % 2 ? name : NULL, &w->seq[i]) < 0)
			die("sequence: %s", sparq_error(c));
	}
}

static void close_worker(struct worker *w)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		printf("thread %u sequence %u sum %016llx\n", w->number, i,
		       (unsigned long long)w->sum[i]);
		sparq_seq_drop(w->seq[i]);
	}
	sparq_buf_unref(w->buf);
}

static sparq *open_session(const char *socket, unsigned threads, const char *format,
			   sparq_cache **ret)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params p = {
		.size = sizeof(p),
		.queues = threads,
		.sq_entries = 8,
		.why = why,
		.reconnect_ms = 60000,
	};
	struct sparq_cache_params shape = {
		.size = sizeof(shape),
		.layers = LAYERS,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = format,
	};
	sparq *c;

	if (sparq_open(socket, &p, &c) < 0)
		die("open: %s", why);
	if (sparq_cache_create(c, &shape, ret) < 0)
		die("cache: %s", sparq_error(c));
	return c;
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 4, resumes = 0;
	static struct worker w[THREADS];
	pthread_t beside;
	void *failed;
	sparq_cache *k;
	sparq *c;

	if (argc < 2 || threads == 0 || threads > THREADS)
		return 64;
	c = open_session(argv[1], threads, argc > 4 ? argv[4] : "hier4", &k);
	for (unsigned i = 0; i < threads; i++) {
		w[i].number = i;
		w[i].tokens = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 400;
		open_worker(&w[i], c, k);
	}
	__atomic_store_n(&waiting, threads, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	pthread_create(&beside, NULL, control, k);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(w[i].thread, NULL);
	__atomic_store_n(&finished, true, __ATOMIC_RELEASE);
	pthread_join(beside, &failed);
	if (failed)
		die("control: %s", sparq_error(c));
	for (unsigned i = 0; i < threads; i++) {
		resumes += w[i].resumes;
		close_worker(&w[i]);
	}
	fprintf(stderr, "%u resumes\n", resumes);
	sparq_cache_unref(k);
	sparq_close(c);
	return 0;
}
