/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes are those that the daemon reports: of the steps over the held-out text
 * where there is one, else of the continuation. One token is one byte of text
 * in all layers.
 */
#include <inttypes.h>

#include <json-c/json.h>

#include "client/examples/table.h"
#include "shm/base.h"

struct cost { /* of one token */
	double read_bytes, f16_bytes, ratio;
};

static const struct attend_count *count_of(const struct row *r)
{
	return r->scored ? &r->score.count : &r->sample.count;
}

static struct cost cost_of(const struct row *r)
{
	const struct attend_count *n = count_of(r);
	const double tokens = n->tokens ? (double)n->tokens : 1;

	return (struct cost){
		(double)n->read_bytes / tokens,
		(double)n->f16_bytes / tokens,
		n->read_bytes ? (double)n->f16_bytes / (double)n->read_bytes : 0,
	};
}

static double speed_of(const struct row *r)
{
	return r->sample.seconds > 0 ? r->sample.n / r->sample.seconds : 0;
}

static void print_head(FILE *f, const struct text *texts, unsigned n_texts)
{
	fprintf(f, "\n| %-12s |", "attention");
	for (unsigned i = 0; i < n_texts; i++)
		fprintf(f, " %-12.12s | %-7s |", texts[i].name, "loss");
	fprintf(f, " tokens/s | KV read/token | dense f16/token | ratio |\n|%.14s|",
		"---------------");
	for (unsigned i = 0; i < n_texts; i++)
		fputs("--------------|---------|", f);
	fputs("----------|---------------|-----------------|-------|\n", f);
}

static void print_row(FILE *f, const struct row *r, const struct row *first, unsigned n_texts)
{
	const struct cost c = cost_of(r);

	fprintf(f, "| %-12s |", r->setting.label);
	for (unsigned i = 0; i < n_texts; i++) {
		double bits = r->score.bits_per_byte[i];

		fprintf(f, " %12.4f | %6.2f%% |", bits,
			100 * (bits / first->score.bits_per_byte[i] - 1));
	}
	if (r->sampled)
		fprintf(f, " %8.0f |", speed_of(r));
	else
		fprintf(f, " %8s |", "-");
	fprintf(f, " %9.1f KiB | %11.1f KiB | %5.1f |\n", c.read_bytes / KIB, c.f16_bytes / KIB,
		c.ratio);
}

void table_print(FILE *f, const struct row *rows, unsigned n, const struct text *texts,
		 unsigned n_texts)
{
	print_head(f, texts, n_texts);
	for (unsigned i = 0; i < n; i++)
		print_row(f, &rows[i], rows, n_texts);
	if (n_texts)
		fprintf(f,
			"\nColumns named after a text: bits per byte. Bytes: mean over %" PRIu64
			" steps of decoding.\n",
			count_of(rows)->tokens);
	for (unsigned i = 0; i < n; i++) {
		const struct attend_count *c = count_of(&rows[i]);

		fprintf(f,
			"%s: %s over %s%s%s; %" PRIu64 " of %" PRIu64
			" steps of a layer were dense\n",
			rows[i].setting.label, rows[i].setting.policy, rows[i].setting.format,
			*rows[i].setting.options ? ", " : "", rows[i].setting.options, c->dense,
			c->steps);
	}
}

void table_print_check(FILE *f, const struct check *c)
{
	for (unsigned i = 0; i < c->n_texts; i++) {
		const struct check_text *t = &c->text[i];

		fprintf(f,
			"check %s: %u predictions differ by at most %.2g nats; %.5f bits per byte "
			"in %u windows (reference: %.5f)\n",
			t->name, t->predictions, t->nats_off, t->bits_per_byte, t->windows,
			t->wanted);
	}
	fprintf(f, "check: %s (tolerance %g)\n", c->passed ? "passed" : "FAILED", CHECK_TOLERANCE);
}

/* ---- JSON ------------------------------------------------------------------------ */

static void add(struct json_object *o, const char *key, struct json_object *value)
{
	json_object_object_add(o, key, value);
}

static struct json_object *check_json(const struct check *c)
{
	struct json_object *o = json_object_new_object(), *texts = json_object_new_array();

	for (unsigned i = 0; i < c->n_texts; i++) {
		struct json_object *t = json_object_new_object();

		add(t, "text", json_object_new_string(c->text[i].name));
		add(t, "largest_nats_difference", json_object_new_double(c->text[i].nats_off));
		add(t, "bits_per_byte", json_object_new_double(c->text[i].bits_per_byte));
		add(t, "reference_bits_per_byte", json_object_new_double(c->text[i].wanted));
		json_object_array_add(texts, t);
	}
	add(o, "texts", texts);
	add(o, "passed", json_object_new_boolean(c->passed));
	return o;
}

static struct json_object *planes_json(const struct attend_count *n)
{
	static const char *const names[SPARQ_PLANES] = {
		[SPARQ_PLANE_SCORE] = "score",           [SPARQ_PLANE_K] = "k",
		[SPARQ_PLANE_V_UPPER] = "v_upper",       [SPARQ_PLANE_V_LOWER] = "v_lower",
		[SPARQ_PLANE_PARAMETERS] = "parameters", [SPARQ_PLANE_RECENT] = "recent",
		[SPARQ_PLANE_STATE] = "state",           [SPARQ_PLANE_OTHER] = "other",
	};
	struct json_object *o = json_object_new_object();

	for (unsigned i = 0; i < SPARQ_PLANES; i++)
		add(o, names[i], json_object_new_int64((int64_t)n->plane_bytes[i]));
	return o;
}

/* What a model writes need not be UTF-8: bytes stand for the first 256 code points. */
static struct json_object *bytes_json(const uint8_t *bytes, uint32_t n)
{
	FREE_MEMORY char *text = calloc(2 * (size_t)n + 1, 1);
	int at = 0;

	for (uint32_t i = 0; text && i < n; i++) {
		if (bytes[i] >= 0x80)
			text[at++] = (char)(0xc0 | bytes[i] >> 6);
		text[at++] = (char)(bytes[i] >= 0x80 ? 0x80 | (bytes[i] & 0x3f) : bytes[i]);
	}
	return json_object_new_string_len(text ? text : "", at);
}

static struct json_object *row_json(const struct row *r, const struct text *texts, unsigned n_texts)
{
	struct json_object *o = json_object_new_object(), *bits = json_object_new_object();
	const struct attend_count *n = count_of(r);
	const struct cost c = cost_of(r);

	add(o, "name", json_object_new_string(r->setting.label));
	add(o, "policy", json_object_new_string(r->setting.policy));
	add(o, "format", json_object_new_string(r->setting.format));
	add(o, "options", json_object_new_string(r->setting.options));
	for (unsigned i = 0; r->scored && i < n_texts; i++)
		add(bits, texts[i].name, json_object_new_double(r->score.bits_per_byte[i]));
	add(o, "bits_per_byte", bits);
	if (r->sampled) {
		add(o, "tokens_per_second", json_object_new_double(speed_of(r)));
		add(o, "prompt_bytes", json_object_new_int64(r->sample.prompt_bytes));
		add(o, "prompt_seconds", json_object_new_double(r->sample.prompt_seconds));
		add(o, "text", bytes_json(r->sample.bytes, r->sample.n));
	}
	add(o, "read_bytes_per_token", json_object_new_double(c.read_bytes));
	add(o, "dense_f16_bytes_per_token", json_object_new_double(c.f16_bytes));
	add(o, "ratio", json_object_new_double(c.ratio));
	add(o, "tokens", json_object_new_int64((int64_t)n->tokens));
	add(o, "steps", json_object_new_int64((int64_t)n->steps));
	add(o, "dense_steps", json_object_new_int64((int64_t)n->dense));
	add(o, "read_bytes_by_plane", planes_json(n));
	return o;
}

void table_print_json(FILE *f, const struct check *check, const struct row *rows, unsigned n,
		      const struct text *texts, unsigned n_texts)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();

	if (check)
		add(o, "check", check_json(check));
	for (unsigned i = 0; i < n; i++)
		json_object_array_add(list, row_json(&rows[i], texts, n_texts));
	add(o, "rows", list);
	fprintf(f, "%s\n",
		json_object_to_json_string_ext(o,
					       JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
	json_object_put(o);
}
