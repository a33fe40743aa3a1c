/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench overwrite: rows of a layer changed in place, against the same by
 * cutting the sequence there and appending all that came behind again, through a
 * daemon of one worker. The second needs those rows from the client, whose time
 * to have them is not in it.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "client/sparq.h"
#include "kernels/kernels.h"
#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/daemon.h"
#include "tests/bench/option.h"

#define ENTRY_ROWS 512u
#define MOST_ROUNDS 1024u
#define WAIT_NS INT64_C(60000000000)

struct options {
	const char *format, *daemon;
	uint32_t rows, changed, kv_heads, dim, rounds;
	bool json;
};

struct site {
	const struct options *o;
	struct bench_daemon daemon;
	sparq *connection;
	sparq_cache *cache;
	sparq_seq *seq;
	sparq_queue *queue;
	sparq_buf *buf;
};

static void site_deinit(struct site *s)
{
	sparq_seq_unref(s->seq);
	sparq_buf_unref(s->buf);
	sparq_cache_unref(s->cache);
	sparq_queue_close(s->queue);
	sparq_close(s->connection);
	bench_daemon_stop(&s->daemon);
}

static int site_open(struct site *s)
{
	const struct options *o = s->o;
	size_t bytes = (size_t)ENTRY_ROWS * o->kv_heads * o->dim * 2 * sizeof(uint16_t);
	struct sparq_open_params open = { .size = sizeof(open), .arena_bytes = bytes + MIB };
	struct sparq_cache_params params = {
		.size = sizeof(params),
		.layers = 1,
		.heads = o->kv_heads,
		.kv_heads = o->kv_heads,
		.k_dim = o->dim,
		.v_dim = o->dim,
		.dtype = SPARQ_DTYPE_F16,
		.k_format = o->format,
		.policy = "dense",
	};
	uint16_t *value;
	int r = sparq_open(s->daemon.socket, &open, &s->connection);

	r = r < 0 ? r : sparq_cache_create(s->connection, &params, &s->cache);
	r = r < 0 ? r : sparq_seq_create(s->cache, NULL, &s->seq);
	r = r < 0 ? r : sparq_queue_create(s->connection, NULL, &s->queue);
	r = r < 0 ? r : sparq_buf_alloc(s->connection, bytes, &s->buf);
	if (r < 0)
		return r;
	value = sparq_buf_data(s->buf, NULL);
	for (size_t i = 0; i < bytes / 2; i++) /* in [1, 2) of binary16 */
		value[i] = (uint16_t)(0x3c00 | (i * 2654435761u >> 12 & 0x3ff));
	return 0;
}

/* ---- entries ----------------------------------------------------------------------- */

static int finish(struct site *s)
{
	struct sparq_cqe *cqe;
	int r = sparq_submit(s->queue, 0);

	if (r >= 0)
		r = sparq_wait(s->queue, &cqe, WAIT_NS);
	if (r < 0)
		return r;
	r = cqe->res < 0 ? cqe->res : 0;
	sparq_seen(s->queue, 1);
	return r;
}

static int append(struct site *s, uint32_t from, uint32_t to)
{
	int r = 0;

	for (uint32_t row = from, n; row < to && r == 0; row += n) {
		n = MIN(to - row, ENTRY_ROWS);
		sparq_prep_append(sparq_get_sqe(s->queue), sparq_seq_id(s->seq), 0,
				  sparq_buf_addr(s->buf), row, (uint16_t)n);
		r = finish(s);
	}
	return r;
}

/* Tiles are flushed behind the completion that made them due, before the layer's next entry. */
static int settle(struct site *s)
{
	sparq_prep_truncate(sparq_get_sqe(s->queue), sparq_seq_id(s->seq), 0, s->o->rows);
	return finish(s);
}

static int overwrite(struct site *s, uint32_t row)
{
	int r;

	sparq_prep_overwrite(sparq_get_sqe(s->queue), sparq_seq_id(s->seq), 0,
			     sparq_buf_addr(s->buf), row, (uint16_t)s->o->changed);
	r = finish(s);
	return r == 0 ? settle(s) : r;
}

static int append_again(struct site *s, uint32_t row)
{
	int r;

	sparq_prep_truncate(sparq_get_sqe(s->queue), sparq_seq_id(s->seq), 0, row);
	r = finish(s);
	r = r == 0 ? append(s, row, s->o->rows) : r;
	return r == 0 ? settle(s) : r;
}

/* ---- figures ----------------------------------------------------------------------- */

struct figures {
	uint32_t behind; /* rows from the first that changes */
	double overwrite_us, again_us;
};

/* One after the other, so that both meet the machine alike. */
static int measure(struct site *s, struct figures *f)
{
	double sample[2][MOST_ROUNDS];
	uint32_t row = s->o->rows - f->behind;

	for (uint32_t i = 0; i < s->o->rounds; i++) {
		double begin = bench_now_ns(), middle;
		int r = overwrite(s, row);

		middle = bench_now_ns();
		r = r < 0 ? r : append_again(s, row);
		if (r < 0)
			return r;
		sample[0][i] = (middle - begin) / 1e3;
		sample[1][i] = (bench_now_ns() - middle) / 1e3;
	}
	f->overwrite_us = bench_median(sample[0], s->o->rounds);
	f->again_us = bench_median(sample[1], s->o->rounds);
	return 0;
}

static void print(const struct options *o, const struct figures *f, unsigned n)
{
	printf("%u of %u rows, %u KV heads, d = %u, %s; us, one layer\n%12s %12s %14s %8s\n",
	       o->changed, o->rows, o->kv_heads, o->dim, o->format, "rows behind", "overwrite",
	       "cut, append", "ratio");
	for (unsigned i = 0; i < n; i++)
		printf("%12u %12.1f %14.1f %8.2f\n", f[i].behind, f[i].overwrite_us, f[i].again_us,
		       f[i].again_us / f[i].overwrite_us);
}

static void print_json(const struct figures *f, unsigned n)
{
	struct json_object *all = json_object_new_array();

	for (unsigned i = 0; i < n; i++) {
		struct json_object *j = json_object_new_object();

		json_object_object_add(j, "rows_behind", json_object_new_uint64(f[i].behind));
		json_object_object_add(j, "overwrite_us",
				       json_object_new_double(f[i].overwrite_us));
		json_object_object_add(j, "cut_append_us", json_object_new_double(f[i].again_us));
		json_object_array_add(all, j);
	}
	puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY));
	json_object_put(all);
}

#define AT(field) offsetof(struct options, field)
static const struct bench_option table[] = {
	{ "rows", BENCH_NUMBER, AT(rows), 1024, 1u << 20, "N", "of the sequence, 16384" },
	{ "changed", BENCH_NUMBER, AT(changed), 1, ENTRY_ROWS, "N", "rows, 16" },
	{ "head-dim", BENCH_NUMBER, AT(dim), 1, KV_MAX_DIM, "N", "channels of a head, 128" },
	{ "kv-heads", BENCH_NUMBER, AT(kv_heads), 1, 1024, "N", "KV heads, 8" },
	{ "format", BENCH_TEXT, AT(format), 0, 0, "NAME", "hier4" },
	{ "rounds", BENCH_NUMBER, AT(rounds), 1, MOST_ROUNDS, "N", "of each, 15" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "for programs" },
};

static int run(const struct options *o, struct figures *f, unsigned n)
{
	CLEANUP(site_deinit) struct site s = { .o = o, .daemon = BENCH_DAEMON_NULL };
	const char *more[] = { "--set", "huge_pages=no", NULL };
	int r = bench_daemon_start(&s.daemon, o->daemon, "1024M", "1", more);

	if (r == 0)
		r = site_open(&s);
	if (r == 0)
		r = append(&s, 0, o->rows);
	if (r == 0)
		r = settle(&s);
	for (unsigned i = 0; i < n && r == 0; i++)
		r = measure(&s, &f[i]);
	if (r < 0 && s.connection && *sparq_error(s.connection))
		fprintf(stderr, "sparq-bench: overwrite: %s\n", sparq_error(s.connection));
	return r;
}

int bench_overwrite(int argc, char **argv)
{
	struct options o = { .format = "hier4",
			     .rows = 16384,
			     .changed = 16,
			     .kv_heads = 8,
			     .dim = 128,
			     .rounds = 15 };
	struct figures f[4];
	int r = bench_options(table, ARRAY_SIZE(table),
			      "Rows changed in place, against a cut and all rows again.", &o, argc,
			      argv);

	if (r)
		return r == 1 ? 0 : r;
	if (o.changed > o.rows / 2)
		return bench_fail(-EINVAL, "overwrite: --changed is above half of --rows");
	for (unsigned i = 0; i < ARRAY_SIZE(f); i++) /* a few, in the tail, to many */
		f[i] = (struct figures){ .behind = MAX(o.changed, o.rows >> 3 * (3 - i)) };
	f[ARRAY_SIZE(f) - 1].behind = o.rows / 2;
	r = run(&o, f, ARRAY_SIZE(f));
	if (r < 0)
		return bench_fail(r, "overwrite");
	if (o.json)
		print_json(f, ARRAY_SIZE(f));
	else
		print(&o, f, ARRAY_SIZE(f));
	return 0;
}
