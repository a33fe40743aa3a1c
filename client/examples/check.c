/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts lie beside the reference. Its bits per byte are of predictions
 * CONTEXT .. positions - 1 of each window.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "client/examples/check.h"
#include "client/examples/progress.h"
#include "client/examples/score.h"
#include "client/examples/why.h"

#define CONTEXT 512u
#define PREDICTIONS_MAX 2048u

static const struct setting exact = { "dense f32", "dense", "f32", NULL };

static void put_json(struct json_object **o)
{
	json_object_put(*o);
}

struct reference { /* of one text */
	const char *name;
	struct json_object *nats;
	double bits_per_byte;
};

static int read_reference(struct json_object *o, const char *name, const char *path, char *why,
			  struct reference *ret)
{
	struct json_object *nats, *bits;

	if (!json_object_object_get_ex(o, "nats", &nats) ||
	    !json_object_is_type(nats, json_type_array) ||
	    json_object_array_length(nats) > PREDICTIONS_MAX)
		return why_set(why, -EINVAL, "%s: %s has no nats", path, name);
	if (!json_object_object_get_ex(o, "bits_per_byte_dense", &bits) ||
	    !json_object_is_type(bits, json_type_double))
		return why_set(why, -EINVAL, "%s: %s has no bits_per_byte_dense", path, name);
	*ret = (struct reference){ name, nats, json_object_get_double(bits) };
	return 0;
}

static int compare_nats(struct forward *f, const struct llama_config *c, const struct text *t,
			const struct reference *wanted, char *why, struct check_text *ret)
{
	const uint32_t n = (uint32_t)json_object_array_length(wanted->nats);
	FREE_MEMORY double *nats = calloc((size_t)n + 1, sizeof(*nats));
	int r;

	if (!nats)
		return why_set(why, -ENOMEM, "no memory for %u predictions", n);
	r = score_blocks(f, t, n, c->vocab, why, nats);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		struct json_object *is = json_object_array_get_idx(wanted->nats, i);

		ret->nats_off = fmax(ret->nats_off, fabs(nats[i] - json_object_get_double(is)));
	}
	ret->predictions = n;
	return r;
}

static int check_text(const struct llama *m, const struct attend_daemon *daemon,
		      const struct text *t, const struct reference *wanted, unsigned max_windows,
		      char *why, struct check_text *ret)
{
	const struct llama_config *c = llama_config(m);
	const struct score_job job = { t,          1, c->positions, CONTEXT, c->positions - CONTEXT,
				       max_windows };
	int lanes = score_lanes(&job, why);
	struct forward *f = NULL;
	struct score score;
	int r;

	if (lanes < 0)
		return lanes;
	r = forward_open(m, daemon, &exact, (uint32_t)lanes, why, &f);
	if (r < 0)
		return r;
	r = compare_nats(f, c, t, wanted, why, ret);
	if (r == 0)
		r = score_run(f, &job, exact.label, why, &score);
	forward_close(f);
	if (r < 0)
		return r;
	snprintf(ret->name, sizeof(ret->name), "%s", t->name);
	ret->windows = (unsigned)lanes;
	ret->bits_per_byte = score.bits_per_byte[0];
	ret->wanted = wanted->bits_per_byte;
	return 0;
}

static int check_file(const struct llama *m, const struct attend_daemon *daemon, const char *path,
		      struct json_object *files, unsigned max_windows, char *why, struct check *ret)
{
	const char *slash = strrchr(path, '/');

	json_object_object_foreach(files, name, value)
	{
		FREE_MEMORY char *text_path = NULL;
		struct reference wanted = { 0 };
		struct text t = { 0 };
		int r;

		if (ret->n_texts == CHECK_TEXTS)
			return why_set(why, -E2BIG, "%s: more than %u texts", path, CHECK_TEXTS);
		r = read_reference(value, name, path, why, &wanted);
		if (r < 0)
			return r;
		if (asprintf(&text_path, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path,
			     name) < 0)
			return why_set(why, -ENOMEM, "no memory for a path");
		progress_say("check: %s, dense over f32", name);
		r = text_read(text_path, why, &t);
		if (r == 0)
			r = check_text(m, daemon, &t, &wanted, max_windows, why,
				       &ret->text[ret->n_texts]);
		text_deinit(&t);
		if (r < 0)
			return r;
		ret->n_texts++;
	}
	return 0;
}

static bool agrees(const struct check_text *t, unsigned max_windows)
{
	/* Negated, so that a NaN does not agree. */
	if (!(t->nats_off <= CHECK_TOLERANCE))
		return false;
	return max_windows || fabs(t->bits_per_byte - t->wanted) <= CHECK_TOLERANCE;
}

int check_run(const struct llama *m, const struct attend_daemon *daemon, const char *path,
	      unsigned max_windows, char *why, struct check *ret)
{
	CLEANUP(put_json) struct json_object *o = json_object_from_file(path);
	struct json_object *files;
	struct check c = { 0 };
	int r;

	if (!json_object_object_get_ex(o, "files", &files) ||
	    !json_object_is_type(files, json_type_object))
		return why_set(why, -EINVAL, "%s: no JSON file with the key files", path);
	r = check_file(m, daemon, path, files, max_windows, why, &c);
	if (r < 0)
		return r;
	c.passed = c.n_texts > 0;
	for (unsigned i = 0; i < c.n_texts; i++)
		c.passed = c.passed && agrees(&c.text[i], max_windows);
	*ret = c;
	return 0;
}
