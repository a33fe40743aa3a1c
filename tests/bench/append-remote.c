/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The appends of `sparq-bench append` through a daemon of one worker: the client
 * copies rows into the arena, submits one entry and waits for it, until the
 * sequence is long; then it is cut to nothing and grows again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"
#include "shm/base.h"
#include "tests/bench/append.h"
#include "tests/bench/bench.h"
#include "tests/bench/daemon.h"

#define MOST_ROUNDS 64u

struct remote {
	const struct append_rows *rows;
	struct bench_daemon daemon;
	sparq *connection;
	sparq_cache *cache;
	sparq_seq *seq;
	sparq_queue *queue;
	sparq_buf *buf;
};

static void remote_deinit(struct remote *r)
{
	sparq_seq_unref(r->seq);
	sparq_buf_unref(r->buf);
	sparq_cache_unref(r->cache);
	sparq_queue_close(r->queue);
	sparq_close(r->connection);
	bench_daemon_stop(&r->daemon);
}

static int open_session(struct remote *r)
{
	const struct kv_space *s = r->rows->space;
	size_t bytes = KV_MAX_ENTRY_ROWS * r->rows->row_bytes;
	struct sparq_open_params open = { .size = sizeof(open), .arena_bytes = bytes + MIB };
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = 1,
		.heads = s->heads,
		.kv_heads = s->kv_heads,
		.k_dim = s->k_dim,
		.v_dim = s->v_dim,
		.dtype = SPARQ_DTYPE_F16,
		.k_format = r->rows->k,
		.v_format = r->rows->v,
		.policy = "dense",
	};
	int e = sparq_open(r->daemon.socket, &open, &r->connection);

	if (e >= 0)
		e = sparq_cache_create(r->connection, &params, &r->cache);
	if (e >= 0)
		e = sparq_seq_create(r->cache, NULL, &r->seq);
	if (e >= 0)
		e = sparq_queue_create(r->connection, NULL, &r->queue);
	if (e >= 0)
		e = sparq_buf_alloc(r->connection, bytes, &r->buf);
	return e;
}

static int append(struct remote *r, uint32_t row, uint32_t n)
{
	struct sparq_cqe *cqe;
	int e;

	memcpy(sparq_buf_data(r->buf, NULL), append_block(r->rows, row), n * r->rows->row_bytes);
	sparq_prep_append(sparq_get_sqe(r->queue), sparq_seq_id(r->seq), 0, sparq_buf_addr(r->buf),
			  row, (uint16_t)n);
	e = sparq_submit(r->queue, 0);
	if (e >= 0)
		e = sparq_wait(r->queue, &cqe, INT64_C(60000000000));
	if (e < 0)
		return e;
	e = cqe->res < 0 ? cqe->res : 0;
	sparq_seen(r->queue, 1);
	return e;
}

static int grow(struct remote *r, uint32_t entry, double *ret_ns)
{
	uint32_t row = 0;
	double begin;
	int e = sparq_seq_truncate(r->seq, 0);

	begin = bench_now_ns();
	for (; row + entry <= r->rows->n && e == 0; row += entry)
		e = append(r, row, entry);
	*ret_ns = (bench_now_ns() - begin) / row;
	return e;
}

int append_remote(const struct append_options *o, const struct append_rows *rows, uint32_t entry,
		  double *ret_ns)
{
	CLEANUP(remote_deinit) struct remote r = { .rows = rows, .daemon = BENCH_DAEMON_NULL };
	const char *more[] = { "--isa", kv_isa_name(), "--set", "huge_pages=no", NULL };
	double sample[MOST_ROUNDS], begin;
	char pool[32];
	unsigned n = 0;
	int e;

	snprintf(pool, sizeof(pool), "%zuM",
		 64 + 2 * rows->n * MAX(kv_row_bytes(rows->space), rows->row_bytes) / MIB);
	e = bench_daemon_start(&r.daemon, o->daemon, pool, "1", more);
	if (e == 0)
		e = open_session(&r);
	if (e == 0)
		e = grow(&r, entry, &sample[0]); /* pages */
	begin = bench_now_ns();
	while (e == 0 && n < MOST_ROUNDS && (n < 3 || bench_now_ns() - begin < o->seconds * 1e9))
		e = grow(&r, entry, &sample[n++]);
	if (e < 0)
		fprintf(stderr, "sparq-bench: append: %s\n",
			r.connection ? sparq_error(r.connection) : "cannot start a daemon");
	else
		*ret_ns = bench_median(sample, n);
	return e < 0 ? e : 0;
}
