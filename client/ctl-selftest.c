/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl selftest: is what this daemon computes attention? For each format and
 * policy it appends rows, attends, and compares with double precision here.
 *
 * The rows are noise with a few needles: keys in the direction of the queries,
 * far from both ends. They carry nearly all of the softmax, so a policy that
 * reads few rows must find them to be right at all, and one that looks only at
 * the newest rows must be equal to a reference which does not see them.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl-reference.h"
#include "client/ctl-selftest.h"
#include "client/ctl.h"
#include "client/sparq.h"
#include "shm/base.h"

#define ROWS 1500u
#define CHUNK 250u
#define FIRST 16u /* of the policy window */
#define RECENT 200u
#define WAIT_NS INT64_C(10000000000)

static const struct shape shape = { .heads = 4, .kv_heads = 2, .dim = 64 };
static const uint32_t needles[] = { 307, 311, 702, 1100 };

/* How far a format may be off: the relative error of o that its width explains on these rows, with
 * some room. One that is not listed is held to the widest. */
static const struct {
	const char *format;
	double bound;
} bounds[] = {
	{ "f32", 1e-5 },  { "f16", 2e-3 },   { "bf16", 1e-2 },
	{ "int8", 2e-2 }, { "hier4", 2e-2 }, { "", 0.4 },
};
#define MISSED_MASS 1e-3 /* of the softmax, which a sparse policy may lose here */

void selftest_check(struct selftest *t, bool ok, const char *format, ...)
{
	va_list args;

	t->n++;
	t->failed += !ok;
	fputs(ok ? "ok      " : "FAILED  ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* ---- data ---------------------------------------------------------------- */

static void make_rows(struct selftest *t, uint64_t seed)
{
	struct noise n = { seed * 2654435761u + 88172645463325252u };
	uint32_t group = shape.heads / shape.kv_heads;

	noise_fill(&n, t->rows, ROWS * shape_kv(&shape));
	for (uint32_t g = 0; g < shape.kv_heads; g++) {
		float base[64];

		noise_fill(&n, base, shape.dim);
		for (uint32_t h = 0; h < group; h++)
			for (uint32_t i = 0; i < shape.dim; i++)
				t->q[((size_t)g * group + h) * shape.dim + i] =
					base[i] + 0.1f * noise_next(&n);
		for (unsigned i = 0; i < ARRAY_SIZE(needles); i++) {
			float *k = t->rows + needles[i] * shape_kv(&shape) + (size_t)g * shape.dim;

			for (uint32_t d = 0; d < shape.dim; d++)
				k[d] = 2 * base[d];
		}
	}
}

/* ---- entries ---------------------------------------------------------------- */

/* Submits what was prepared and waits for its completion; its res, or the error of the wait. */
static int finish(struct selftest *t, struct sparq_cqe *ret)
{
	struct sparq_cqe *cqe;
	int r = sparq_submit(t->queue, 1);

	if (r >= 0)
		r = sparq_wait(t->queue, &cqe, WAIT_NS);
	if (r < 0)
		return r;
	*ret = *cqe;
	sparq_seen(t->queue, 1);
	return ret->res;
}

int selftest_append(struct selftest *t, sparq_seq *s, const float *rows, uint32_t at, uint32_t n)
{
	struct sparq_cqe cqe = {};
	int r = 0;

	for (uint32_t done = 0; done < n && r >= 0; done += CHUNK) {
		struct sparq_sqe *e = sparq_get_sqe(t->queue);
		uint32_t count = MIN(CHUNK, n - done);

		if (!e)
			return -ENOTCONN; /* one entry at a time: the ring is never full */

		memcpy(t->at.kv, rows + done * shape_kv(&shape),
		       count * shape_kv(&shape) * sizeof(float));
		sparq_prep_append(e, sparq_seq_id(s), 0, t->addr.kv, at + done, (uint16_t)count);
		r = finish(t, &cqe);
	}
	return r;
}

int selftest_truncate(struct selftest *t, sparq_seq *s, uint32_t rows)
{
	struct sparq_sqe *e = sparq_get_sqe(t->queue);
	struct sparq_cqe cqe;

	if (!e)
		return -ENOTCONN;
	sparq_prep_truncate(e, sparq_seq_id(s), 0, rows);
	return finish(t, &cqe);
}

/* One query that sees `rows` rows, by an item, for lse and report come only that way. */
int selftest_attend(struct selftest *t, sparq_seq *s, uint32_t rows, struct sparq_cqe *ret)
{
	struct sparq_sqe *e = sparq_get_sqe(t->queue);

	if (!e)
		return -ENOTCONN;
	*t->at.item = (struct sparq_item){
		.sequence = sparq_seq_id(s),
		.q = t->addr.q,
		.o = t->addr.o,
		.lse = t->addr.lse,
		.report = t->addr.report,
		.row = rows,
		.n_q = 1,
	};
	memcpy(t->at.q, t->q, shape_q(&shape) * sizeof(float));
	memset(t->at.o, 0xff, shape_q(&shape) * sizeof(float)); /* not a number, unless written */
	memset(t->at.report, 0, sizeof(*t->at.report));
	sparq_prep_items(e, SPARQ_OP_ATTEND, 0, t->addr.item, 1);
	return finish(t, ret);
}

double selftest_error(struct selftest *t, const float *rows, uint32_t n, uint32_t first,
		      uint32_t recent)
{
	double o[4 * 64], lse[4];

	reference_attend(&shape, rows, n, first, recent, t->q, o, lse);
	return reference_error(t->at.o, o, shape_q(&shape));
}

/* Of the log-sum-exp, absolute: it is a logarithm. */
static double lse_error(struct selftest *t, const float *rows, uint32_t n)
{
	double o[4 * 64], lse[4], most = 0;

	reference_attend(&shape, rows, n, n, 0, t->q, o, lse);
	for (uint32_t h = 0; h < shape.heads; h++)
		most = fmax(most, fabs(t->at.lse[h] - lse[h]));
	return most;
}

/* ---- one cache --------------------------------------------------------------- */

int selftest_cache(struct selftest *t, const char *format, const char *policy, const char *options,
		   sparq_cache **ret)
{
	struct sparq_cache_params p = {
		.size = sizeof(p),
		.layers = 1,
		.heads = shape.heads,
		.kv_heads = shape.kv_heads,
		.k_dim = shape.dim,
		.v_dim = shape.dim,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = format,
		.policy = policy,
		.options = options,
	};

	return sparq_cache_create(t->c, &p, ret);
}

static double bound_of(const char *format)
{
	unsigned i = 0;

	while (*bounds[i].format && strcmp(bounds[i].format, format))
		i++;
	return bounds[i].bound;
}

/* What a report says must add up, whatever was computed. */
static void check_report(struct selftest *t, const char *format, const char *policy,
			 const struct sparq_cqe *cqe, bool sparse)
{
	const struct sparq_report *r = t->at.report;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < SPARQ_PLANES; i++)
		bytes += r->bytes[i];
	selftest_check(t, bytes == cqe->bytes_read && bytes > 0,
		       "%s %s: %llu bytes read, %llu in planes", format, policy,
		       (unsigned long long)cqe->bytes_read, (unsigned long long)bytes);
	if (sparse)
		selftest_check(t,
			       r->n_selected > 0 && r->n_selected < ROWS / 2 &&
				       bytes < r->dense_bytes && !(cqe->flags & SPARQ_CQE_DENSE),
			       "%s %s: %u of %u rows, %.1f %% of the bytes of dense f16", format,
			       policy, r->n_selected, ROWS,
			       100.0 * (double)bytes / (double)r->dense_bytes);
}

struct policy {
	const char *name, *options;
	uint32_t first, recent; /* rows that the reference sees */
	bool sparse;
};

static void try_sequence(struct selftest *t, const char *format, const struct policy *p,
			 sparq_seq *s)
{
	double bound = bound_of(format) + (p->sparse ? MISSED_MASS : 0), error;
	struct sparq_cqe cqe = {};
	int r = selftest_append(t, s, t->rows, 0, ROWS);

	if (r >= 0)
		r = selftest_attend(t, s, ROWS, &cqe);
	if (r < 0) {
		selftest_check(t, false, "%s %s: %s: %s", format, p->name, strerror(-r),
			       sparq_reason(cqe.aux >> 16));
		return;
	}
	error = selftest_error(t, t->rows, ROWS, p->first, p->recent);
	selftest_check(t, error <= bound, "%s %s: error %.2g of at most %.2g", format, p->name,
		       error, bound);
	if (p->recent >= ROWS && !p->sparse) {
		error = lse_error(t, t->rows, ROWS);
		/* An error of a logit, which K makes, moves the lse by as much. */
		selftest_check(t, error <= 4 * bound, "%s %s: log-sum-exp off by %.2g of %.2g",
			       format, p->name, error, 4 * bound);
	}
	check_report(t, format, p->name, &cqe, p->sparse);
}

static void try_cache(struct selftest *t, const char *format, const struct policy *p)
{
	sparq_cache *k = NULL;
	sparq_seq *s = NULL;
	int r = selftest_cache(t, format, p->name, p->options, &k);

	if (r >= 0)
		r = sparq_seq_create(k, NULL, &s);
	if (r < 0)
		selftest_check(t, false, "%s %s: %s", format, p->name, sparq_error(t->c));
	else
		try_sequence(t, format, p, s);
	sparq_seq_unref(s);
	sparq_cache_unref(k);
}

static void try_formats(struct selftest *t)
{
	static const struct policy policies[] = {
		{ "dense", NULL, 0, ROWS, false },
		{ "sparq", "r=16 k=64 dense_below=0", 0, ROWS, true },
		{ "window", "first=16 recent=200", FIRST, RECENT, false },
	};
	const char *name;
	char format[64];
	unsigned i;

	for (i = 0; sparq_name(t->c, "format", i, &name) >= 0; i++) {
		snprintf(format, sizeof(format), "%s", name); /* the next call reuses it */
		for (unsigned p = 0; p < ARRAY_SIZE(policies); p++)
			try_cache(t, format, &policies[p]);
	}
	selftest_check(t, i > 0, "the daemon has %u formats", i);
}

/* ---- set up --------------------------------------------------------------------- */

/* Cuts the one buffer into the parts of a step, each on its own 128 bytes. */
static int make_buffer(struct selftest *t)
{
	size_t q = ALIGN_UP(shape_q(&shape) * sizeof(float), 128);
	size_t kv = CHUNK * shape_kv(&shape) * sizeof(float);
	uint64_t addr;
	uint8_t *data;
	int r = sparq_buf_alloc(t->c, 3 * 128 + 2 * q + kv, &t->buf);

	if (r < 0)
		return r;
	addr = sparq_buf_addr(t->buf);
	data = sparq_buf_data(t->buf, NULL);
	t->addr.item = addr;
	t->addr.report = addr + 128;
	t->addr.lse = addr + 256;
	t->addr.q = addr + 384;
	t->addr.o = t->addr.q + q;
	t->addr.kv = t->addr.o + q;
	t->at.item = (struct sparq_item *)data;
	t->at.report = (struct sparq_report *)(data + 128);
	t->at.lse = (float *)(data + 256);
	t->at.q = (float *)(data + 384);
	t->at.o = (float *)(data + 384 + q);
	t->at.kv = (float *)(data + 384 + 2 * q);
	return 0;
}

static int set_up(struct selftest *t, const struct ctl_options *o)
{
	char why[SPARQ_ERROR_TEXT] = "";
	struct sparq_open_params p = {
		.size = sizeof(p),
		.arena_bytes = 1 << 20,
		.why = why,
		.reconnect_ms = UINT32_MAX, /* a daemon that ends has failed the test */
	};
	int r = sparq_open(ctl_text(o, OPT_SOCKET), &p, &t->c);

	if (r < 0) {
		fprintf(stderr, "sparqctl: cannot open a session: %s\n", *why ? why : strerror(-r));
		return r;
	}
	r = sparq_queue_create(t->c, NULL, &t->queue);
	if (r >= 0)
		r = make_buffer(t);
	if (r < 0) {
		fprintf(stderr, "sparqctl: %s\n", sparq_error(t->c));
		return r;
	}
	t->rows = calloc(ROWS * shape_kv(&shape), sizeof(float));
	t->q = calloc(shape_q(&shape), sizeof(float));
	if (!t->rows || !t->q)
		return -ENOMEM;
	make_rows(t, ctl_number(o, OPT_SEED, 1));
	return 0;
}

static void selftest_deinit(struct selftest *t)
{
	free(t->rows);
	free(t->q);
	sparq_buf_unref(t->buf);
	sparq_queue_close(t->queue);
	sparq_close(t->c);
}

int ctl_selftest(const struct ctl_options *o)
{
	CLEANUP(selftest_deinit) struct selftest t = { .n_rows = ROWS };
	struct sparq_info info = { .size = sizeof(info) };

	if (set_up(&t, o) < 0)
		return CTL_FAILED;
	if (sparq_info_get(t.c, &info) >= 0)
		printf("sparqd %s, generation %u, kernels %s, seed %llu\n", info.version,
		       info.generation, info.isa, (unsigned long long)ctl_number(o, OPT_SEED, 1));
	try_formats(&t);
	selftest_sequences(&t);
	if (t.failed)
		printf("%u of %u checks FAILED\n", t.failed, t.n);
	else
		printf("%u checks, all ok\n", t.n);
	return t.failed ? CTL_FAILED : CTL_OK;
}
