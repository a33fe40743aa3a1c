/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl bench: what this daemon does in a second on this machine, now. One layer of a model with
 * grouped queries attends over one sequence, an entry at a time as a decoder would, densely over
 * f16 and by sparq over hier4; the bytes are those of the completions. The rows are noise, so it
 * says nothing of what sparq finds.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl-print.h"
#include "client/ctl-reference.h"
#include "client/ctl.h"
#include "client/sparq.h"
#include "client/top.h"
#include "shm/base.h"
#include "shm/clock.h"

#define HEADS 32u
#define KV_HEADS 8u
#define DIM 128u
#define Q_FLOATS (HEADS * DIM)
#define ROW_FLOATS (2u * KV_HEADS * DIM)
#define CHUNK 128u
#define ROWS 32768u
#define ROWS_LEAST 1024u
#define ROWS_MOST (1u << 22)
#define PRESET_S 2.0
#define WARM_STEPS 3u
#define STEPS_MOST 1000000u
#define WAIT_NS (20 * NS_PER_S)

static const struct candidate {
	const char *policy, *format;
} candidates[] = { { "dense", "f16" }, { "sparq", "hier4" } };

struct result {
	uint64_t steps, bytes;
	double seconds, median_ms, slow_ms; /* slow: 99 of 100 are faster */
	double roofline;                    /* of the nodes it read; 0: not known */
};

struct bench {
	sparq *c;
	sparq_queue *queue;
	sparq_buf *buf;
	float *at;
	uint64_t q, kv, o;
	uint32_t rows;
	double seconds;
	struct top top;
	char no_roofline[SPARQ_ERROR_TEXT]; /* why not; "" */
	double *ms;                         /* of each step */
};

static void bench_deinit(struct bench *b)
{
	sparq_buf_unref(b->buf);
	sparq_queue_close(b->queue);
	sparq_close(b->c);
	top_deinit(&b->top);
	free(b->ms);
}

/* The daemon's words, or errno's. */
static int complain(const struct bench *b, const char *what, int error)
{
	const char *text = b->c ? sparq_error(b->c) : "";

	fprintf(stderr, "sparqctl: bench: %s: %s%s\n", what, *text ? text : strerror(-error),
		error == -ENOSPC || error == -EDQUOT ? "; a smaller --rows takes less" : "");
	return error;
}

/* ---- a session and its memory ---------------------------------------------------------- */

static int set_up(struct bench *b, const struct ctl_options *o)
{
	size_t bytes = (2ull * Q_FLOATS + (size_t)CHUNK * ROW_FLOATS) * sizeof(float);
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params p = {
		.size = sizeof(p),
		.arena_bytes = 2 * bytes,
		.why = why,
		.reconnect_ms = UINT32_MAX, /* a restart is no part of what is measured */
	};
	int r = sparq_open(ctl_text(o, OPT_SOCKET), &p, &b->c);

	if (r < 0) {
		fprintf(stderr, "sparqctl: bench: %s\n", *why ? why : strerror(-r));
		return r;
	}
	r = sparq_queue_create(b->c, NULL, &b->queue);
	if (r >= 0)
		r = sparq_buf_alloc(b->c, bytes, &b->buf);
	if (r < 0)
		return complain(b, "session", r);
	b->at = sparq_buf_data(b->buf, NULL);
	b->q = sparq_buf_addr(b->buf);
	b->o = b->q + Q_FLOATS * sizeof(float);
	b->kv = b->o + Q_FLOATS * sizeof(float);
	b->ms = calloc(STEPS_MOST, sizeof(*b->ms));
	/* Members of sparq-admin may see what a node gives at most; others do without. */
	if (top_open(&b->top, ctl_text(o, OPT_SOCKET), b->no_roofline) < 0)
		b->top = TOP_NULL;
	return b->ms ? 0 : complain(b, "steps", -ENOMEM);
}

static int finish(struct bench *b, struct sparq_cqe *ret)
{
	struct sparq_cqe *cqe;
	int r = sparq_submit(b->queue, 0);

	if (r >= 0)
		r = sparq_wait(b->queue, &cqe, WAIT_NS);
	if (r < 0)
		return complain(b, "step", r);
	*ret = *cqe;
	sparq_seen(b->queue, 1);
	if (ret->res >= 0)
		return 0;
	fprintf(stderr, "sparqctl: bench: %s%s\n", sparq_reason(ret->aux >> 16),
		ret->res == -ENOSPC ? "; a smaller --rows takes less" : "");
	return ret->res;
}

static int append_rows(struct bench *b, sparq_seq *s, struct noise *n)
{
	float *kv = b->at + 2 * Q_FLOATS;
	struct sparq_cqe cqe;
	int r = 0;

	for (uint32_t row = 0; r == 0 && row < b->rows; row += CHUNK) {
		struct sparq_sqe *e = sparq_get_sqe(b->queue);
		uint32_t count = MIN(CHUNK, b->rows - row);

		if (!e)
			return complain(b, "append", -ENOTCONN);
		noise_fill(n, kv, (size_t)count * ROW_FLOATS);
		sparq_prep_append(e, sparq_seq_id(s), 0, b->kv, row, (uint16_t)count);
		r = finish(b, &cqe);
	}
	return r;
}

/* ---- measuring ----------------------------------------------------------------------- */

static int step(struct bench *b, sparq_seq *s, struct noise *n, struct result *ret)
{
	struct sparq_sqe *e = sparq_get_sqe(b->queue);
	struct sparq_cqe cqe;
	int64_t began;
	int r;

	if (!e)
		return complain(b, "step", -ENOTCONN);
	noise_fill(n, b->at, Q_FLOATS);
	sparq_prep_attend(e, sparq_seq_id(s), 0, b->q, b->o, b->rows, 1);
	began = clock_now_ns();
	r = finish(b, &cqe);
	if (r < 0)
		return r;
	b->ms[ret->steps++] = (double)(clock_now_ns() - began) / 1e6;
	ret->bytes += cqe.bytes_read;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of all nodes that were read: what they were measured to give. */
static double roofline_of(struct bench *b)
{
	char why[SPARQ_ERROR_TEXT] = "";
	double sum = 0;

	if (!b->top.stats || top_look(&b->top, why) < 0)
		return 0;
	for (uint32_t i = 0; i < b->top.n_nodes; i++) {
		const struct top_node *n = &b->top.node[i];

		if (n->rates.bytes > 0 && !n->roofline_bytes_s)
			return 0;
		sum += n->rates.bytes > 0 ? (double)n->roofline_bytes_s : 0;
	}
	return sum;
}

static int measure(struct bench *b, sparq_seq *s, struct noise *n, struct result *ret)
{
	char why[SPARQ_ERROR_TEXT] = "";
	int64_t end;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < WARM_STEPS; i++)
		r = step(b, s, n, ret);
	*ret = (struct result){ .steps = 0 };
	if (b->top.stats)
		top_look(&b->top, why);
	end = clock_now_ns() + (int64_t)(b->seconds * (double)NS_PER_S);
	while (r == 0 && clock_now_ns() < end && ret->steps < STEPS_MOST)
		r = step(b, s, n, ret);
	if (r < 0)
		return r;
	ret->roofline = roofline_of(b);
	/* Without the time that the noise of the queries takes. */
	for (uint64_t i = 0; i < ret->steps; i++)
		ret->seconds += b->ms[i] / 1e3;
	qsort(b->ms, ret->steps, sizeof(*b->ms), by_value);
	ret->median_ms = b->ms[ret->steps / 2];
	ret->slow_ms = b->ms[ret->steps * 99 / 100];
	return 0;
}

static int try_candidate(struct bench *b, const struct candidate *k, struct result *ret)
{
	struct sparq_cache_params p = {
		.size = sizeof(p),
		.layers = 1,
		.heads = HEADS,
		.kv_heads = KV_HEADS,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = k->format,
		.policy = k->policy,
	};
	struct noise n = { 88172645463325252u };
	sparq_cache *cache = NULL;
	sparq_seq *s = NULL;
	int r = sparq_cache_create(b->c, &p, &cache);

	if (r == 0)
		r = sparq_seq_create(cache, NULL, &s);
	if (r < 0)
		complain(b, k->policy, r);
	if (r == 0)
		r = append_rows(b, s, &n);
	if (r == 0)
		r = measure(b, s, &n, ret);
	sparq_seq_unref(s);
	sparq_cache_unref(cache);
	return r;
}

/* ---- saying -------------------------------------------------------------------------- */

static void add_figure(json_object *o, const char *key, double value)
{
	json_object_object_add(o, key, json_object_new_double(value));
}

static void print_json(const struct bench *b, const struct result *results)
{
	CLEANUP(ctl_putp) json_object *o = json_object_new_object();
	json_object *all = json_object_new_array();

	json_object_object_add(o, "rows", json_object_new_int64(b->rows));
	for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++) {
		const struct result *r = &results[i];
		json_object *one = json_object_new_object();

		json_object_object_add(one, "policy", json_object_new_string(candidates[i].policy));
		json_object_object_add(one, "format", json_object_new_string(candidates[i].format));
		json_object_object_add(one, "steps", json_object_new_int64((int64_t)r->steps));
		add_figure(one, "steps_per_s", (double)r->steps / r->seconds);
		add_figure(one, "read_bytes_per_s", (double)r->bytes / r->seconds);
		add_figure(one, "bytes_per_step", (double)r->bytes / (double)r->steps);
		add_figure(one, "median_ms", r->median_ms);
		add_figure(one, "slow_ms", r->slow_ms);
		if (r->roofline > 0)
			add_figure(one, "roofline_bytes_per_s", r->roofline);
		json_object_array_add(all, one);
	}
	json_object_object_add(o, "policies", all);
	ctl_print_json(o);
}

static void print_result(const struct candidate *k, const struct result *r)
{
	char bytes[24], part[16] = "-";

	if (r->roofline > 0)
		snprintf(part, sizeof(part), "%.0f %%",
			 100 * (double)r->bytes / r->seconds / r->roofline);
	printf("%-6s %-6s %8.1f %10.3f %9.3f %9.2f %11s %9s\n", k->policy, k->format,
	       (double)r->steps / r->seconds, r->median_ms, r->slow_ms,
	       (double)r->bytes / r->seconds / 1e9,
	       ctl_format_bytes((double)r->bytes / (double)r->steps, bytes, sizeof(bytes)), part);
}

static void print_text(const struct bench *b, const struct result *r)
{
	double faster = ((double)r[1].steps / r[1].seconds) / ((double)r[0].steps / r[0].seconds);
	double less = ((double)r[0].bytes / (double)r[0].steps) /
		      ((double)r[1].bytes / (double)r[1].steps);

	printf("%u rows, %u heads over %u of %u channels, one layer, one entry at a time\n\n",
	       b->rows, HEADS, KV_HEADS, DIM);
	printf("%-6s %-6s %8s %10s %9s %9s %11s %9s\n", "policy", "format", "steps/s", "median ms",
	       "99 % ms", "GB/s", "bytes/step", "roofline");
	for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++)
		print_result(&candidates[i], &r[i]);
	printf("\nsparq: %.2f times the steps of dense, with %.2f times fewer bytes\n", faster,
	       less);
	if (b->no_roofline[0])
		printf("no roofline: %s\n", b->no_roofline);
	else if (r[0].roofline <= 0)
		puts("no roofline: run sparqctl calibrate");
}

int ctl_bench(const struct ctl_options *o)
{
	CLEANUP(bench_deinit) struct bench b = { .top = TOP_NULL };
	struct result results[ARRAY_SIZE(candidates)] = { 0 };
	uint64_t rows = ctl_number(o, OPT_ROWS, ROWS);

	if (rows < ROWS_LEAST || rows > ROWS_MOST) {
		fprintf(stderr, "sparqctl: --rows %llu: %u to %u are expected\n",
			(unsigned long long)rows, ROWS_LEAST, ROWS_MOST);
		return CTL_USAGE;
	}
	b.rows = (uint32_t)rows;
	b.seconds = ctl_seconds(o, OPT_SECONDS_EACH, PRESET_S);
	if (set_up(&b, o) < 0)
		return CTL_FAILED;
	for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++) {
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "\r%s over %s ... \r", candidates[i].policy,
				candidates[i].format);
		if (try_candidate(&b, &candidates[i], &results[i]) < 0)
			return CTL_FAILED;
	}
	if (ctl_flag(o, OPT_JSON))
		print_json(&b, results);
	else
		print_text(&b, results);
	return CTL_OK;
}
