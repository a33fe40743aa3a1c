/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of one dimension through the ring: for each format that the daemon has,
 * rows are appended, cut off, forked and appended again, and what dense and
 * sparq answer is compared with double precision. Whoever brings a model with
 * that head dimension relies on it from its first call to its last.
 *
 *   shapes SOCKET HEAD-DIM
 *
 * Exit: 0 all is right, 1 something is not.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl-reference.h"
#include "client/sparq.h"

#define MOST_DIM 256u
#define HEADS 6u
#define KV_HEADS 2u
#define GROUP (HEADS / KV_HEADS)
#define ROWS 1500u /* behind the first long extent */
#define CUT 700u   /* inside a tile */
#define BATCH 100u
#define WAIT_NS 20000000000

/* Rows that hold nearly all of the softmax, in sealed tiles: sparq has to find them. */
static const uint32_t needles[] = { 307, 311, 1100 };

/* How far a format may be off, relative to o: what its width explains on these rows. */
static const struct {
	const char *format;
	double bound;
} bounds[] = {
	{ "f32", 1e-5 },  { "f16", 2e-3 },   { "bf16", 1e-2 },
	{ "int8", 2e-2 }, { "hier4", 2e-2 }, { "", 0.4 },
};
#define MISSED_MASS 1e-3 /* of the softmax, which sparq may lose here */

static sparq *c;
static sparq_queue *queue;
static sparq_buf *buf;
static struct shape shape = { .heads = HEADS, .kv_heads = KV_HEADS };
static float rows[ROWS * 2 * KV_HEADS * MOST_DIM], q[HEADS * MOST_DIM];

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", c ? sparq_error(c) : "");
	exit(1);
}

static void make_rows(void)
{
	struct noise n = { 88172645463325252u + shape.dim };

	noise_fill(&n, rows, ROWS * shape_kv(&shape));
	for (uint32_t g = 0; g < KV_HEADS; g++) {
		float base[MOST_DIM];

		noise_fill(&n, base, shape.dim);
		for (uint32_t i = 0; i < GROUP * shape.dim; i++)
			q[g * GROUP * shape.dim + i] = base[i % shape.dim] + 0.1f * noise_next(&n);
		for (unsigned i = 0; i < sizeof(needles) / sizeof(needles[0]); i++)
			for (uint32_t d = 0; d < shape.dim; d++)
				rows[needles[i] * shape_kv(&shape) + g * shape.dim + d] =
					2 * base[d];
	}
}

/* ---- steps ---------------------------------------------------------------------- */

static void finish(const char *what)
{
	struct sparq_cqe *cqe;

	if (sparq_submit(queue, 0) < 0 || sparq_wait(queue, &cqe, WAIT_NS) < 0)
		die("%s", what);
	if (cqe->res < 0)
		die("%s: %s, %s", what, strerror(-cqe->res), sparq_reason(cqe->aux >> 16));
	sparq_seen(queue, 1);
}

static void append(sparq_seq *s, uint32_t from, uint32_t to)
{
	for (uint32_t row = from; row < to; row += BATCH) {
		uint32_t n = to - row < BATCH ? to - row : BATCH;

		memcpy(sparq_buf_data(buf, NULL), rows + row * shape_kv(&shape),
		       n * shape_kv(&shape) * sizeof(float));
		sparq_prep_append(sparq_get_sqe(queue), sparq_seq_id(s), 0, sparq_buf_addr(buf),
				  row, (uint16_t)n);
		finish("append");
	}
}

/* How far the answer for one query behind n rows is from what it should be. */
static double error_of(sparq_seq *s, uint32_t n)
{
	size_t floats = shape_q(&shape);
	float *at = sparq_buf_data(buf, NULL);
	double o[HEADS * MOST_DIM], lse[HEADS];

	memcpy(at, q, floats * sizeof(*at));
	memset(at + floats, 0xff, floats * sizeof(*at)); /* not a number, unless written */
	sparq_prep_attend(sparq_get_sqe(queue), sparq_seq_id(s), 0, sparq_buf_addr(buf),
			  sparq_buf_addr(buf) + floats * sizeof(*at), n, 1);
	finish("attend");
	reference_attend(&shape, rows, n, 0, n, q, o, lse);
	return reference_error(at + floats, o, floats);
}

/* ---- what must hold --------------------------------------------------------------- */

static double bound_of(const char *format)
{
	unsigned i = 0;

	while (*bounds[i].format && strcmp(bounds[i].format, format))
		i++;
	return bounds[i].bound;
}

static void expect(sparq_seq *s, uint32_t n, double bound, const char *what)
{
	double error = error_of(s, n);

	if (!(error <= bound))
		die("head dimension %u, %s, %u rows: off by %.3g of %.3g", shape.dim, what, n,
		    error, bound);
}

static sparq_cache *create(const char *format, const char *policy, const char *options)
{
	struct sparq_cache_params p = { .size = sizeof(p),
					.layers = 1,
					.heads = HEADS,
					.kv_heads = KV_HEADS,
					.k_dim = shape.dim,
					.v_dim = shape.dim,
					.dtype = SPARQ_DTYPE_F32,
					.k_format = format,
					.policy = policy,
					.options = options };
	sparq_cache *k;

	if (sparq_cache_create(c, &p, &k) < 0)
		die("head dimension %u, %s, %s", shape.dim, format, policy);
	return k;
}

static void try_cache(const char *format, const char *policy, const char *options, double bound)
{
	sparq_cache *k = create(format, policy, options);
	sparq_seq *s, *child;
	char what[64];

	snprintf(what, sizeof(what), "%s %s", format, policy);
	if (sparq_seq_create(k, NULL, &s) < 0)
		die("sequence");
	append(s, 0, ROWS);
	expect(s, ROWS, bound, what);
	if (sparq_seq_fork(s, CUT, &child) < 0 || sparq_seq_truncate(s, CUT - 1) < 0)
		die("fork, truncate");
	expect(child, CUT, bound, what);
	append(child, CUT, ROWS);
	expect(child, ROWS, bound, what);
	append(s, CUT - 1, ROWS);
	expect(s, ROWS, bound, what);
	sparq_seq_unref(child);
	sparq_seq_unref(s);
	sparq_cache_unref(k);
}

int main(int argc, char **argv)
{
	char format[64];
	const char *name;
	unsigned formats = 0;

	if (argc != 3)
		return 64;
	shape.dim = (uint32_t)strtoul(argv[2], NULL, 10);
	if (shape.dim > MOST_DIM)
		return 64;
	if (sparq_open(argv[1], NULL, &c) < 0 || sparq_queue_create(c, NULL, &queue) < 0 ||
	    sparq_buf_alloc(c, BATCH * shape_kv(&shape) * sizeof(float), &buf) < 0)
		die("session");
	make_rows();
	for (; sparq_name(c, "format", formats, &name) >= 0; formats++) {
		snprintf(format, sizeof(format), "%s", name); /* the next call reuses it */
		try_cache(format, "dense", NULL, bound_of(format));
		try_cache(format, "sparq", "r=24 k=64 dense_below=0",
			  bound_of(format) + MISSED_MASS);
	}
	if (!formats)
		die("no formats");
	sparq_buf_unref(buf);
	sparq_queue_close(queue);
	sparq_close(c);
	return 0;
}
