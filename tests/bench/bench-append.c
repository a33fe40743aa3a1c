/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench append: what a row costs (k and v of all KV heads, one layer)
 * when it is appended to a growing sequence, the flush of tiles included: every
 * 128th row pays for 128. Here on one thread, and through a daemon of one
 * worker, each entry awaited before the next.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/append.h"
#include "tests/bench/bench.h"

#define MOST_ROUNDS 512u

struct append_figures {
	const char *format;
	uint32_t entry;
	double here_ns, least_ns, flush_us, remote_ns; /* a row; a tile of all heads */
	unsigned rounds;
};

/* ---- here ------------------------------------------------------------------------ */

static void empty(struct rig *rig, const struct append_rows *rows)
{
	rig_cut(rig, 0);
	rig->used = rows->used; /* extents are laid where those of the last round were */
}

static double grow(struct rig *rig, const struct append_rows *rows, uint32_t entry)
{
	uint32_t row = 0;
	double begin;

	empty(rig, rows);
	begin = bench_now_ns();
	for (; row + entry <= rows->n; row += entry)
		rig_append(rig, append_block(rows, row), entry, entry);
	return (bench_now_ns() - begin) / row;
}

/* Flushes alone, a tile of all KV heads. */
static double flush_us(struct rig *rig, const struct append_rows *rows)
{
	uint32_t tiles = 0;
	double sum = 0;

	empty(rig, rows);
	for (uint32_t row = 0; row + 16 <= rows->n; row += 16) {
		uint32_t before = rig->view.tail_first;
		double begin;

		rig_write(rig, append_block(rows, row), 16);
		begin = bench_now_ns();
		rig_flush(rig);
		if (rig->view.tail_first != before) {
			sum += bench_now_ns() - begin;
			tiles++;
		}
	}
	return tiles ? sum / tiles / 1e3 : 0;
}

static int measure_here(const struct append_options *o, const struct append_rows *rows,
			struct append_figures *f)
{
	FREE_MEMORY double *sample = calloc(MOST_ROUNDS, sizeof(*sample));
	double begin = bench_now_ns();
	struct rig rig = { 0 };
	int r = sample ? rig_init(&rig, rows->space, rows->n, 16) : -ENOMEM;

	if (r == 0) {
		struct append_rows fresh = *rows;

		fresh.used = rig.used;
		grow(&rig, &fresh, f->entry); /* pages */
		f->flush_us = flush_us(&rig, &fresh);
		while (f->rounds < MOST_ROUNDS &&
		       (f->rounds < 3 || bench_now_ns() - begin < o->seconds * 1e9))
			sample[f->rounds++] = grow(&rig, &fresh, f->entry);
		f->here_ns = bench_median(sample, f->rounds);
		f->least_ns = sample[0];
	}
	rig_deinit(&rig);
	return r;
}

/* ---- output ------------------------------------------------------------------------ */

static void add_json(struct json_object *array, const struct append_options *o,
		     const struct append_figures *f)
{
	struct json_object *j = json_object_new_object();

	json_object_object_add(j, "format", json_object_new_string(f->format));
	json_object_object_add(j, "isa", json_object_new_string(kv_isa_name()));
	json_object_object_add(j, "head_dim", json_object_new_uint64(o->dim));
	json_object_object_add(j, "kv_heads", json_object_new_uint64(o->kv_heads));
	json_object_object_add(j, "rows", json_object_new_uint64(o->rows));
	json_object_object_add(j, "rows_of_entry", json_object_new_uint64(f->entry));
	json_object_object_add(j, "row_ns", json_object_new_double(f->here_ns));
	json_object_object_add(j, "row_min_ns", json_object_new_double(f->least_ns));
	json_object_object_add(j, "tile_flush_us", json_object_new_double(f->flush_us));
	if (f->remote_ns > 0)
		json_object_object_add(j, "through_daemon_row_ns",
				       json_object_new_double(f->remote_ns));
	json_object_array_add(array, j);
}

static void print_head(const struct append_options *o)
{
	printf("%u KV heads, d = %u, %u rows, %s, one thread; of a row, flushes included\n%-13s "
	       "%9s %9s %9s %14s",
	       o->kv_heads, o->dim, o->rows, kv_isa_name(), "format", "rows/entry", "median ns",
	       "min ns", "flush us a tile");
	printf(o->through_daemon ? " %12s\n" : "\n", "daemon ns");
}

static void print_figures(const struct append_figures *f)
{
	printf("%-13s %10u %9.0f %9.0f %15.1f", f->format, f->entry, f->here_ns, f->least_ns,
	       f->flush_us);
	if (f->remote_ns > 0)
		printf(" %12.0f", f->remote_ns);
	putchar('\n');
	fflush(stdout);
}

/* ---- all of it ----------------------------------------------------------------------- */

static int bench_entries(const struct append_options *o, const char *format,
			 struct json_object *array)
{
	struct append_rows rows;
	char why[KV_ERROR_TEXT];
	int r = append_rows_init(&rows, o, format, why);

	if (r)
		fprintf(stderr, "sparq-bench: append: %s: %s\n", format, why);
	for (unsigned i = 0; i < o->entry.n && !r; i++) {
		struct append_figures f = { .format = format, .entry = o->entry.value[i] };

		r = measure_here(o, &rows, &f);
		if (!r && o->through_daemon)
			r = append_remote(o, &rows, f.entry, &f.remote_ns);
		if (r)
			bench_fail(r, "%s", format);
		else if (o->json)
			add_json(array, o, &f);
		else
			print_figures(&f);
	}
	append_rows_deinit(&rows);
	return r ? 1 : 0;
}

#define AT(field) offsetof(struct append_options, field)
static const struct bench_option table[] = {
	{ "rows", BENCH_NUMBER, AT(rows), 512, 1u << 24, "N", "of a sequence, 16384" },
	{ "entry", BENCH_NUMBERS, AT(entry), 1, KV_MAX_ENTRY_ROWS, "N,...",
	  "rows appended at once, 1,64" },
	{ "head-dim", BENCH_NUMBER, AT(dim), 1, KV_MAX_DIM, "N", "channels of a head, 128" },
	{ "kv-heads", BENCH_NUMBER, AT(kv_heads), 1, 1024, "N", "KV heads, 8" },
	{ "format", BENCH_WORDS, AT(format), 0, 0, "NAME,...", "f16,int8,hier4; or K/V" },
	{ "isa", BENCH_TEXT, AT(isa), 0, 0, "NAME", "nothing beyond this instruction set" },
	{ "seconds", BENCH_SECONDS, AT(seconds), 0, 0, "S", "for each figure, 0.5" },
	{ "through-daemon", BENCH_SWITCH, AT(through_daemon), 0, 0, NULL,
	  "by entries of a ring, too" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "for programs" },
};

int bench_append(int argc, char **argv)
{
	struct append_options o = {
		.entry = { { 1, 64 }, 2 },
		.format = { { "f16", "int8", "hier4" }, 3 },
		.dim = 128,
		.kv_heads = 8,
		.rows = 16384,
		.seconds = 0.5,
	};
	struct json_object *array = NULL;
	int r = bench_options(table, ARRAY_SIZE(table), "A row appended, its flush included.", &o,
			      argc, argv);

	if (r)
		return r == 1 ? 0 : r;
	r = bench_isa(argv[0], o.isa);
	if (r)
		return r;
	array = json_object_new_array();
	kv_thread_init();
	if (!o.json)
		print_head(&o);
	for (unsigned i = 0; i < o.format.n && !r; i++)
		r = bench_entries(&o, o.format.word[i], array);
	if (o.json && !r)
		puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY |
								   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(array);
	return r;
}
