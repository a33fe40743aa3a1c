/* SPDX-License-Identifier: Apache-2.0 */
/* What `sparq-bench attend` prints: a table, or JSON with the same and more. */
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "shm/base.h"
#include "tests/bench/attend.h"

struct report {
	const struct attend_options *options;
	const char *pages;
	struct json_object *array;
	uint32_t rows; /* of the figures before */
};

static const char *const plane[KV_PLANES] = { "score",      "k",      "v_upper", "v_lower",
					      "parameters", "recent", "state",   "other" };

static double gbps(const struct figures *f)
{
	return (double)f->bytes_read / (f->median_ms * 1e6);
}

static double percent(const struct figures *f)
{
	return 100 * gbps(f) / f->roof_gbps;
}

/* ---- table ---------------------------------------------------------------------- */

static void print_head(const struct report *r)
{
	const struct attend_options *o = r->options;

	printf("%u heads, %u KV heads, d = %u, %u queries, %s, pages %s; median and least of "
	       "cold steps\n%% roof: of what as many threads read meanwhile. "
	       "x f16: dense f16's time over this. x T: the first thread count's time over this\n",
	       o->heads, o->kv_heads, o->dim, o->queries, kv_isa_name(), r->pages);
	printf("%7s %-7s %-13s %2s %9s %9s %8s %6s %6s %7s %5s %4s %5s", "rows", "policy", "format",
	       "T", "median ms", "min ms", "MB read", "GB/s", "% roof", "x f16", "x T", "seqs",
	       "MB");
	if (o->through_daemon)
		printf(" %9s %8s", "daemon ms", "adds us");
	putchar('\n');
}

static void print_planes(const struct figures *f)
{
	printf("%16sMB by plane:", "");
	for (unsigned i = 0; i < KV_PLANES; i++)
		if (f->bytes[i])
			printf(" %s %.3f", plane[i], (double)f->bytes[i] / 1e6);
	putchar('\n');
}

static void print_figures(struct report *r, const struct figures *f)
{
	if (r->rows && r->rows != f->rows)
		putchar('\n');
	printf("%7u %-7s %-13s %2u %9.3f %9.3f %8.2f %6.1f %6.1f %7.2f %5.2f %4u %5.0f", f->rows,
	       f->policy, f->format->name, f->threads, f->median_ms, f->min_ms,
	       (double)f->bytes_read / 1e6, gbps(f), percent(f), f->dense_ms / f->median_ms,
	       f->scaling, f->sequences, (double)f->cold_bytes / 1e6);
	if (f->remote_ms > 0)
		printf(" %9.4f %8.1f", f->remote_ms, f->added_us);
	putchar('\n');
	if (r->options->planes)
		print_planes(f);
	fflush(stdout);
}

/* ---- JSON ------------------------------------------------------------------------ */

static void add_number(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_uint64(n));
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_double(struct json_object *o, const char *key, double x)
{
	json_object_object_add(o, key, json_object_new_double(x));
}

static void add_shape(struct json_object *o, const struct report *r, const struct figures *f)
{
	add_number(o, "seqlen", f->rows);
	add_text(o, "policy", f->policy);
	add_text(o, "format", f->format->name);
	add_text(o, "k_format", f->format->k);
	add_text(o, "v_format", f->format->v);
	add_number(o, "level", f->format->level);
	add_text(o, "isa", kv_isa_name());
	add_text(o, "pages", r->pages);
	add_number(o, "head_dim", r->options->dim);
	add_number(o, "heads", r->options->heads);
	add_number(o, "kv_heads", r->options->kv_heads);
	add_number(o, "queries", r->options->queries);
	add_number(o, "threads", f->threads);
}

static void add_json(struct report *r, const struct figures *f)
{
	struct json_object *o = json_object_new_object(), *bytes = json_object_new_object();

	add_shape(o, r, f);
	add_number(o, "samples", f->samples);
	add_number(o, "sequences", f->sequences);
	add_number(o, "cold_bytes", f->cold_bytes);
	add_double(o, "median_ms", f->median_ms);
	add_double(o, "min_ms", f->min_ms);
	add_number(o, "bytes_read", f->bytes_read);
	for (unsigned i = 0; i < KV_PLANES; i++)
		add_number(bytes, plane[i], f->bytes[i]);
	json_object_object_add(o, "bytes", bytes);
	add_double(o, "gbps", gbps(f));
	add_double(o, "roofline_gbps", f->roof_gbps);
	add_double(o, "percent_of_roofline", percent(f));
	add_double(o, "ratio_to_dense_f16", f->dense_ms / f->median_ms);
	add_double(o, "ratio_to_first_threads", f->scaling);
	if (f->remote_ms > 0) {
		add_double(o, "through_daemon_ms", f->remote_ms);
		add_double(o, "daemon_adds_us", f->added_us);
	}
	json_object_array_add(r->array, o);
}

/* ---- both -------------------------------------------------------------------------- */

struct report *report_new(const struct attend_options *o, const char *pages)
{
	struct report *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	*r = (struct report){ .options = o, .pages = pages, .array = json_object_new_array() };
	if (!o->json)
		print_head(r);
	return r;
}

void report_add(struct report *r, const struct figures *f)
{
	if (r->options->json)
		add_json(r, f);
	else
		print_figures(r, f);
	r->rows = f->rows;
}

void report_end(struct report *r)
{
	if (r->options->json)
		puts(json_object_to_json_string_ext(r->array,
						    JSON_C_TO_STRING_PRETTY |
							    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(r->array);
	free(r);
}
