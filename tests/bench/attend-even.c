/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench attend --break-even: from how many rows on a cache of policy
 * sparq is read faster by sparq than whole.
 *
 * Both run over the same rows, in turn, on sequences half a round apart, so that
 * neither finds what the other has just read. The length is doubled until sparq
 * wins, then the interval halved.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/bench.h"

#define LEAST_ROWS 128u
#define STEP_ROWS 64u /* as precise as it is sought */
#define MOST_SAMPLES 4096u

struct even {
	const struct attend_options *options;
	enum rig_pages pages;
	struct bench_format format;
	unsigned threads;
	double sparq_us, dense_us; /* of the last length */
};

static double timed_us(struct bench_step *s, struct crew *crew, unsigned turn)
{
	double begin = bench_now_ns();

	bench_step_run(s, crew, turn);
	return (bench_now_ns() - begin) / 1e3;
}

/* sparq's time over dense's. */
static int compare_steps(struct even *e, struct bench_rows *b, struct crew *crew, double *ret)
{
	FREE_MEMORY double *sample = calloc(2 * MOST_SAMPLES, sizeof(*sample));
	struct bench_step sparq = { 0 }, dense = { 0 };
	double begin;
	unsigned n = 0;
	int r = -ENOMEM;

	if (sample && bench_step_init(&sparq, b, false) && bench_step_init(&dense, b, true)) {
		for (unsigned i = 0; i < b->n; i++)
			bench_step_run(&dense, crew, i);
		begin = bench_now_ns();
		for (; n < MOST_SAMPLES &&
		       (n < 25 || bench_now_ns() - begin < e->options->seconds * 1e9);
		     n++) {
			sample[n] = timed_us(&sparq, crew, n);
			sample[MOST_SAMPLES + n] = timed_us(&dense, crew, n + b->n / 2);
		}
		e->sparq_us = bench_median(sample, n);
		e->dense_us = bench_median(sample + MOST_SAMPLES, n);
		*ret = e->sparq_us / e->dense_us;
		r = 0;
	}
	bench_step_deinit(&sparq);
	bench_step_deinit(&dense);
	return r;
}

static int measure_at(struct even *e, uint32_t rows, double *ret)
{
	struct bench_shape shape = { .options = e->options,
				     .rows = rows,
				     .format = e->format,
				     .policy = "sparq",
				     .pages = e->pages,
				     .sparse = true };
	char why[KV_ERROR_TEXT];
	struct bench_rows b;
	struct crew *crew;
	int r = bench_rows_init(&b, &shape, why);

	if (r) {
		fprintf(stderr, "sparq-bench: %s: %s\n", e->format.name, why);
	} else {
		r = crew_start(e->threads, &crew);
		if (!r) {
			r = compare_steps(e, &b, crew, ret);
			crew_stop(crew);
		}
		if (r)
			bench_fail(r, "%u rows", rows);
	}
	bench_rows_deinit(&b);
	return r;
}

/* The least multiple of STEP_ROWS where sparq is faster; above `most`: nowhere up to there. */
static int find(struct even *e, uint32_t most, uint32_t *ret)
{
	uint32_t low = 0, high = LEAST_ROWS;
	double ratio;
	int r;

	while ((r = measure_at(e, high, &ratio)) == 0 && ratio >= 1 && high <= most) {
		low = high;
		high *= 2;
	}
	while (r == 0 && high <= most && high - low > STEP_ROWS) {
		uint32_t middle = ALIGN_UP(low + (high - low) / 2, STEP_ROWS);

		if (middle == high)
			break;
		r = measure_at(e, middle, &ratio);
		*(ratio < 1 ? &high : &low) = middle;
	}
	*ret = high;
	return r;
}

struct sparq_preset { /* of the policy as built */
	uint32_t k, dense_below;
};

static struct sparq_preset preset(const struct attend_options *o)
{
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	const struct kv_policy *policy = kv_policy_find("sparq");
	struct sparq_preset p;
	char text[32] = "0";

	kv_policy_defaults(policy, args);
	kv_policy_get(policy, args, "k", text, sizeof(text));
	p.k = o->k ? o->k : (uint32_t)strtoul(text, NULL, 10);
	kv_policy_get(policy, args, "dense_below", text, sizeof(text));
	p.dense_below = (uint32_t)strtoul(text, NULL, 10);
	return p;
}

static void add_json(struct json_object *array, const struct even *e, uint32_t rows, bool found)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "format", json_object_new_string(e->format.name));
	json_object_object_add(o, "isa", json_object_new_string(kv_isa_name()));
	json_object_object_add(o, "threads", json_object_new_uint64(e->threads));
	json_object_object_add(o, "break_even_rows", found ? json_object_new_uint64(rows) : NULL);
	json_object_array_add(array, o);
}

static void print_one(const struct even *e, uint32_t rows, bool found, struct sparq_preset p)
{
	uint32_t now = MAX(2 * p.k, p.dense_below);

	printf("%-13s %7u ", e->format.name, e->threads);
	if (!found)
		printf("%10s  sparq is slower at %u rows, too: %.0f us, dense %.0f us\n", "none",
		       rows / 2, e->sparq_us, e->dense_us);
	else
		printf("%10u  the policy is dense up to %u: %s\n", rows, now,
		       rows > now + STEP_ROWS   ? "too few"
		       : rows + STEP_ROWS < now ? "too many"
						: "right");
	fflush(stdout);
}

static int bench_format(struct even *e, struct json_object *array)
{
	const struct attend_options *o = e->options;
	uint32_t most = 0, rows;
	int r = 0;

	for (unsigned i = 0; i < o->seqlen.n; i++)
		most = MAX(most, o->seqlen.value[i]);
	for (unsigned t = 0; t < o->threads.n && !r; t++) {
		e->threads = o->threads.value[t];
		r = find(e, most, &rows);
		if (r)
			break;
		if (o->json)
			add_json(array, e, rows, rows <= most);
		else
			print_one(e, rows, rows <= most, preset(o));
	}
	return r;
}

int bench_break_even(const struct attend_options *o, enum rig_pages pages)
{
	struct json_object *array = json_object_new_array();
	struct even e = { .options = o, .pages = pages };
	char why[KV_ERROR_TEXT];
	int r = 0;

	if (!o->json)
		printf("%-13s %7s %10s  (r and k as given, %s)\n", "format", "threads",
		       "break-even", kv_isa_name());
	for (unsigned i = 0; i < o->format.n && !r; i++) {
		r = bench_format_parse(o->format.word[i], o->level, &e.format, why);
		if (r)
			fprintf(stderr, "sparq-bench: attend: --format: %s\n", why);
		else
			r = bench_format(&e, array);
	}
	if (o->json && !r)
		puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY |
								   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(array);
	return r ? 1 : 0;
}
