/* SPDX-License-Identifier: Apache-2.0 */
/* What `sparq-bench device` prints: a table, or JSON with the same and more. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/device.h"

/* Dense f16 over the same rows, batch and heads; NULL: it was not measured. */
static const struct device_figures *dense_of(const struct device_figures *f,
					     const struct device_figures *all, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!all[i].why[0] && !strcmp(all[i].which->policy, "dense") &&
		    all[i].which->rows == f->which->rows &&
		    all[i].which->batch == f->which->batch &&
		    all[i].which->kv_heads == f->which->kv_heads)
			return &all[i];
	return NULL;
}

static double bytes_s(const struct device_figures *f)
{
	return (double)f->bytes / (f->kernel_ms * 1e-3);
}

/* "2026-11-22" */
static void format_date(char ret[16])
{
	time_t now = time(NULL);
	struct tm t;

	gmtime_r(&now, &t);
	strftime(ret, 16, "%Y-%m-%d", &t);
}

/* ---- table ------------------------------------------------------------------------------ */

static void print_line(const struct bench_gpu *g, const struct device_figures *f,
		       const struct device_figures *dense)
{
	char ratio[16] = "-";

	printf("%-6s %-6s %7u %5u %8u ", f->which->policy, f->which->format, f->which->rows,
	       f->which->batch, f->which->kv_heads);
	if (f->why[0]) {
		printf(" absent: %s\n", f->why);
		return;
	}
	if (dense && dense != f)
		snprintf(ratio, sizeof(ratio), "%.2f", dense->kernel_ms / f->kernel_ms);
	printf("%9.4f %9.4f %9.1f %8.1f %6.1f %7s %8.1e\n", f->kernel_ms, f->step_ms,
	       (double)f->bytes / 1e6, bytes_s(f) / 1e9, 100 * bytes_s(f) / g->copy_bytes_s, ratio,
	       f->error);
}

static void print_table(const struct bench_gpu *g, const struct device_figures *f, unsigned n)
{
	char date[16];

	format_date(date);
	printf("%s (%s), driver CUDA %s, %.1f GiB, L2 %.0f MiB; copy within its memory %.1f GB/s; "
	       "%s\n",
	       g->info.name, g->info.bus_id, g->info.driver,
	       (double)g->info.memory_bytes / (double)GIB, (double)g->info.l2_bytes / (double)MIB,
	       g->copy_bytes_s / 1e9, date);
	if (g->pretends)
		puts("THIS DRIVER PRETENDS: its times and rates are of no device");
	printf("%-6s %-6s %7s %5s %8s %9s %9s %9s %8s %6s %7s %8s\n", "policy", "format", "rows",
	       "batch", "kv heads", "kernel ms", "step ms", "MB read", "GB/s", "% copy", "x dense",
	       "error");
	for (unsigned i = 0; i < n; i++)
		print_line(g, &f[i], dense_of(&f[i], f, n));
}

/* ---- JSON -------------------------------------------------------------------------------- */

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_figure(json_object *o, const char *key, double x)
{
	json_object_object_add(o, key, json_object_new_double(x));
}

static void add_count(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static json_object *line(const struct bench_gpu *g, const struct device_figures *f,
			 const struct device_figures *dense)
{
	json_object *o = json_object_new_object();

	add_text(o, "policy", f->which->policy);
	add_text(o, "format", f->which->format);
	add_count(o, "rows", f->which->rows);
	add_count(o, "batch", f->which->batch);
	add_count(o, "kv_heads", f->which->kv_heads);
	if (f->why[0]) {
		add_text(o, "absent", f->why);
		return o;
	}
	add_figure(o, "kernel_ms", f->kernel_ms);
	add_figure(o, "least_kernel_ms", f->least_ms);
	add_figure(o, "step_ms", f->step_ms);
	add_count(o, "bytes_read", f->bytes);
	add_figure(o, "bytes_per_second", bytes_s(f));
	add_figure(o, "percent_of_copy", 100 * bytes_s(f) / g->copy_bytes_s);
	if (dense)
		add_figure(o, "ratio_to_dense_f16", dense->kernel_ms / f->kernel_ms);
	add_figure(o, "relative_error", f->error);
	add_count(o, "samples", f->samples);
	add_count(o, "sets_in_turn", f->sets);
	return o;
}

static void print_json(const struct bench_gpu *g, const struct device_figures *f, unsigned n)
{
	json_object *o = json_object_new_object(), *all = json_object_new_array();
	char date[16];

	format_date(date);
	add_text(o, "device", g->info.name);
	add_text(o, "bus", g->info.bus_id);
	add_text(o, "driver", g->info.driver);
	add_text(o, "date", date);
	json_object_object_add(o, "pretends", json_object_new_boolean(g->pretends));
	add_count(o, "memory_bytes", g->info.memory_bytes);
	add_count(o, "l2_bytes", g->info.l2_bytes);
	add_figure(o, "copy_bytes_per_second", g->copy_bytes_s);
	for (unsigned i = 0; i < n; i++)
		json_object_array_add(all, line(g, &f[i], dense_of(&f[i], f, n)));
	json_object_object_add(o, "steps", all);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

void device_show(const struct device_options *o, const struct bench_gpu *g,
		 const struct device_figures *f, unsigned n)
{
	if (o->json)
		print_json(g, f, n);
	else
		print_table(g, f, n);
}
