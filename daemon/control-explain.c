/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step of a cache would do. Parameters go the way of a CACHE_CREATE message, so what
 * is refused here is refused there, with the same words. The bytes are not
 * estimated: the plan is run over random rows of one KV head, up to a size that
 * takes a fraction of a second; above it they are left out. All of it runs aside
 * (control-aside.h) and reads nothing of the daemon that changes.
 */
#include <errno.h>
#include <string.h>

#include "daemon/aside.h"
#include "daemon/cache-params.h"
#include "daemon/control.h"
#include "daemon/sample.h"
#include "daemon/server.h"
#include "shm/base.h"

#define PLAN_TEXT_BYTES 4096
#define SEED 1

static const char *const plane_names[KV_PLANES] = {
	[KV_PLANE_SCORE] = "score_bytes",          [KV_PLANE_K] = "k_bytes",
	[KV_PLANE_V_UPPER] = "v_upper_bytes",      [KV_PLANE_V_LOWER] = "v_lower_bytes",
	[KV_PLANE_PARAMETERS] = "parameter_bytes", [KV_PLANE_RECENT] = "sink_and_tail_bytes",
	[KV_PLANE_STATE] = "state_bytes",          [KV_PLANE_OTHER] = "other_bytes",
};

/* What is asked, with the defaults of a cache and of a step in the middle of a text. */
struct question {
	struct sparq_msg_cache_create cache;
	uint32_t layer, rows, n_q;
};

struct number {
	const char *name;
	size_t at;
	uint32_t least, most;
};
struct word {
	const char *name;
	size_t at, size;
};
#define NUMBER(name, field, least, most)                                                           \
	{                                                                                          \
		name, offsetof(struct question, field), least, most                                \
	}
#define WORD(name)                                                                                 \
	{                                                                                          \
#name, offsetof(struct question, cache.name),                                      \
			sizeof(((struct question *)0)->cache.name)                                 \
	}

static const struct number numbers[] = {
	NUMBER("heads", cache.heads, 1, 65536),       NUMBER("kv_heads", cache.kv_heads, 1, 65536),
	NUMBER("k_dim", cache.k_dim, 1, KV_MAX_DIM),  NUMBER("v_dim", cache.v_dim, 1, KV_MAX_DIM),
	NUMBER("layers", cache.layers, 1, 65535),     NUMBER("layer", layer, 0, 65534),
	NUMBER("rows", rows, 1, SPARQ_ROW_LIMIT - 1), NUMBER("n_q", n_q, 1, SPARQ_MAX_ROWS),
};
static const struct word words[] = {
	WORD(policy),
	WORD(options),
	WORD(k_format),
	WORD(v_format),
};

/* ---- the question --------------------------------------------------------- */

static bool take_number(struct question *q, const struct number *n, json_object *value)
{
	int64_t i = json_object_get_int64(value);

	if (!json_object_is_type(value, json_type_int) || i < n->least || i > n->most)
		return false;
	*(uint32_t *)((char *)q + n->at) = (uint32_t)i;
	return true;
}

static bool take_word(struct question *q, const struct word *w, json_object *value)
{
	size_t n = (size_t)json_object_get_string_len(value);

	if (!json_object_is_type(value, json_type_string) || n >= w->size)
		return false;
	memcpy((char *)q + w->at, json_object_get_string(value), n + 1);
	return true;
}

static bool take(struct question *q, const char *key, json_object *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (strcmp(key, numbers[i].name) == 0)
			return !value || take_number(q, &numbers[i], value);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(key, words[i].name) == 0)
			return !value || take_word(q, &words[i], value);
	return false;
}

static int read_question(json_object *in, struct question *q, struct varlink_error *e)
{
	*q = (struct question){
		.cache = { .heads = 32,
			   .kv_heads = 8,
			   .k_dim = 128,
			   .v_dim = 128,
			   .layers = 32,
			   .dtype = SPARQ_DTYPE_F16 },
		.rows = 4096,
		.n_q = 1,
	};
	json_object_object_foreach(in, key,
				   value) if (!take(q, key, value)) return varlink_invalid(e, key);
	if (q->layer >= q->cache.layers)
		return varlink_invalid(e, "layer");
	if (q->n_q > q->rows)
		return varlink_invalid(e, "n_q");
	return 0;
}

/* ---- the answer ----------------------------------------------------------- */

static void add_number(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

/* A view of so many rows as far as a policy can see it: sizes alone. */
static struct kv_view view_of(const struct kv_space *s, uint32_t rows, uint32_t rollback)
{
	uint32_t sinks = MIN(rows, s->sinks), rest = rows - sinks;
	uint32_t sealed = rest < KV_TILE_ROWS + rollback
				  ? 0
				  : (rest - rollback) / KV_TILE_ROWS * KV_TILE_ROWS;

	return (struct kv_view){
		.rows = rows,
		.n_sinks = sinks,
		.tail_first = s->sinks + sealed,
		.tail_rows = rest - sealed,
	};
}

static int plan_of(const struct kv_space *s, const struct question *q, uint32_t rollback,
		   struct kv_plan *ret)
{
	struct kv_view view = view_of(s, q->rows, rollback);
	struct kv_query query = { .n_q = q->n_q, .first_limit = q->rows - q->n_q + 1 };

	return kv_plan_step(s, &view, &query, q->layer, q->cache.layers, false, ret);
}

static void add_parameters(const struct kv_space *s, json_object *out)
{
	json_object *o = json_object_new_object();
	char value[128];

	for (unsigned i = 0; i < s->policy->n_params; i++) {
		const char *name = s->policy->params[i].name;

		if (kv_policy_get(s->policy, s->args, name, value, sizeof(value)) >= 0)
			json_object_object_add(o, name, json_object_new_string(value));
	}
	json_object_object_add(out, "parameters", o);
}

/* Runs it over one KV head; all heads read alike, as far as counts go. */
static int add_measured(const struct cache_record *record, const struct question *q,
			const struct kv_plan *plan, const struct aside *aside, json_object *out,
			char *why)
{
	CLEANUP(sample_deinit) struct sample s = { .n_rows = 0 };
	json_object *planes;
	struct sample_result m;
	uint64_t total = 0;
	int r = sample_init(&s, record, q->layer, q->rows, q->n_q, SEED, why);

	if (r == 0 && aside_is_cancelled(aside))
		r = -ECANCELED;
	if (r == 0)
		r = sample_run(&s, plan, &m, NULL);
	if (r < 0)
		return r;
	planes = json_object_new_object();
	for (unsigned i = 0; i < KV_PLANES; i++) {
		add_number(planes, plane_names[i], m.bytes[i] * record->kv_heads);
		total += m.bytes[i] * record->kv_heads;
	}
	add_number(out, "read_bytes", total);
	json_object_object_add(out, "planes", planes);
	add_number(out, "selected_rows", m.n_selected);
	add_number(out, "scored_rows", m.n_scored);
	return 0;
}

/* Whoever asks waits for it, and others who ask wait for them. */
static bool can_measure(const struct kv_space *s, const struct question *q)
{
	return q->rows <= SAMPLE_ROWS_MAX && q->n_q <= SAMPLE_Q_MAX &&
	       (uint64_t)q->rows * q->n_q * s->group * (s->k_dim + s->v_dim) <= SAMPLE_PRODUCTS_MAX;
}

static int explain(const struct question *q, const struct aside *aside, json_object *out, char *why)
{
	_Alignas(8) uint8_t args[KV_POLICY_ARGS_BYTES];
	char text[PLAN_TEXT_BYTES];
	struct cache_record record;
	const struct kv_space *space;
	struct spaces spaces;
	struct kv_plan plan;
	int r = cache_params_parse(&q->cache, &record, why);

	if (r == 0)
		r = cache_params_settle(&record, args, &spaces, why);
	if (r < 0)
		return r;
	space = spaces_layer(&spaces, q->layer);
	r = plan_of(space, q, record.rollback, &plan);
	if (r < 0)
		return r;
	kv_plan_text(&plan, text, sizeof(text));
	json_object_object_add(out, "plan", json_object_new_string(text));
	json_object_object_add(out, "dense", json_object_new_boolean(kv_plan_is_dense(&plan)));
	add_parameters(space, out);
	add_number(out, "row_bytes", kv_row_bytes(space));
	add_number(out, "dense_row_bytes", kv_dense_bytes(space, 1));
	add_number(out, "stored_bytes", kv_row_bytes(space) * q->rows);
	add_number(out, "dense_bytes", kv_dense_bytes(space, q->rows));
	if (!can_measure(space, q))
		return 0;
	return add_measured(&record, q, &plan, aside, out, why);
}

int control_explain(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	const struct server *s = arg;
	char why[KV_ERROR_TEXT] = "";
	struct question q;
	int r = read_question(in, &q, e);

	if (r < 0)
		return r;
	r = explain(&q, s->aside, out, why);
	if (r < 0)
		return varlink_refuse(e, CONTROL_REFUSED, "%s", why[0] ? why : strerror(-r));
	return 0;
}
