/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways of taking rows: as in the paper (all rows compete for k places:
 * tail=select, no sinks) and as the daemon does by default (sinks and tail in
 * addition to the k). A table of each.
 */
#include <stdio.h>
#include <string.h>

#include "client/examples/grid.h"
#include "client/examples/progress.h"
#include "client/examples/why.h"
#include "shm/base.h"

#define WINDOW 0 /* in place of r */
#define LABEL_BYTES 96

static const uint32_t rs[] = { WINDOW, 4, 8, 16, 32 };
static const uint32_t ks[] = { 32, 64, 128, 256 };
static const struct {
	const char *title, *words;
} ways[] = {
	{ "the paper's: k of all rows", "tail=select sinks=0" },
	{ "the default: k, and sinks and tail in addition", "" },
};

struct grid {
	const struct llama *model;
	const struct options *options;
	const struct score_job *job;
	FILE *to;
	struct score dense;
};

static int run_cell(const struct grid *g, const struct setting *s, char *why, struct score *ret)
{
	struct forward *f;
	int r = score_lanes(g->job, why);

	if (r >= 0)
		r = forward_open(g->model, &g->options->daemon, s, (uint32_t)r, why, &f);
	if (r < 0)
		return r;
	r = score_run(f, g->job, s->label, why, ret);
	forward_close(f);
	return r;
}

static void print_cell(const struct grid *g, const struct score *s)
{
	fputc(' ', g->to);
	for (uint32_t i = 0; i < g->job->n_texts; i++)
		fprintf(g->to, "%s%.4f", i ? " / " : "", s->bits_per_byte[i]);
	fputs(" (", g->to);
	for (uint32_t i = 0; i < g->job->n_texts; i++)
		fprintf(g->to, "%s%+.2f%%", i ? " / " : "",
			100 * (s->bits_per_byte[i] / g->dense.bits_per_byte[i] - 1));
	fprintf(g->to, "; 1/%.1f)", (double)s->count.f16_bytes / (double)s->count.read_bytes);
	fflush(g->to);
}

static int run_line(const struct grid *g, uint32_t r, const char *words, char *why)
{
	const char *policy = r == WINDOW ? "window" : "sparq";
	char extra[OPTIONS_TEXT / 2], options[OPTIONS_TEXT], label[LABEL_BYTES];

	snprintf(extra, sizeof(extra), "%s%s%s", words, *words ? " " : "", g->options->extra);
	if (r == WINDOW)
		fputs("| sinks (16) + window |", g->to);
	else
		fprintf(g->to, "| SparQ r = %u |", r);
	for (unsigned i = 0; i < ARRAY_SIZE(ks); i++) {
		const struct setting s = { label, policy, g->options->format, options };
		struct score score;
		int error;

		options_words(policy, r, ks[i], r == WINDOW ? "" : extra, options);
		snprintf(label, sizeof(label), "%s %.80s", policy, options);
		error = run_cell(g, &s, why, &score);
		if (error < 0)
			return error;
		print_cell(g, &score);
		fputs(" |", g->to);
	}
	fputc('\n', g->to);
	return 0;
}

static int run_way(const struct grid *g, unsigned way, char *why)
{
	fprintf(g->to, "\nRows taken: %s.\n\n| |", ways[way].title);
	for (unsigned i = 0; i < ARRAY_SIZE(ks); i++)
		fprintf(g->to, " k = %u |", ks[i]);
	fputs("\n|---|", g->to);
	for (unsigned i = 0; i < ARRAY_SIZE(ks); i++)
		fputs("---|", g->to);
	fputc('\n', g->to);
	for (unsigned i = 0; i < ARRAY_SIZE(rs); i++) {
		int r;

		if (rs[i] == WINDOW && way > 0)
			continue; /* a window is the same in all ways */
		r = run_line(g, rs[i], ways[way].words, why);
		if (r < 0)
			return r;
	}
	return 0;
}

int grid_run(const struct llama *m, const struct options *o, const struct score_job *job, FILE *to,
	     char *why)
{
	struct grid g = { .model = m, .options = o, .job = job, .to = to };
	const struct setting dense = { "dense", "dense", o->format, "" };
	const double start = progress_seconds();
	int r = run_cell(&g, &dense, why, &g.dense);

	if (r < 0)
		return r;
	fprintf(to, "Bits per byte (loss; bytes read against dense f16) over %s: ", o->format);
	for (uint32_t i = 0; i < job->n_texts; i++)
		fprintf(to, "%s%s", i ? " / " : "", job->texts[i].name);
	fprintf(to, ", predictions %u to %u of each window of %u. Dense:", job->context,
		job->context + job->count - 1, job->positions);
	print_cell(&g, &g.dense);
	fputc('\n', to);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(ways); i++)
		r = run_way(&g, i, why);
	progress_say("grid: %.0f s", progress_seconds() - start);
	return r;
}
