/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private daemon that spills a parked sequence after a second and loads it when
 * it is attached to, and beside it a session that steps without end.
 *
 * A step belongs to what went on when it began, if the same went on when it ended.
 * A thread asks the daemon what goes on every few milliseconds, all the time, so that
 * the asking disturbs all steps alike.
 */
#include "tests/bench/spill.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "client/sparq.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/daemon.h"

enum { LAYERS = 32, HEADS = 32, KV_HEADS = 8, DIM = 128, BLOCK = 256 };
#define ROW_BYTES (2u * KV_HEADS * DIM * 2u) /* f16, of a layer */
#define Q_BYTES (HEADS * DIM * 2u)
#define ASK_US 5000
#define PATIENCE_NS 120e9
#define COLD "cold"

struct totals {
	uint64_t n, bytes, us;
};

struct spill_remote {
	const struct spill_options *o;
	struct bench_daemon daemon;
	sparq *c;
	sparq_cache *hot_cache, *cold_cache;
	sparq_seq *hot;
	sparq_queue *queue;
	sparq_buf *buf;
	uint64_t addr; /* rows; queries and outputs behind them */

	pthread_t asking;
	bool asks;
	uint32_t stop;    /* atomic, as what follows */
	uint32_t goes_on; /* SPILL_* */
	struct totals out, in;
	struct totals seen_out, seen_in; /* not atomic: up to here all was measured */
	uint32_t attached;               /* 1: done; 2: failed */
};

static int failed(const struct spill_remote *r, int error, const char *what)
{
	const char *why = r->c ? sparq_error(r->c) : "";

	fprintf(stderr, "sparq-bench: %s: %s\n", what, *why ? why : strerror(-error));
	return error;
}

/* ---- what goes on ------------------------------------------------------------------- */

static uint64_t number(json_object *o, const char *key)
{
	json_object *n = NULL;

	return json_object_object_get_ex(o, key, &n) ? (uint64_t)json_object_get_int64(n) : 0;
}

static void take_totals(json_object *o, const char *word, struct totals *ret)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_bytes_total", word);
	store_relaxed(&ret->bytes, number(o, key));
	snprintf(key, sizeof(key), "%s_microseconds_total", word);
	store_relaxed(&ret->us, number(o, key));
	snprintf(key, sizeof(key), "%s_total", word);
	/* Whoever sees the count sees what it took. */
	store_release(&ret->n, number(o, key));
}

static uint32_t what_goes_on(json_object *spill)
{
	if (number(spill, "loading"))
		return SPILL_BESIDE_IN;
	return number(spill, "spilling") ? SPILL_BESIDE_OUT : SPILL_ALONE;
}

static void ask(struct spill_remote *r)
{
	json_object *answer, *status = NULL, *spill = NULL;
	char *text = NULL;

	if (sparq_control(r->daemon.control, "io.sparqd.Control.Status", NULL, &text) < 0)
		return;
	answer = json_tokener_parse(text);
	free(text);
	if (answer && json_object_object_get_ex(answer, "parameters", &status) &&
	    json_object_object_get_ex(status, "spill", &spill)) {
		store_relaxed(&r->goes_on, what_goes_on(spill));
		take_totals(spill, "spilled", &r->out);
		take_totals(spill, "loaded", &r->in);
	}
	json_object_put(answer);
}

static void *keep_asking(void *arg)
{
	struct spill_remote *r = arg;

	while (!load_relaxed(&r->stop)) {
		ask(r);
		usleep(ASK_US);
	}
	return NULL;
}

/* ---- sequences ------------------------------------------------------------------------ */

static int wait_for_one(struct spill_remote *r, const char *what)
{
	struct sparq_cqe *cqe;
	int e = sparq_wait(r->queue, &cqe, INT64_C(60000000000));

	if (e < 0)
		return failed(r, e, what);
	e = cqe->res;
	if (e < 0)
		fprintf(stderr, "sparq-bench: %s: %s\n", what, sparq_reason(cqe->aux >> 16));
	sparq_seen(r->queue, 1);
	return MIN(e, 0);
}

static int make_cache(struct spill_remote *r, const char *name, uint32_t layers, sparq_cache **ret)
{
	bool cold = !strcmp(name, COLD);
	const struct sparq_cache_params params = {
		.size = sizeof(params),
		.name = name,
		.layers = layers,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F16,
		.k_format = "f16",
		.v_format = "f16",
		.policy = "dense",
		.options = cold ? "on_disconnect=park" : "on_disconnect=drop",
	};

	return sparq_cache_create(r->c, &params, ret);
}

static int fill(struct spill_remote *r, sparq_seq *s, uint32_t layers, uint32_t rows)
{
	int e = 0;

	for (uint32_t row = 0; row < rows && e == 0; row += BLOCK)
		for (uint32_t layer = 0; layer < layers && e == 0; layer++) {
			sparq_prep_append(sparq_get_sqe(r->queue), sparq_seq_id(s), layer, r->addr,
					  row, (uint16_t)MIN(BLOCK, rows - row));
			e = sparq_submit(r->queue, 0);
			e = e < 0 ? failed(r, e, "append") : wait_for_one(r, "append");
		}
	return e;
}

static uint32_t cold_rows(const struct spill_options *o)
{
	return (uint32_t)(o->mebibytes * MIB / (LAYERS * ROW_BYTES));
}

static int open_session(struct spill_remote *r)
{
	size_t bytes = BLOCK * ROW_BYTES + 2 * Q_BYTES;
	struct sparq_open_params params = { .size = sizeof(params), .arena_bytes = bytes + MIB };
	struct sparq_queue_params queue = { .size = sizeof(queue) };
	uint16_t *row;
	int e = sparq_open(r->daemon.socket, &params, &r->c);

	if (e >= 0)
		e = sparq_queue_create(r->c, &queue, &r->queue);
	if (e >= 0)
		e = sparq_buf_alloc(r->c, bytes, &r->buf);
	if (e < 0)
		return e;
	r->addr = sparq_buf_addr(r->buf);
	row = sparq_buf_data(r->buf, NULL);
	for (size_t i = 0; i < bytes / 2; i++) /* from 1 to 2 */
		row[i] = (uint16_t)(0x3c00 | (i * 40503 & 0x3ff));
	e = make_cache(r, "hot", 1, &r->hot_cache);
	if (e >= 0)
		e = sparq_seq_create(r->hot_cache, NULL, &r->hot);
	return e < 0 ? e : fill(r, r->hot, 1, r->o->rows);
}

/* The connection first: what is let go of after it, the daemon parks or drops by itself. */
static void close_session(struct spill_remote *r)
{
	sparq_queue_close(r->queue);
	sparq_close(r->c);
	sparq_seq_unref(r->hot);
	sparq_buf_unref(r->buf);
	sparq_cache_unref(r->hot_cache);
	sparq_cache_unref(r->cold_cache);
}

/* The one that is spilled: left by a session of its own, as its owner would. */
static int leave_cold(struct spill_remote *r)
{
	struct spill_remote owner = { .o = r->o, .daemon = r->daemon };
	sparq_seq *s = NULL;
	int e;

	e = open_session(&owner);
	if (e >= 0)
		e = make_cache(&owner, COLD, LAYERS, &owner.cold_cache);
	if (e >= 0)
		e = sparq_seq_create(owner.cold_cache, COLD, &s);
	if (e >= 0)
		e = fill(&owner, s, LAYERS, cold_rows(r->o));
	if (e < 0)
		failed(&owner, e, "the sequence to spill");
	close_session(&owner);
	sparq_seq_unref(s);
	return e;
}

/* ---- start and stop --------------------------------------------------------------------- */

static int start_daemon(struct spill_remote *r)
{
	char pool[32], dir[200], depth[32];
	const char *more[] = { "--set", "huge_pages=no", "--set",          dir, "--set",
			       depth,   "--set",         "spill_idle_s=1", NULL };
	int e;

	snprintf(pool, sizeof(pool), "%uM", r->o->mebibytes + r->o->mebibytes / 8 + 256);
	snprintf(dir, sizeof(dir), "spill_dir=%s/sparqd", r->o->directory);
	snprintf(depth, sizeof(depth), "spill_depth=%u", r->o->depth);
	e = bench_daemon_start(&r->daemon, r->o->daemon, pool, "1", more);
	return e < 0 ? failed(r, e, "cannot start a daemon") : 0;
}

static int start(struct spill_remote *r)
{
	int e = start_daemon(r);

	if (e == 0)
		e = leave_cold(r);
	if (e < 0)
		return e;
	e = open_session(r);
	if (e >= 0)
		e = make_cache(r, COLD, LAYERS, &r->cold_cache);
	if (e < 0)
		return failed(r, e, "a session with the daemon");
	ask(r);
	e = pthread_create(&r->asking, NULL, keep_asking, r);
	r->asks = e == 0;
	return -e;
}

int spill_remote_start(const struct spill_options *o, struct spill_remote **ret)
{
	struct spill_remote *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	*r = (struct spill_remote){ .o = o, .daemon = BENCH_DAEMON_NULL };
	e = start(r);
	if (e < 0)
		spill_remote_stop(r);
	else
		*ret = r;
	return e;
}

void spill_remote_stop(struct spill_remote *r)
{
	store_relaxed(&r->stop, 1);
	if (r->asks)
		pthread_join(r->asking, NULL);
	close_session(r);
	bench_daemon_stop(&r->daemon);
	free(r);
}

/* ---- a round ------------------------------------------------------------------------------ */

static int keep_sample(struct spill_steps *s, double us)
{
	unsigned room = MAX(2 * s->room, 4096u);
	double *more;

	if (s->n == s->room) {
		more = realloc(s->us, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		s->us = more;
		s->room = room;
	}
	s->us[s->n++] = us;
	return 0;
}

static int step(struct spill_remote *r, struct spill_figures *f)
{
	uint64_t q = r->addr + BLOCK * ROW_BYTES;
	uint32_t before = load_relaxed(&r->goes_on);
	double begin = bench_now_ns();
	int e;

	sparq_prep_attend(sparq_get_sqe(r->queue), sparq_seq_id(r->hot), 0, q, q + Q_BYTES,
			  r->o->rows, 1);
	e = sparq_submit(r->queue, 0);
	e = e < 0 ? failed(r, e, "a step") : wait_for_one(r, "a step");
	if (e < 0 || load_relaxed(&r->goes_on) != before)
		return e;
	return keep_sample(&f->steps[before], (bench_now_ns() - begin) / 1e3);
}

/* Steps until there is one more, and what it took. */
static int step_until(struct spill_remote *r, struct spill_figures *f, const struct totals *t,
		      struct totals *before, double *ret)
{
	struct totals now;
	double until = bench_now_ns() + PATIENCE_NS;
	int e = 0;

	while (e == 0 && load_acquire(&t->n) == before->n) {
		e = step(r, f);
		if (bench_now_ns() > until || load_relaxed(&r->attached) == 2)
			return -ETIME;
	}
	if (e < 0)
		return e;
	now = (struct totals){ load_acquire(&t->n), load_relaxed(&t->bytes), load_relaxed(&t->us) };
	f->file_bytes = (now.bytes - before->bytes) / (now.n - before->n);
	*ret = (double)(now.bytes - before->bytes) / 1e3 / (double)(now.us - before->us);
	*before = now;
	return 0;
}

/* As its owner comes back: on a connection of its own, which waits. */
static void *attach(void *arg)
{
	struct spill_remote *r = arg;
	struct spill_remote owner = { .o = r->o, .daemon = r->daemon };
	struct sparq_open_params params = { .size = sizeof(params) };
	sparq_seq *s = NULL;
	int e = sparq_open(r->daemon.socket, &params, &owner.c);

	if (e >= 0)
		e = make_cache(&owner, COLD, LAYERS, &owner.cold_cache);
	if (e >= 0)
		e = sparq_seq_attach(owner.cold_cache, COLD, &s);
	if (e < 0)
		failed(&owner, e, "attach");
	store_release(&r->attached, e < 0 ? 2 : 1);
	close_session(&owner);
	sparq_seq_unref(s);
	return NULL;
}

int spill_remote_out(struct spill_remote *r, struct spill_figures *f, double *ret)
{
	double quiet = bench_now_ns() + r->o->seconds * 1e9;
	int e = step_until(r, f, &r->out, &r->seen_out, ret);

	/* Quiet before it, for a second at least, and after it. */
	while (e == 0 && bench_now_ns() < quiet)
		e = step(r, f);
	return e;
}

int spill_remote_in(struct spill_remote *r, struct spill_figures *f, double *ret)
{
	pthread_t thread;
	int e;

	store_relaxed(&r->attached, 0);
	e = -pthread_create(&thread, NULL, attach, r);
	if (e < 0)
		return e;
	e = step_until(r, f, &r->in, &r->seen_in, ret);
	pthread_join(thread, NULL);
	return e;
}
