/* SPDX-License-Identifier: Apache-2.0 */
/* Forks of `sparq-bench fork` by a control call to a daemon, whose sequence has real rows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"
#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/daemon.h"
#include "tests/bench/fork.h"

#define ROWS 512u /* of an entry */

struct remote {
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

static size_t entry_bytes(const struct fork_options *o)
{
	return (size_t)ROWS * o->kv_heads * o->dim * 2 * 2;
}

static int open_session(struct remote *r, const struct fork_options *o)
{
	struct sparq_msg_cache_create m = fork_request(o);
	struct sparq_open_params open = { .size = sizeof(open),
					  .arena_bytes = entry_bytes(o) + MIB };
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = m.layers,
		.heads = m.heads,
		.kv_heads = m.kv_heads,
		.k_dim = m.k_dim,
		.v_dim = m.v_dim,
		.dtype = m.dtype,
		.k_format = m.k_format,
		.policy = m.policy,
		.options = m.options,
	};
	int e = sparq_open(r->daemon.socket, &open, &r->connection);

	if (e >= 0)
		e = sparq_cache_create(r->connection, &params, &r->cache);
	if (e >= 0)
		e = sparq_seq_create(r->cache, NULL, &r->seq);
	if (e >= 0)
		e = sparq_queue_create(r->connection, NULL, &r->queue);
	if (e >= 0)
		e = sparq_buf_alloc(r->connection, entry_bytes(o), &r->buf);
	return e;
}

static int append(struct remote *r, uint32_t layer, uint32_t row, uint32_t n)
{
	struct sparq_cqe *cqe;
	int e;

	sparq_prep_append(sparq_get_sqe(r->queue), sparq_seq_id(r->seq), (uint16_t)layer,
			  sparq_buf_addr(r->buf), row, (uint16_t)n);
	e = sparq_submit(r->queue, 0);
	if (e >= 0)
		e = sparq_wait(r->queue, &cqe, INT64_C(60000000000));
	if (e < 0)
		return e;
	e = cqe->res < 0 ? cqe->res : 0;
	if (e < 0)
		fprintf(stderr, "sparq-bench: fork: row %u of layer %u: %s; see --pool\n", row,
			layer, sparq_reason(cqe->aux >> 16));
	sparq_seen(r->queue, 1);
	return e;
}

static int fill(struct remote *r, const struct fork_options *o)
{
	size_t n_values;
	uint16_t *value = sparq_buf_data(r->buf, &n_values);
	int e = 0;

	/* Anything in [1, 2) of binary16. */
	for (size_t i = 0; i < n_values / 2; i++)
		value[i] = (uint16_t)(0x3c00 | (i * 2654435761u >> 12 & 0x3ff));
	for (uint32_t row = 0, n; row < o->rows && e == 0; row += n) {
		n = MIN(o->rows - row, ROWS);
		for (uint32_t layer = 0; layer < o->layers && e == 0; layer++)
			e = append(r, layer, row, n);
	}
	return e;
}

static int measure(struct remote *r, const struct fork_options *o, struct fork_figure *ret)
{
	uint32_t n_cold = MIN(o->rounds, 100u), n = o->rounds + n_cold;
	FREE_MEMORY double *sample = calloc(n, sizeof(*sample));
	FREE_MEMORY char *cold = malloc(FORK_COLD_BYTES);
	int e = sample && cold ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n && e >= 0; i++) {
		sparq_seq *child;
		double begin;

		if (i >= o->rounds)
			memset(cold, (int)i, FORK_COLD_BYTES);
		begin = bench_now_ns();
		e = sparq_seq_fork(r->seq, o->rows, &child);
		sample[i] = (bench_now_ns() - begin) / 1e3;
		if (e >= 0)
			e = sparq_seq_drop(child);
	}
	if (e < 0)
		return e;
	ret->cold = bench_median(sample + o->rounds, n_cold);
	ret->median = bench_median(sample, o->rounds);
	ret->least = sample[0];
	return 0;
}

int fork_remote(const struct fork_options *o, struct fork_figure *ret)
{
	CLEANUP(remote_deinit) struct remote r = { .daemon = BENCH_DAEMON_NULL };
	const char *more[] = { "--set", "huge_pages=no", NULL };
	char pool[32];
	int e;

	snprintf(pool, sizeof(pool), "%uM", o->mebibytes);
	e = bench_daemon_start(&r.daemon, o->daemon, pool, "1", more);
	if (e == 0)
		e = open_session(&r, o);
	if (e == 0)
		e = fill(&r, o);
	if (e == 0)
		e = measure(&r, o, ret);
	if (e < 0 && (!r.connection || *sparq_error(r.connection)))
		fprintf(stderr, "sparq-bench: fork: %s\n",
			r.connection ? sparq_error(r.connection) : "cannot start a daemon");
	return e < 0 ? e : 0;
}
