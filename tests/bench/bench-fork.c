/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench fork: what it costs to begin a sequence with the rows of another
 * one, of which part the time is, and what the first rows after it cost; cuts of a
 * long sequence beside it. Nothing of that may depend on how many rows there are.
 */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "kernels/kernels.h"
#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/fork.h"

struct sparq_msg_cache_create fork_request(const struct fork_options *o)
{
	struct sparq_msg_cache_create m = {
		.layers = o->layers,
		.heads = o->kv_heads,
		.kv_heads = o->kv_heads,
		.k_dim = o->dim,
		.v_dim = o->dim,
		.dtype = SPARQ_DTYPE_F16,
		.policy = "dense",
	};

	snprintf(m.k_format, sizeof(m.k_format), "%s", o->format);
	snprintf(m.options, sizeof(m.options), "%s", o->options);
	return m;
}

/* ---- output ------------------------------------------------------------------------ */

#define LINES 9
struct line {
	const char *name, *help;
	const struct fork_figure *figure;
};

static void list(const struct fork_figures *f, struct line ret[LINES])
{
	const struct line lines[LINES] = {
		{ "fork_of_0_rows", "records of the layers alone", &f->records },
		{ "fork_of_tiles", "and a reference to each table", &f->sealed },
		{ "fork", "and to each page of the tail", &f->all },
		{ "drop", "of the fork", &f->drop },
		{ "truncate_in_tail", "by a row", &f->draft },
		{ "truncate_below", "into the newest tiles", &f->below },
		{ "append_after", "all layers: pages of the tail are copied", &f->append },
		{ "prefix", "as many token ids hashed, looked up, and the fork", &f->prefix },
		{ "through_daemon", "a fork by a control call", &f->remote },
	};

	memcpy(ret, lines, sizeof(lines));
}

static void print(const struct fork_options *o, const struct fork_figures *f)
{
	struct line line[LINES];

	list(f, line);
	printf("%u rows of %u layers, %u KV heads, d = %u, %s; us\n%-17s %9s %9s %9s\n", o->rows,
	       o->layers, o->kv_heads, o->dim, o->format, "", "median", "min", "cold");
	for (unsigned i = 0; i < LINES; i++) {
		const struct fork_figure *x = line[i].figure;

		if (x->least > 0)
			printf("%-17s %9.1f %9.1f %9.1f  %s\n", line[i].name, x->median, x->least,
			       x->cold, line[i].help);
	}
}

static void print_json(const struct fork_options *o, const struct fork_figures *f)
{
	struct json_object *j = json_object_new_object();
	struct line line[LINES];
	char name[48];

	list(f, line);
	json_object_object_add(j, "rows", json_object_new_uint64(o->rows));
	json_object_object_add(j, "layers", json_object_new_uint64(o->layers));
	for (unsigned i = 0; i < LINES; i++) {
		const struct fork_figure *x = line[i].figure;

		if (!(x->least > 0))
			continue;
		snprintf(name, sizeof(name), "%s_us", line[i].name);
		json_object_object_add(j, name, json_object_new_double(x->median));
		snprintf(name, sizeof(name), "%s_min_us", line[i].name);
		json_object_object_add(j, name, json_object_new_double(x->least));
		snprintf(name, sizeof(name), "%s_cold_us", line[i].name);
		json_object_object_add(j, name, json_object_new_double(x->cold));
	}
	puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY));
	json_object_put(j);
}

/* ---- all of it ----------------------------------------------------------------------- */

#define AT(field) offsetof(struct fork_options, field)
static const struct bench_option table[] = {
	{ "rows", BENCH_NUMBER, AT(rows), 2, 1u << 24, "N", "of the sequence, 100000" },
	{ "layers", BENCH_NUMBER, AT(layers), 1, 256, "N", "32" },
	{ "head-dim", BENCH_NUMBER, AT(dim), 1, KV_MAX_DIM, "N", "channels of a head, 128" },
	{ "kv-heads", BENCH_NUMBER, AT(kv_heads), 1, 1024, "N", "KV heads, 8" },
	{ "format", BENCH_TEXT, AT(format), 0, 0, "NAME", "hier4" },
	{ "options", BENCH_TEXT, AT(options), 0, 0, "WORDS", "of the cache" },
	{ "rounds", BENCH_NUMBER, AT(rounds), 1, 1u << 20, "N", "forks, 1000" },
	{ "through-daemon", BENCH_SWITCH, AT(through_daemon), 0, 0, NULL,
	  "by control calls, too; rows are written" },
	{ "pool", BENCH_NUMBER, AT(mebibytes), 64, 1u << 20, "MIB", "of that daemon, 9800" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "for programs" },
};

int bench_fork(int argc, char **argv)
{
	struct fork_options o = {
		.format = "hier4",
		.options = "",
		.rows = 100000,
		.layers = 32,
		.kv_heads = 8,
		.dim = 128,
		.rounds = 1000,
		.mebibytes = 9800,
	};
	struct fork_figures f = { 0 };
	int r = bench_options(table, ARRAY_SIZE(table), "A sequence that begins as another one.",
			      &o, argc, argv);

	if (r)
		return r == 1 ? 0 : r;
	r = fork_here(&o, &f);
	if (r == 0 && o.through_daemon)
		r = fork_remote(&o, &f.remote);
	if (r < 0)
		return bench_fail(r, "fork");
	if (o.json)
		print_json(&o, &f);
	else
		print(&o, &f);
	return 0;
}
