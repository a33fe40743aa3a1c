/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-generate: a language model whose attention is all done by sparqd
 *
 * The main job of the project in one program: load a model, feed it a prompt,
 * let it write, and say what an attention that reads less costs in what the
 * model predicts. What goes to the daemon and back is in attend.c.
 */
#include <cblas.h>
#include <stdio.h>
#include <string.h>

#include "client/examples/grid.h"
#include "client/examples/options.h"
#include "client/examples/progress.h"
#include "client/examples/table.h"
#include "client/examples/why.h"

#define ROWS 3u

struct program {
	struct options options;
	struct llama *model;
	struct text prompt, held_out[SCORE_TEXTS];
	struct score_job job;
	struct row rows[ROWS];
	char words[ROWS][OPTIONS_TEXT];
	unsigned n_rows;
	struct check check;
	char why[WHY_BYTES];
};

static int load(struct program *p)
{
	const struct options *o = &p->options;
	const struct llama_config *c;
	int r = llama_load(o->model, p->why, &p->model);

	if (r < 0)
		return r;
	c = llama_config(p->model);
	progress_say("%s: %u layers, %u query heads, %u KV heads of %u, %u positions", o->model,
		     c->layers, c->heads, c->kv_heads, c->head_dim, c->positions);
	if (o->prompt)
		r = text_read(o->prompt, p->why, &p->prompt);
	for (uint32_t i = 0; r == 0 && i < o->n_held_out; i++)
		r = text_read(o->held_out[i], p->why, &p->held_out[i]);
	if (r < 0)
		return r;
	if (o->context >= c->positions)
		return why_set(p->why, -EINVAL, "--context %u: the model has %u positions",
			       o->context, c->positions);
	p->job = (struct score_job){
		.texts = p->held_out,
		.n_texts = o->n_held_out,
		.positions = c->positions,
		.context = o->context,
		.count = o->count ? MIN(o->count, c->positions - o->context)
				  : c->positions - o->context,
		.max_windows = o->windows,
	};
	return 0;
}

static int run_check(struct program *p)
{
	const struct options *o = &p->options;
	int r = check_run(p->model, &o->daemon, o->check, o->windows, p->why, &p->check);

	if (r < 0)
		return r;
	if (!o->json)
		table_print_check(stdout, &p->check);
	if (!p->check.passed)
		return why_set(p->why, -EDOM, "dense attention does not predict what %s says",
			       o->check);
	return 0;
}

static void add_row(struct program *p, const char *label, const char *policy, const char *format)
{
	const struct options *o = &p->options;
	struct row *row = &p->rows[p->n_rows];

	/* In a comparison, words are for the policy that is compared. */
	options_words(policy, o->r, o->k, strcmp(policy, o->policy) == 0 ? o->extra : "",
		      p->words[p->n_rows]);
	row->setting = (struct setting){ label, policy, format, p->words[p->n_rows] };
	p->n_rows++;
}

static void choose_rows(struct program *p)
{
	const struct options *o = &p->options;

	if (!o->compare) {
		add_row(p, o->policy, o->policy, o->format);
		return;
	}
	add_row(p, "dense f16", "dense", "f16");
	add_row(p, strcmp(o->policy, "sparq") == 0 ? "SparQ f16" : "f16", o->policy, "f16");
	add_row(p,
		strcmp(o->policy, "sparq") == 0 && strcmp(o->format, "hier4") == 0 ? "SparQ hier4"
										   : o->format,
		o->policy, o->format);
}

static int write_text(struct program *p, struct row *row)
{
	const struct options *o = &p->options;
	const struct sample_params params = { &p->prompt, o->tokens, o->temperature, o->seed };
	struct forward *f;
	int r = forward_open(p->model, &o->daemon, &row->setting, 1, p->why, &f);

	if (r < 0)
		return r;
	r = sample_run(f, llama_config(p->model), &params, row->setting.label, p->why,
		       &row->sample);
	forward_close(f);
	if (r < 0)
		return r;
	row->sampled = true;
	if (!o->json) {
		printf("---- %s, %u bytes after a prompt of %u ----\n", row->setting.label,
		       row->sample.n, row->sample.prompt_bytes);
		fwrite(row->sample.bytes, 1, row->sample.n, stdout);
		printf("\n----\n");
		fflush(stdout);
	}
	return 0;
}

static int score_texts(struct program *p, struct row *row)
{
	int r = score_lanes(&p->job, p->why);
	struct forward *f;

	if (r < 0)
		return r;
	r = forward_open(p->model, &p->options.daemon, &row->setting, (uint32_t)r, p->why, &f);
	if (r < 0)
		return r;
	progress_say("%s: %u predictions in each of %u windows, after %u bytes", row->setting.label,
		     p->job.count, forward_lanes(f), p->job.context);
	r = score_run(f, &p->job, row->setting.label, p->why, &row->score);
	forward_close(f);
	row->scored = r == 0;
	return r;
}

static int run_rows(struct program *p)
{
	int r = 0;

	choose_rows(p);
	for (unsigned i = 0; r == 0 && i < p->n_rows; i++) {
		if (p->options.prompt)
			r = write_text(p, &p->rows[i]);
		if (r == 0 && p->options.n_held_out)
			r = score_texts(p, &p->rows[i]);
	}
	return r;
}

static int run(struct program *p)
{
	const struct options *o = &p->options;
	int r = load(p);

	if (r == 0 && o->check)
		r = run_check(p);
	if (r == 0 && o->grid)
		return grid_run(p->model, o, &p->job, stdout, p->why);
	if (r == 0 && (o->prompt || o->n_held_out))
		r = run_rows(p);
	if (r < 0)
		return r;
	if (o->json)
		table_print_json(stdout, o->check ? &p->check : NULL, p->rows, p->n_rows,
				 p->held_out, o->n_held_out);
	else if (p->n_rows)
		table_print(stdout, p->rows, p->n_rows, p->held_out, o->n_held_out);
	return 0;
}

static void deinit(struct program *p)
{
	for (unsigned i = 0; i < ROWS; i++)
		sample_deinit(&p->rows[i].sample);
	for (unsigned i = 0; i < SCORE_TEXTS; i++)
		text_deinit(&p->held_out[i]);
	text_deinit(&p->prompt);
	llama_free(p->model);
}

int main(int argc, char **argv)
{
	CLEANUP(deinit) struct program p = { 0 };
	int r = options_parse(&p.options, argc, argv);

	if (r == OPTIONS_DONE)
		return 0;
	if (r < 0)
		return 2;
	/* The cores are the daemon's: a second thread of BLAS would spin on one of them. */
	openblas_set_num_threads(1);
	r = run(&p);
	if (r < 0) {
		fprintf(stderr, "sparq-generate: %s\n", p.why);
		return 1;
	}
	return 0;
}
