/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench attend: attention of one decoding step, one layer, over
 * sequences that are in no cache, beside what this machine can read in the
 * same run. No daemon and no ring: what kernels and executor take.
 */
#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/bench.h"

#define MOST_SAMPLES 4096u

struct list {
	char *word[16];
	unsigned n;
};

struct attend_options {
	struct list seqlen, format, policy;
	const char *r, *k, *isa;
	uint32_t dim, heads, kv_heads;
	unsigned threads;
	double seconds;
	bool json;
};

struct figures {
	uint32_t rows;
	const char *policy, *format;
	double median_ms, min_ms;
	uint64_t bytes[KV_PLANES], bytes_read;
	unsigned samples, sequences;
};

/* ---- one step --------------------------------------------------------------- */

struct step {
	const struct bench_rows *rows;
	struct kv_exec *exec; /* [kv_heads] */
	atomic_uint *left;    /* shares to go, by KV head */
	unsigned shares;      /* of one KV head */
	char *scratch;
	uint64_t scratch_bytes; /* of one KV head */
};

/* Whoever ends the last share of a KV head goes on with its selection. */
static void run_share(void *argument, unsigned i)
{
	struct step *s = argument;
	unsigned head = i / s->shares;

	kv_exec_share(&s->exec[head], i % s->shares);
	if (atomic_fetch_sub_explicit(&s->left[head], 1, memory_order_acq_rel) == 1)
		kv_exec_finish(&s->exec[head]);
}

static void run_step(struct step *s, struct crew *crew, const struct rig *rig, const float *q)
{
	const struct kv_space *space = &s->rows->space;
	struct kv_query query = { .q = q, .n_q = 1, .first_limit = rig->view.rows };
	struct kv_plan plan;

	kv_plan_step(space, &rig->view, &query, 0, 1, false, &plan);
	for (uint32_t h = 0; h < space->kv_heads; h++) {
		kv_exec_init(&s->exec[h], space, &plan, &rig->view, &query, h,
			     s->scratch + h * s->scratch_bytes);
		s->shares = s->exec[h].shares;
		atomic_store_explicit(&s->left[h], s->shares, memory_order_relaxed);
	}
	crew_run(crew, run_share, s, space->kv_heads * s->shares);
}

static bool step_init(struct step *s, const struct bench_rows *rows)
{
	const struct kv_space *space = &rows->space;
	const struct kv_view *view = &rows->rig[0].view;
	struct kv_query query = { .q = rows->q, .n_q = 1, .first_limit = view->rows };
	struct kv_plan plan;

	*s = (struct step){ .rows = rows };
	if (kv_plan_step(space, view, &query, 0, 1, false, &plan))
		return false;
	s->scratch_bytes = kv_exec_scratch_bytes(space, &plan, view, &query);
	s->scratch = aligned_alloc(64, space->kv_heads * s->scratch_bytes);
	s->exec = calloc(space->kv_heads, sizeof(*s->exec));
	s->left = calloc(space->kv_heads, sizeof(*s->left));
	return s->scratch && s->exec && s->left;
}

static void step_deinit(struct step *s)
{
	free(s->scratch);
	free(s->exec);
	free(s->left);
}

/* ---- timing ----------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void take_bytes(const struct step *s, struct figures *ret)
{
	for (uint32_t h = 0; h < s->rows->space.kv_heads; h++)
		for (unsigned i = 0; i < KV_PLANES; i++) {
			ret->bytes[i] += s->exec[h].result.bytes[i];
			ret->bytes_read += s->exec[h].result.bytes[i];
		}
}

static void measure(struct step *s, struct crew *crew, double seconds, struct figures *ret)
{
	const struct bench_rows *rows = s->rows;
	size_t q_floats = (size_t)rows->space.heads * rows->space.k_dim;
	double *sample = malloc(MOST_SAMPLES * sizeof(*sample));
	double begin = bench_now_ns();
	unsigned n = 0;

	for (unsigned i = 0; i < rows->n; i++) /* pages of scratch, branch history */
		run_step(s, crew, &rows->rig[i], rows->q);
	while (n < MOST_SAMPLES && (n < 5 || bench_now_ns() - begin < seconds * 1e9)) {
		const float *q = rows->q + (n % BENCH_QUERIES) * q_floats;
		double start = bench_now_ns();

		run_step(s, crew, &rows->rig[n % rows->n], q);
		sample[n++] = (bench_now_ns() - start) / 1e6;
	}
	qsort(sample, n, sizeof(*sample), compare_doubles);
	ret->median_ms = sample[n / 2];
	ret->min_ms = sample[0];
	ret->samples = n;
	ret->sequences = rows->n;
	take_bytes(s, ret);
	free(sample);
}

static int bench_one(const struct attend_options *o, struct crew *crew, struct figures *f)
{
	const struct bench_shape shape = { .rows = f->rows,
					   .dim = o->dim,
					   .heads = o->heads,
					   .kv_heads = o->kv_heads,
					   .format = f->format,
					   .policy = f->policy,
					   .r = o->r,
					   .k = o->k };
	char why[KV_ERROR_TEXT];
	struct bench_rows rows;
	struct step step = { 0 };
	int r = bench_rows_init(&rows, &shape, why);

	if (r)
		fprintf(stderr, "sparq-bench: %s %s: %s\n", f->policy, f->format, why);
	else if (!step_init(&step, &rows))
		r = bench_fail(-ENOMEM, "%s %s", f->policy, f->format);
	else
		measure(&step, crew, o->seconds, f);
	step_deinit(&step);
	bench_rows_deinit(&rows);
	return r ? 1 : 0;
}

/* ---- output ----------------------------------------------------------------- */

struct report {
	const struct attend_options *options;
	double roofline_gbps;
	const struct figures *dense; /* f16, of the same length */
	struct json_object *array;
};

static double gbps(const struct figures *f)
{
	return (double)f->bytes_read / (f->median_ms * 1e6);
}

static void add_json(struct report *r, const struct figures *f)
{
	static const char *const plane[KV_PLANES] = { "score",      "k",      "v_upper", "v_lower",
						      "parameters", "recent", "state",   "other" };
	struct json_object *o = json_object_new_object(), *bytes = json_object_new_object();
	double ratio = r->dense->median_ms / f->median_ms;

	for (unsigned i = 0; i < KV_PLANES; i++)
		json_object_object_add(bytes, plane[i], json_object_new_uint64(f->bytes[i]));
	json_object_object_add(o, "seqlen", json_object_new_uint64(f->rows));
	json_object_object_add(o, "policy", json_object_new_string(f->policy));
	json_object_object_add(o, "format", json_object_new_string(f->format));
	json_object_object_add(o, "isa", json_object_new_string(kv_isa_name()));
	json_object_object_add(o, "head_dim", json_object_new_uint64(r->options->dim));
	json_object_object_add(o, "heads", json_object_new_uint64(r->options->heads));
	json_object_object_add(o, "kv_heads", json_object_new_uint64(r->options->kv_heads));
	json_object_object_add(o, "threads", json_object_new_uint64(r->options->threads));
	json_object_object_add(o, "samples", json_object_new_uint64(f->samples));
	json_object_object_add(o, "sequences", json_object_new_uint64(f->sequences));
	json_object_object_add(o, "median_ms", json_object_new_double(f->median_ms));
	json_object_object_add(o, "min_ms", json_object_new_double(f->min_ms));
	json_object_object_add(o, "bytes_read", json_object_new_uint64(f->bytes_read));
	json_object_object_add(o, "bytes", bytes);
	json_object_object_add(o, "gbps", json_object_new_double(gbps(f)));
	json_object_object_add(o, "roofline_gbps", json_object_new_double(r->roofline_gbps));
	json_object_object_add(o, "percent_of_roofline",
			       json_object_new_double(100 * gbps(f) / r->roofline_gbps));
	json_object_object_add(o, "ratio_to_dense_f16", json_object_new_double(ratio));
	json_object_array_add(r->array, o);
}

static void print_head(const struct report *r)
{
	printf("%u heads, %u KV heads, d = %u, %u threads, %s, memory reads at %.1f GB/s\n",
	       r->options->heads, r->options->kv_heads, r->options->dim, r->options->threads,
	       kv_isa_name(), r->roofline_gbps);
	printf("%8s %-8s %-7s %10s %10s %10s %7s %6s %9s\n", "rows", "policy", "format",
	       "median ms", "min ms", "MB read", "GB/s", "% roof", "x dense");
}

static void print_figures(const struct report *r, const struct figures *f)
{
	printf("%8u %-8s %-7s %10.3f %10.3f %10.2f %7.1f %6.1f %9.2f\n", f->rows, f->policy,
	       f->format, f->median_ms, f->min_ms, (double)f->bytes_read / 1e6, gbps(f),
	       100 * gbps(f) / r->roofline_gbps, r->dense->median_ms / f->median_ms);
	fflush(stdout);
}

static void show(struct report *r, const struct figures *f)
{
	if (r->options->json)
		add_json(r, f);
	else
		print_figures(r, f);
}

/* ---- what to measure -------------------------------------------------------- */

static bool is_dense_f16(const char *policy, const char *format)
{
	return !strcmp(policy, "dense") && !strcmp(format, "f16");
}

/* Dense f16 comes first, asked for or not: the others are compared with it. */
static int bench_rows(struct report *r, struct crew *crew, uint32_t rows)
{
	const struct attend_options *o = r->options;
	struct figures dense = { .rows = rows, .policy = "dense", .format = "f16" };
	int error = bench_one(o, crew, &dense);

	r->dense = &dense;
	for (unsigned i = 0; i < o->policy.n * o->format.n && !error; i++) {
		struct figures f = { .rows = rows,
				     .policy = o->policy.word[i / o->format.n],
				     .format = o->format.word[i % o->format.n] };

		if (is_dense_f16(f.policy, f.format))
			f = dense;
		else
			error = bench_one(o, crew, &f);
		if (!error)
			show(r, &f);
	}
	return error;
}

static int bench_all(const struct attend_options *o, struct crew *crew)
{
	struct report r = { .options = o, .roofline_gbps = roofline_gbps(crew) };
	int error = 0;

	r.array = json_object_new_array();
	if (!o->json)
		print_head(&r);
	for (unsigned i = 0; i < o->seqlen.n && !error; i++)
		error = bench_rows(&r, crew, (uint32_t)strtoul(o->seqlen.word[i], NULL, 10));
	if (o->json && !error)
		puts(json_object_to_json_string_ext(r.array, JSON_C_TO_STRING_PRETTY));
	json_object_put(r.array);
	return error;
}

/* ---- options ---------------------------------------------------------------- */

enum { SEQLEN = 1, DIM, HEADS, KV_HEADS, FORMAT, POLICY, R, K, THREADS, ISA, SECONDS, JSON };
static const struct option options[] = {
	{ "seqlen", required_argument, NULL, SEQLEN },
	{ "head-dim", required_argument, NULL, DIM },
	{ "heads", required_argument, NULL, HEADS },
	{ "kv-heads", required_argument, NULL, KV_HEADS },
	{ "format", required_argument, NULL, FORMAT },
	{ "policy", required_argument, NULL, POLICY },
	{ "r", required_argument, NULL, R },
	{ "k", required_argument, NULL, K },
	{ "threads", required_argument, NULL, THREADS },
	{ "isa", required_argument, NULL, ISA },
	{ "seconds", required_argument, NULL, SECONDS },
	{ "json", no_argument, NULL, JSON },
	{ 0 },
};

/* Cuts the text at its commas. */
static bool take_list(struct list *list, char *text)
{
	char *save = NULL;

	list->n = 0;
	for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (list->n == ARRAY_SIZE(list->word))
			return false;
		list->word[list->n++] = w;
	}
	return list->n > 0;
}

static bool take_option(struct attend_options *o, int option, char *value)
{
	switch (option) {
	case SEQLEN:
		return take_list(&o->seqlen, value);
	case FORMAT:
		return take_list(&o->format, value);
	case POLICY:
		return take_list(&o->policy, value);
	case R:
		o->r = value;
		return true;
	case K:
		o->k = value;
		return true;
	case ISA:
		o->isa = value;
		return true;
	case JSON:
		o->json = true;
		return true;
	case SECONDS:
		o->seconds = strtod(value, NULL);
		return o->seconds > 0;
	case DIM:
		return (o->dim = (uint32_t)strtoul(value, NULL, 10)) > 0;
	case HEADS:
		return (o->heads = (uint32_t)strtoul(value, NULL, 10)) > 0;
	case KV_HEADS:
		return (o->kv_heads = (uint32_t)strtoul(value, NULL, 10)) > 0;
	case THREADS:
		return (o->threads = (unsigned)strtoul(value, NULL, 10)) > 0;
	}
	return false;
}

int bench_attend(int argc, char **argv)
{
	static char seqlen[] = "4096,131072", format[] = "f16,hier4", policy[] = "dense,sparq";
	struct attend_options o = {
		.dim = 128, .heads = 32, .kv_heads = 8, .threads = 1, .seconds = 1
	};
	struct crew *crew;
	int r;

	take_list(&o.seqlen, seqlen);
	take_list(&o.format, format);
	take_list(&o.policy, policy);
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		if (!take_option(&o, c, optarg))
			return 2;
	if (kv_isa_limit(o.isa)) {
		fprintf(stderr, "sparq-bench: this CPU or build has no %s\n", o.isa);
		return 2;
	}
	r = crew_start(o.threads, &crew);
	if (r)
		return bench_fail(r, "%u threads", o.threads);
	r = bench_all(&o, crew);
	crew_stop(crew);
	return r;
}
