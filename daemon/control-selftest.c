/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does this machine compute right? Dense attention over random rows in every
 * format, with the kernels in use, against float64. It runs aside (control-aside.h).
 */
#include <stdio.h>
#include <string.h>

#include "daemon/aside.h"
#include "daemon/cache-params.h"
#include "daemon/control.h"
#include "daemon/sample.h"
#include "daemon/server.h"
#include "shm/base.h"

#define ROWS 2000 /* sinks, short and long extents, a tail */
#define QUERIES 2
#define SEED 7

/* Of the answer, not of a row: what rounding of K and V leaves after weighting, twice over. An
 * error in layout or arithmetic is of the order of 1. */
static double bound_of(const char *format)
{
	static const struct {
		const char *format;
		double bound;
	} bounds[] = {
		{ "f32", 1e-5 },  { "f16", 2e-3 },   { "bf16", 2e-2 },
		{ "int8", 4e-2 }, { "hier4", 4e-2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++)
		if (strcmp(format, bounds[i].format) == 0)
			return bounds[i].bound;
	return 0.5; /* four bits and fewer */
}

static int check_format(const char *format, double *ret_error, char *why)
{
	CLEANUP(sample_deinit) struct sample s = { .n_rows = 0 };
	struct sparq_msg_cache_create m = {
		.layers = 1,
		.heads = 4,
		.kv_heads = 1,
		.k_dim = 128,
		.v_dim = 128,
		.dtype = SPARQ_DTYPE_F32,
	};
	struct sample_result result;
	struct cache_record record;
	struct kv_query query;
	struct kv_plan plan;
	int r;

	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	r = cache_params_parse(&m, &record, why);
	if (r == 0)
		r = sample_init(&s, &record, 0, ROWS, QUERIES, SEED, why);
	if (r < 0)
		return r;
	query = sample_query(&s);
	r = kv_plan_step(&s.space, &s.view, &query, 0, 1, true, &plan);
	return r < 0 ? r : sample_run(&s, &plan, &result, ret_error);
}

int control_selftest(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	json_object *checks = json_object_new_array();
	const struct server *s = arg;
	char why[KV_ERROR_TEXT] = "";
	bool all = true;

	json_object_object_add(out, "checks", checks);
	for (unsigned i = 0; kv_format_at(i) && !aside_is_cancelled(s->aside); i++) {
		const char *format = kv_format_at(i);
		json_object *o = json_object_new_object();
		double error, bound = bound_of(format);
		int r = check_format(format, &error, why);
		bool passed = r == 0 && error <= bound; /* not so for a NaN */

		json_object_array_add(checks, o);
		if (r < 0)
			return varlink_refuse(e, CONTROL_REFUSED, "%s: %s", format,
					      why[0] ? why : strerror(-r));
		json_object_object_add(o, "format", json_object_new_string(format));
		json_object_object_add(o, "rows", json_object_new_int(ROWS));
		json_object_object_add(o, "error", json_object_new_double(error));
		json_object_object_add(o, "bound", json_object_new_double(bound));
		json_object_object_add(o, "passed", json_object_new_boolean(passed));
		all &= passed;
	}
	json_object_object_add(out, "passed", json_object_new_boolean(all));
	return 0;
}
