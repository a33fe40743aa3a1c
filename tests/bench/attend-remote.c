/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step of `sparq-bench attend` through a daemon: a private one of as many
 * workers as the crew has threads, equal sequences, one entry a step.
 *
 * The client writes its queries into the arena before each step, as a program
 * does, so that the worker finds them where a program leaves them: in another
 * core's cache. The clock begins with the entry and ends with its completion.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"
#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/bench.h"
#include "tests/bench/daemon.h"

#define YIELD_PEEKS 1024u

struct bench_remote {
	const struct bench_rows *rows;
	struct bench_daemon daemon;
	sparq *connection;
	sparq_cache *cache;
	sparq_seq **seq; /* [rows->n] */
	sparq_queue *queue;
	sparq_buf *buf;
	uint64_t addr; /* of q; o follows, then rows */
	char *data;
	size_t q_bytes, kv_bytes;
	uint16_t *q;         /* BENCH_QUERIES steps of them */
	uint64_t bytes_read; /* of the last step */
};

/* What libsparq said of its last error, or the error. */
static int failed(const struct bench_remote *r, int error, const char *what)
{
	const char *why = r->connection ? sparq_error(r->connection) : "";

	fprintf(stderr, "sparq-bench: %s: %s\n", what, *why ? why : strerror(-error));
	return error;
}

/* A client that has nothing else to do polls; one that shares its CPUs with workers sleeps. */
static int wait_or_poll(struct bench_remote *r, struct sparq_cqe **ret)
{
	int e = 0;

	if (!r->rows->shape.options->poll)
		return sparq_wait(r->queue, ret, INT64_C(60000000000));
	for (unsigned i = 1; e == 0; i++) {
		e = sparq_peek(r->queue, ret, 1);
		if (i % YIELD_PEEKS == 0)
			sched_yield(); /* a worker of the same real-time priority may wait */
	}
	return e;
}

static int wait_for_one(struct bench_remote *r, const char *what)
{
	struct sparq_cqe *cqe;
	int e = wait_or_poll(r, &cqe);

	if (e < 0)
		return failed(r, e, what);
	e = cqe->res;
	r->bytes_read = cqe->bytes_read;
	if (e < 0)
		fprintf(stderr, "sparq-bench: %s: %s\n", what, sparq_reason(cqe->aux >> 16));
	sparq_seen(r->queue, 1);
	return e < 0 ? e : 0;
}

/* ---- start ---------------------------------------------------------------------- */

static int start_daemon(struct bench_remote *r, unsigned workers)
{
	const struct bench_shape *shape = &r->rows->shape;
	const char *huge = shape->pages == RIG_HUGE ? "huge_pages=yes" : "huge_pages=no";
	size_t pool = r->rows->n * r->rows->rig[0].used;
	const char *more[] = { "--set", huge, "--isa", kv_isa_name(), NULL };
	char bytes[32], n[16];
	int e;

	snprintf(bytes, sizeof(bytes), "%zuM", (pool + pool / 8) / MIB + 64);
	snprintf(n, sizeof(n), "%u", workers);
	e = bench_daemon_start(&r->daemon, shape->options->daemon, bytes, n, more);
	return e < 0 ? failed(r, e, "cannot start a daemon") : 0;
}

static int open_cache(struct bench_remote *r)
{
	const struct bench_rows *b = r->rows;
	char options[192];
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = 1,
		.heads = b->space.heads,
		.kv_heads = b->space.kv_heads,
		.k_dim = b->space.k_dim,
		.v_dim = b->space.v_dim,
		.dtype = SPARQ_DTYPE_F16,
		.k_format = b->shape.format.k,
		.v_format = b->shape.format.v,
		.policy = b->shape.policy,
		.options = options,
	};

	snprintf(options, sizeof(options), "sinks=%u rollback=%u%s", b->space.sinks,
		 b->rig[0].rollback, b->policy_options);
	return sparq_cache_create(r->connection, &params, &r->cache);
}

static int open_session(struct bench_remote *r)
{
	const struct kv_space *s = &r->rows->space;
	size_t head_bytes = s->k_dim * kv_dtype_bytes(s->dtype);
	struct sparq_open_params params = { .size = sizeof(params) };
	struct sparq_queue_params queue = { .size = sizeof(queue),
					    .spin_us = r->rows->shape.options->spin_us };
	int e;

	r->q_bytes = r->rows->shape.options->queries * s->heads * head_bytes;
	r->kv_bytes = BENCH_BLOCK_ROWS * 2 * s->kv_heads * head_bytes;
	params.arena_bytes = 2 * r->q_bytes + r->kv_bytes + MIB;
	e = sparq_open(r->daemon.socket, &params, &r->connection);
	if (e >= 0)
		e = sparq_queue_create(r->connection, &queue, &r->queue);
	if (e >= 0)
		e = sparq_buf_alloc(r->connection, 2 * r->q_bytes + r->kv_bytes, &r->buf);
	if (e < 0)
		return e;
	r->addr = sparq_buf_addr(r->buf);
	r->data = sparq_buf_data(r->buf, NULL);
	return open_cache(r);
}

static int append_block(struct bench_remote *r, uint32_t row, uint32_t n)
{
	int e = 0;

	for (unsigned i = 0; i < r->rows->n && e == 0; i++) {
		sparq_prep_append(sparq_get_sqe(r->queue), sparq_seq_id(r->seq[i]), 0,
				  r->addr + 2 * r->q_bytes, row, (uint16_t)n);
		e = sparq_submit(r->queue, 0);
		e = e < 0 ? failed(r, e, "append") : wait_for_one(r, "append");
	}
	return e;
}

static int fill_sequences(struct bench_remote *r)
{
	uint32_t rows = r->rows->shape.rows;
	struct bench_noise noise;
	int e = bench_noise_init(&noise, &r->rows->space, BENCH_BLOCK_ROWS);

	for (uint32_t row = 0; row < rows && e == 0; row += BENCH_BLOCK_ROWS) {
		uint32_t n = MIN(BENCH_BLOCK_ROWS, rows - row);

		bench_noise_next(&noise, n);
		memcpy(r->data + 2 * r->q_bytes, noise.packed, r->kv_bytes / BENCH_BLOCK_ROWS * n);
		e = append_block(r, row, n);
	}
	bench_noise_deinit(&noise);
	return e;
}

static int start(struct bench_remote *r, unsigned workers)
{
	size_t floats;
	int e = start_daemon(r, workers);

	if (e < 0)
		return e;
	e = open_session(r);
	for (unsigned i = 0; i < r->rows->n && e >= 0; i++)
		e = sparq_seq_create(r->cache, NULL, &r->seq[i]);
	if (e < 0)
		return failed(r, e, "a session with the daemon");
	floats = BENCH_QUERIES * r->q_bytes / sizeof(*r->q);
	r->q = malloc(floats * sizeof(*r->q));
	if (!r->q)
		return -ENOMEM;
	kv_from_f32(KV_F16, r->rows->q, r->q, floats);
	return fill_sequences(r);
}

int bench_remote_start(const struct bench_rows *rows, unsigned workers, struct bench_remote **ret)
{
	struct bench_remote *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	*r = (struct bench_remote){ .rows = rows, .daemon = BENCH_DAEMON_NULL };
	r->seq = calloc(rows->n, sizeof(*r->seq));
	e = r->seq ? start(r, workers) : -ENOMEM;
	if (e < 0)
		bench_remote_stop(r);
	else
		*ret = r;
	return e < 0 ? e : 0;
}

void bench_remote_stop(struct bench_remote *r)
{
	for (unsigned i = 0; r->seq && i < r->rows->n; i++)
		sparq_seq_unref(r->seq[i]);
	sparq_buf_unref(r->buf);
	sparq_cache_unref(r->cache);
	sparq_queue_close(r->queue);
	sparq_close(r->connection);
	bench_daemon_stop(&r->daemon);
	free(r->seq);
	free(r->q);
	free(r);
}

/* ---- step ------------------------------------------------------------------------- */

int bench_remote_step(struct bench_remote *r, unsigned turn, double *ret_ms)
{
	const struct attend_options *o = r->rows->shape.options;
	uint64_t id = sparq_seq_id(r->seq[turn % r->rows->n]);
	struct sparq_sqe *e;
	double begin;
	int error;

	memcpy(r->data, (char *)r->q + turn % BENCH_QUERIES * r->q_bytes, r->q_bytes);
	begin = bench_now_ns();
	e = sparq_get_sqe(r->queue);
	sparq_prep_attend(e, id, 0, r->addr, r->addr + r->q_bytes, r->rows->shape.rows,
			  (uint16_t)o->queries);
	e->flags |= r->rows->shape.format.level ? SPARQ_SQE_DRAFT : 0;
	error = sparq_submit(r->queue, 0);
	error = error < 0 ? failed(r, error, "a step") : wait_for_one(r, "a step");
	*ret_ms = (bench_now_ns() - begin) / 1e6;
	return error;
}

int bench_remote_compare(const struct bench_remote *r, const struct bench_step *s)
{
	const struct kv_space *space = &r->rows->space;
	uint32_t n = space->group * space->v_dim, queries = r->rows->shape.options->queries;
	const uint16_t *o = (const uint16_t *)(const void *)(r->data + r->q_bytes);
	uint64_t planes[KV_PLANES];
	uint16_t *here = malloc(n * sizeof(*here));
	bool equal = here && bench_step_bytes(s, planes) == r->bytes_read;

	for (uint32_t h = 0; h < space->kv_heads && equal; h++)
		for (uint32_t i = 0; i < queries && equal; i++) {
			kv_from_f32(KV_F16, s->exec[h].result.y + (size_t)i * n, here, n);
			equal = !memcmp(here, o + ((size_t)i * space->kv_heads + h) * n,
					n * sizeof(*here));
		}
	free(here);
	return equal ? 0 : -EBADMSG;
}
