/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of a Llama model
 *
 * A key that changes the arithmetic and that we do not know how to honour must
 * stop the program: a model computed a little wrong still writes text.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "client/examples/llama.h"
#include "client/examples/why.h"
#include "shm/base.h"

#define ARCHITECTURE "LlamaForCausalLM"

struct count_key {
	const char *name;
	uint32_t *value;
	uint32_t most;
	bool optional; /* absent or null: *value is as it was */
};

static int read_count(struct json_object *o, const struct count_key *k, char *why)
{
	struct json_object *v;
	int64_t n;

	if (!json_object_object_get_ex(o, k->name, &v) || !v) {
		if (k->optional)
			return 0;
		return why_set(why, -EINVAL, "config.json: key %s is missing", k->name);
	}
	n = json_object_get_int64(v);
	if (!json_object_is_type(v, json_type_int) || n < 1 || n > k->most)
		return why_set(why, -EINVAL, "config.json: %s is %.40s; 1 to %u is possible",
			       k->name, json_object_to_json_string(v), k->most);
	*k->value = (uint32_t)n;
	return 0;
}

static int read_real(struct json_object *o, const char *name, char *why, float *ret)
{
	struct json_object *v;
	double x;

	if (!json_object_object_get_ex(o, name, &v))
		return why_set(why, -EINVAL, "config.json: key %s is missing", name);
	x = json_object_get_double(v);
	if (!(json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int)) ||
	    !(x > 0) || !isfinite(x))
		return why_set(why, -EINVAL, "config.json: %s is %.40s; a number above 0 is needed",
			       name, json_object_to_json_string(v));
	*ret = (float)x;
	return 0;
}

static int check_architecture(struct json_object *o, char *why)
{
	struct json_object *v, *first;

	if (!json_object_object_get_ex(o, "architectures", &v) ||
	    !json_object_is_type(v, json_type_array) || json_object_array_length(v) < 1)
		return why_set(why, -EINVAL, "config.json: key architectures is missing");
	first = json_object_array_get_idx(v, 0);
	if (!json_object_is_type(first, json_type_string) ||
	    strcmp(json_object_get_string(first), ARCHITECTURE) != 0)
		return why_set(why, -EINVAL, "config.json: architectures is %.80s; only %s is run",
			       json_object_to_json_string(v), ARCHITECTURE);
	return 0;
}

/* Keys that may be there only with the value that changes nothing, as JSON text. */
static int check_unsupported(struct json_object *o, char *why)
{
	static const struct {
		const char *key, *only;
	} keys[] = {
		{ "rope_scaling", NULL },     { "attention_bias", "false" },
		{ "mlp_bias", "false" },      { "sliding_window", NULL },
		{ "rope_parameters", NULL },  { "quantization_config", NULL },
		{ "hidden_act", "\"silu\"" }, { "partial_rotary_factor", "1.0" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
		struct json_object *v;

		if (!json_object_object_get_ex(o, keys[i].key, &v) || !v)
			continue;
		if (!keys[i].only || strcmp(json_object_to_json_string(v), keys[i].only) != 0)
			return why_set(why, -EOPNOTSUPP, "config.json: %s is %.80s; supported: %s",
				       keys[i].key, json_object_to_json_string(v),
				       keys[i].only ? keys[i].only : "null");
	}
	return 0;
}

static int read_counts(struct json_object *o, struct llama_config *c, char *why)
{
	const struct count_key required[] = {
		{ "num_hidden_layers", &c->layers, 1024, false },
		{ "num_attention_heads", &c->heads, 1024, false },
		{ "hidden_size", &c->hidden, 65536, false },
		{ "intermediate_size", &c->intermediate, 1u << 20, false },
		{ "vocab_size", &c->vocab, 1u << 20, false },
		{ "max_position_embeddings", &c->positions, 1u << 20, false },
	};
	struct count_key defaulted[] = {
		{ "num_key_value_heads", &c->kv_heads, 1024, true },
		{ "head_dim", &c->head_dim, 1024, true },
	};
	int r;

	for (unsigned i = 0; i < ARRAY_SIZE(required); i++) {
		r = read_count(o, &required[i], why);
		if (r < 0)
			return r;
	}
	/* What the architecture means where these are absent. */
	c->kv_heads = c->heads;
	c->head_dim = c->hidden / c->heads;
	for (unsigned i = 0; i < ARRAY_SIZE(defaulted); i++) {
		r = read_count(o, &defaulted[i], why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_geometry(const struct llama_config *c, char *why)
{
	if (c->heads % c->kv_heads)
		return why_set(why, -EINVAL,
			       "config.json: num_attention_heads %u is no multiple of "
			       "num_key_value_heads %u",
			       c->heads, c->kv_heads);
	if (c->head_dim == 0 || c->head_dim % 2)
		return why_set(why, -EINVAL, "config.json: head_dim %u is not even", c->head_dim);
	if (c->vocab != 256)
		return why_set(
			why, -EOPNOTSUPP,
			"config.json: vocab_size is %u; there is no tokenizer here: 256, one "
			"byte a token",
			c->vocab);
	return 0;
}

static int parse_object(struct json_object *o, char *why, struct llama_config *c)
{
	struct json_object *v;
	int r;

	r = check_architecture(o, why);
	if (r == 0)
		r = check_unsupported(o, why);
	if (r == 0)
		r = read_counts(o, c, why);
	if (r == 0)
		r = read_real(o, "rope_theta", why, &c->theta);
	if (r == 0)
		r = read_real(o, "rms_norm_eps", why, &c->eps);
	if (r == 0)
		r = check_geometry(c, why);
	c->tied = json_object_object_get_ex(o, "tie_word_embeddings", &v) &&
		  json_object_get_boolean(v);
	return r;
}

int llama_config_parse(const char *text, char *why, struct llama_config *ret)
{
	struct llama_config c = { 0 };
	struct json_object *o = json_tokener_parse(text);
	int r;

	if (!json_object_is_type(o, json_type_object))
		r = why_set(why, -EINVAL, "config.json: not a JSON object");
	else
		r = parse_object(o, why, &c);
	json_object_put(o);
	if (r == 0)
		*ret = c;
	return r;
}
