/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench attend: attention of one decoding step, one layer, over
 * sequences that are in no cache, beside what this machine reads in the same
 * minute: the roofline is measured before each figure, and the median of a
 * length's is what its figures are compared with.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/bench.h"

#define MOST_SAMPLES 4096u
#define LEAST_SAMPLES 5u
#define TURNS 8u     /* here, before as many through the daemon */
#define REST_US 2000 /* until workers without work sleep */

struct measuring { /* one length */
	const struct attend_options *options;
	enum rig_pages pages;
	struct roofline *roofline;
	struct bench_format *format; /* [options->format.n] */
	double *roof[BENCH_LIST];    /* samples by thread count */
	unsigned n_roof[BENCH_LIST];
	struct figures *figures;
	unsigned n_figures;
};

/* ---- one figure -------------------------------------------------------------------- */

struct samples {
	double *here, *remote;
	unsigned n_here, n_remote;
};

static bool more(unsigned n, double begin, double seconds)
{
	return n < MOST_SAMPLES && (n < LEAST_SAMPLES || bench_now_ns() - begin < seconds * 1e9);
}

/* In this process alone. */
static void measure_here(struct bench_step *s, struct crew *crew, double seconds,
			 struct samples *ret)
{
	double begin = bench_now_ns();

	while (more(ret->n_here, begin, seconds)) {
		double start = bench_now_ns();

		bench_step_run(s, crew, ret->n_here);
		ret->here[ret->n_here++] = (bench_now_ns() - start) / 1e6;
	}
}

static int turns_here(struct bench_step *s, unsigned threads, unsigned turn, struct samples *ret)
{
	struct crew *crew;
	int r = crew_start(threads, &crew);

	if (r)
		return r;
	bench_step_run(s, crew, turn + TURNS); /* threads that have just begun */
	for (unsigned i = 0; i < TURNS; i++) {
		double start = bench_now_ns();

		bench_step_run(s, crew, turn + i);
		ret->here[ret->n_here++] = (bench_now_ns() - start) / 1e6;
	}
	crew_stop(crew); /* its threads wait spinning */
	return 0;
}

static int turns_remote(struct bench_remote *remote, unsigned turn, struct samples *ret)
{
	double ms;
	int r = bench_remote_step(remote, turn + TURNS, &ms); /* workers that slept */

	for (unsigned i = 0; i < TURNS && r == 0; i++)
		r = bench_remote_step(remote, turn + i, &ret->remote[ret->n_remote++]);
	return r;
}

/* In turn with a daemon. While one side runs, the other's threads sleep or are gone. */
static int measure_both(struct bench_step *s, unsigned threads, double seconds, struct samples *ret)
{
	struct bench_remote *remote;
	double begin;
	int r = bench_remote_start(s->rows, threads, &remote);

	if (r)
		return r;
	begin = bench_now_ns();
	for (unsigned turn = 0; more(turn + TURNS, begin, 2 * seconds) && r == 0; turn += TURNS) {
		usleep(REST_US);
		r = turns_here(s, threads, turn, ret);
		if (r == 0)
			r = turns_remote(remote, turn, ret);
		if (r == 0)
			r = bench_remote_compare(remote, s);
	}
	if (r == -EBADMSG)
		bench_fail(r, "the daemon's answer is not what this process computes");
	bench_remote_stop(remote);
	return r;
}

/* Of the same sequence and queries, milliseconds apart: the machine's moods cancel. */
static double added_us(const struct samples *m)
{
	FREE_MEMORY double *more = calloc(m->n_remote, sizeof(*more));

	if (!more)
		return 0;
	for (unsigned i = 0; i < m->n_remote; i++)
		more[i] = 1e3 * (m->remote[i] - m->here[i]);
	return bench_median(more, m->n_remote);
}

static void take_samples(const struct bench_step *s, struct samples *m, struct figures *f)
{
	if (m->n_remote) {
		f->added_us = added_us(m);
		f->remote_ms = bench_median(m->remote, m->n_remote);
	}
	f->median_ms = bench_median(m->here, m->n_here);
	f->min_ms = m->here[0];
	f->samples = m->n_here;
	f->sequences = s->rows->n;
	f->bytes_read = bench_step_bytes(s, f->bytes);
	f->cold_bytes = f->bytes_read * f->sequences;
}

static int measure(struct measuring *m, struct bench_step *s, unsigned t, bool remote,
		   struct figures *f)
{
	const struct attend_options *o = m->options;
	FREE_MEMORY double *sample = calloc(2 * (MOST_SAMPLES + TURNS), sizeof(*sample));
	struct samples got = { .here = sample, .remote = sample + MOST_SAMPLES + TURNS };
	struct crew *crew;
	int r = sample ? crew_start(f->threads, &crew) : -ENOMEM;

	if (r)
		return r;
	m->roof[t][m->n_roof[t]++] = roofline_gbps(m->roofline, crew);
	for (unsigned i = 0; i < s->rows->n; i++) /* pages of scratch, branch history */
		bench_step_run(s, crew, i);
	if (!remote)
		measure_here(s, crew, o->seconds, &got);
	crew_stop(crew);
	if (remote)
		r = measure_both(s, f->threads, o->seconds, &got);
	if (!r)
		take_samples(s, &got, f);
	return r;
}

/* ---- one length ---------------------------------------------------------------------- */

/* One policy and format, with each number of threads. */
static int bench_cell(struct measuring *m, uint32_t rows, const char *policy,
		      const struct bench_format *format, bool remote)
{
	const struct attend_options *o = m->options;
	struct bench_shape shape = {
		.options = o, .rows = rows, .format = *format, .policy = policy, .pages = m->pages
	};
	char why[KV_ERROR_TEXT];
	struct bench_rows b;
	struct bench_step step = { 0 };
	int r = bench_rows_init(&b, &shape, why);

	if (r)
		fprintf(stderr, "sparq-bench: %s %s: %s\n", policy, format->name, why);
	else if (!bench_step_init(&step, &b, false))
		r = bench_fail(-ENOMEM, "%s %s", policy, format->name);
	for (unsigned t = 0; t < o->threads.n && !r; t++) {
		struct figures f = { .rows = rows,
				     .policy = policy,
				     .format = format,
				     .threads = o->threads.value[t] };

		r = measure(m, &step, t, remote, &f);
		m->figures[m->n_figures++] = f;
	}
	bench_step_deinit(&step);
	bench_rows_deinit(&b);
	return r ? 1 : 0;
}

static bool is_dense_f16(const struct figures *f)
{
	return !strcmp(f->policy, "dense") && !strcmp(f->format->name, "f16");
}

/* What a figure is compared with is known when all of its length are there. */
static void settle_figures(struct measuring *m, const struct figures *dense)
{
	unsigned n = m->options->threads.n;

	for (unsigned i = 0; i < m->n_figures; i++) {
		struct figures *f = &m->figures[i];
		unsigned t = i % n;

		f->roof_gbps = bench_median(m->roof[t], m->n_roof[t]);
		f->dense_ms = dense[t].median_ms;
		f->scaling = m->figures[i - t].median_ms / f->median_ms;
	}
}

static int last_rooflines(struct measuring *m)
{
	for (unsigned t = 0; t < m->options->threads.n; t++) {
		struct crew *crew;
		int r = crew_start(m->options->threads.value[t], &crew);

		if (r)
			return bench_fail(r, "%u threads", m->options->threads.value[t]);
		m->roof[t][m->n_roof[t]++] = roofline_gbps(m->roofline, crew);
		crew_stop(crew);
	}
	return 0;
}

/* Dense f16 comes first, asked for or not: the others are compared with it. */
static int bench_length(struct measuring *m, uint32_t rows, struct report *report)
{
	static const struct bench_format f16 = { .k = "f16", .v = "f16", .name = "f16" };
	const struct attend_options *o = m->options;
	bool asked = false;
	int r;

	m->n_figures = 0;
	memset(m->n_roof, 0, sizeof(m->n_roof));
	r = bench_cell(m, rows, "dense", &f16, false);
	for (unsigned i = 0; i < o->policy.n * o->format.n && !r; i++) {
		const char *policy = o->policy.word[i / o->format.n];
		const struct bench_format *format = &m->format[i % o->format.n];
		bool same = !strcmp(policy, "dense") && !strcmp(format->name, "f16");

		asked |= same && !o->through_daemon;
		if (!same || o->through_daemon)
			r = bench_cell(m, rows, policy, format, o->through_daemon);
	}
	if (!r)
		r = last_rooflines(m);
	if (r)
		return r;
	settle_figures(m, m->figures);
	for (unsigned i = 0; i < m->n_figures; i++)
		if (i >= o->threads.n || (asked && is_dense_f16(&m->figures[i])))
			report_add(report, &m->figures[i]);
	return 0;
}

/* ---- options ------------------------------------------------------------------------- */

#define AT(field) offsetof(struct attend_options, field)
static const struct bench_option table[] = {
	{ "seqlen", BENCH_NUMBERS, AT(seqlen), 1, 1u << 26, "N,...", "rows, 4096,131072" },
	{ "head-dim", BENCH_NUMBER, AT(dim), 1, KV_MAX_DIM, "N", "channels of a head, 128" },
	{ "heads", BENCH_NUMBER, AT(heads), 1, 1024, "N", "query heads, 32" },
	{ "kv-heads", BENCH_NUMBER, AT(kv_heads), 1, 1024, "N", "KV heads, 8" },
	{ "format", BENCH_WORDS, AT(format), 0, 0, "NAME,...",
	  "f16,hier4; K/V for two, /U for upper planes" },
	{ "level", BENCH_NUMBER, AT(level), 0, 1, "N", "1: as with /U where it is possible" },
	{ "policy", BENCH_WORDS, AT(policy), 0, 0, "NAME,...", "dense,sparq" },
	{ "r", BENCH_NUMBER, AT(r), 1, KV_MAX_DIM, "N", "sparq: channels that score, 32" },
	{ "k", BENCH_NUMBER, AT(k), 1, 65536, "N", "sparq: rows attended, 128" },
	{ "queries", BENCH_NUMBER, AT(queries), 1, KV_MAX_DECODE_Q, "N",
	  "new rows that ask at once, 1" },
	{ "threads", BENCH_NUMBERS, AT(threads), 1, 256, "N,...", "1; more are compared with it" },
	{ "isa", BENCH_TEXT, AT(isa), 0, 0, "NAME", "nothing beyond this instruction set" },
	{ "pages", BENCH_TEXT, AT(pages), 0, 0, "KIND", "thp, 4k, or 2m: reserved huge pages" },
	{ "cold", BENCH_NUMBER, AT(cold_mib), 1, 1u << 20, "MIB",
	  "read between two uses of a line, 4 x L3" },
	{ "memory", BENCH_NUMBER, AT(memory_mib), 64, 1u << 24, "MIB",
	  "for equal sequences in turn, 3072" },
	{ "seconds", BENCH_SECONDS, AT(seconds), 0, 0, "S", "for each figure, 1" },
	{ "through-daemon", BENCH_SWITCH, AT(through_daemon), 0, 0, NULL,
	  "the same steps through a daemon, too" },
	{ "poll", BENCH_SWITCH, AT(poll), 0, 0, NULL, "its client polls, and never sleeps" },
	{ "spin", BENCH_NUMBER, AT(spin_us), 0, 1000000, "US",
	  "it polls so long, then sleeps; 0: as advised" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "break-even", BENCH_SWITCH, AT(break_even), 0, 0, NULL,
	  "from how many rows sparq is faster" },
	{ "planes", BENCH_SWITCH, AT(planes), 0, 0, NULL, "bytes read by plane, too" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "all of it, for programs" },
};

/* As the daemon's are where it has one: its pool is shared memory. */
static int take_pages(const struct attend_options *o, enum rig_pages *ret)
{
	static const struct {
		const char *name;
		enum rig_pages pages;
	} kinds[] = { { "thp", RIG_THP }, { "4k", RIG_SMALL }, { "2m", RIG_HUGE } };

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(o->pages, kinds[i].name))
			continue;
		*ret = kinds[i].pages == RIG_HUGE || !o->through_daemon ? kinds[i].pages
									: RIG_SHARED;
		return 0;
	}
	fprintf(stderr, "sparq-bench: attend: --pages \"%s\": allowed are thp, 4k, 2m\n", o->pages);
	return 2;
}

static int check_heads(const struct attend_options *o)
{
	if (o->heads % o->kv_heads == 0)
		return 0;
	fprintf(stderr,
		"sparq-bench: attend: --heads %u: allowed is a multiple of --kv-heads, %u\n",
		o->heads, o->kv_heads);
	return 2;
}

static int parse_formats(struct measuring *m)
{
	const struct attend_options *o = m->options;
	char why[KV_ERROR_TEXT];

	for (unsigned i = 0; i < o->format.n; i++)
		if (bench_format_parse(o->format.word[i], o->level, &m->format[i], why)) {
			fprintf(stderr, "sparq-bench: attend: --format: %s\n", why);
			return 2;
		}
	return 0;
}

static int measuring_init(struct measuring *m)
{
	const struct attend_options *o = m->options;
	unsigned cells = o->policy.n * o->format.n + 1;
	bool complete;

	m->format = calloc(o->format.n, sizeof(*m->format));
	m->figures = calloc(cells * o->threads.n, sizeof(*m->figures));
	complete = m->format && m->figures;
	for (unsigned t = 0; t < o->threads.n; t++) {
		m->roof[t] = calloc(cells + 1, sizeof(double));
		complete &= m->roof[t] != NULL;
	}
	if (!complete)
		return bench_fail(-ENOMEM, "attend");
	m->roofline = roofline_new(m->pages);
	if (m->roofline)
		return parse_formats(m);
	fprintf(stderr, "sparq-bench: attend: 256 MiB to measure the roofline: %s\n",
		m->pages == RIG_HUGE ? "too few huge pages: reserve more with "
				       "\"sysctl vm.nr_hugepages=N\", 2 MiB each"
				     : "no memory");
	return 1;
}

static void measuring_deinit(struct measuring *m)
{
	roofline_free(m->roofline);
	for (unsigned t = 0; t < BENCH_LIST; t++)
		free(m->roof[t]);
	free(m->figures);
	free(m->format);
}

static int bench_all(const struct attend_options *o, enum rig_pages pages)
{
	CLEANUP(measuring_deinit) struct measuring m = { .options = o, .pages = pages };
	struct report *report;
	int r = measuring_init(&m);

	if (r)
		return r;
	report = report_new(o, pages == RIG_SHARED ? "shared" : o->pages);
	if (!report)
		return bench_fail(-ENOMEM, "attend");
	for (unsigned i = 0; i < o->seqlen.n && !r; i++)
		r = bench_length(&m, o->seqlen.value[i], report);
	report_end(report);
	return r;
}

int bench_attend(int argc, char **argv)
{
	struct attend_options o = {
		.seqlen = { { 4096, 131072 }, 2 },
		.threads = { { 1 }, 1 },
		.format = { { "f16", "hier4" }, 2 },
		.policy = { { "dense", "sparq" }, 2 },
		.pages = "thp",
		.dim = 128,
		.heads = 32,
		.kv_heads = 8,
		.queries = 1,
		.memory_mib = 3072,
		.seconds = 1,
	};
	enum rig_pages pages;
	int r = bench_options(table, ARRAY_SIZE(table),
			      "Attention of one decoding step, one layer, cold.", &o, argc, argv);

	if (r)
		return r == 1 ? 0 : r;
	r = take_pages(&o, &pages);
	r = r ? r : check_heads(&o);
	r = r ? r : bench_isa(argv[0], o.isa);
	if (r)
		return r;
	return o.break_even ? bench_break_even(&o, pages) : bench_all(&o, pages);
}
