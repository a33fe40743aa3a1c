/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model around the attention, against a second computation of it in double
 * that shares nothing but the file: every measurement of what an attention
 * costs in accuracy relies on the rest being exact. And what is refused: a model
 * computed a little wrong would still write text.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/examples/llama.h"
#include "client/examples/why.h"
#include "shm/base.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 8, HIDDEN = 24, WIDE = 40, VOCAB = 256 };
enum { Q = HEADS * DIM, KV = KV_HEADS * DIM, ROWS = 11 };

static const char config_text[] =
	"{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":24,\"num_hidden_layers\":2,"
	"\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":8,"
	"\"intermediate_size\":40,\"vocab_size\":256,\"rope_theta\":10000.0,"
	"\"rms_norm_eps\":1e-05,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,"
	"\"rope_scaling\":null,\"max_position_embeddings\":32}";

/* ---- a tiny model with random weights ----------------------------------------- */

struct matrix {
	char name[64];
	int out, in;
	float w[VOCAB * HIDDEN];
};

enum { IN_NORM, POST_NORM, WQ, WK, WV, WO, GATE, UP, DOWN, PER_LAYER };
enum { EMBED = LAYERS * PER_LAYER, NORM, HEAD, MATRICES };

struct fixture {
	struct matrix m[MATRICES];
	char directory[64];
};

static float draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (float)(*seed >> 8) / (float)(1 << 23) - 1;
}

static void set(struct matrix *m, const char *name, int out, int in, uint32_t *seed)
{
	snprintf(m->name, sizeof(m->name), "%s.weight", name);
	m->out = out;
	m->in = in;
	for (int i = 0; i < out * in; i++)
		m->w[i] = in == 1 ? 1 + 0.3f * draw(seed) : draw(seed) / 2;
}

static void make_weights(struct matrix *m)
{
	static const struct {
		const char *name;
		int out, in;
	} parts[PER_LAYER] = {
		[IN_NORM] = { "input_layernorm", HIDDEN, 1 },
		[POST_NORM] = { "post_attention_layernorm", HIDDEN, 1 },
		[WQ] = { "self_attn.q_proj", Q, HIDDEN },
		[WK] = { "self_attn.k_proj", KV, HIDDEN },
		[WV] = { "self_attn.v_proj", KV, HIDDEN },
		[WO] = { "self_attn.o_proj", HIDDEN, Q },
		[GATE] = { "mlp.gate_proj", WIDE, HIDDEN },
		[UP] = { "mlp.up_proj", WIDE, HIDDEN },
		[DOWN] = { "mlp.down_proj", HIDDEN, WIDE },
	};
	uint32_t seed = 1;

	for (int l = 0; l < LAYERS; l++) {
		for (int i = 0; i < PER_LAYER; i++) {
			char name[56];

			snprintf(name, sizeof(name), "model.layers.%d.%s", l, parts[i].name);
			set(&m[l * PER_LAYER + i], name, parts[i].out, parts[i].in, &seed);
		}
	}
	set(&m[EMBED], "model.embed_tokens", VOCAB, HIDDEN, &seed);
	set(&m[NORM], "model.norm", HIDDEN, 1, &seed);
	set(&m[HEAD], "lm_head", VOCAB, HIDDEN, &seed);
}

static void write_file(const char *directory, const char *name, const void *bytes, size_t n)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* `skip`: a tensor to leave out, -1: none. */
static void write_model(const struct fixture *x, int skip)
{
	char header[8192] = "{";
	size_t at = 1, begin = 0;
	uint8_t length[8] = { 0 };
	FREE_MEMORY char *path = NULL;
	FILE *f;

	for (int i = 0; i < MATRICES; i++) {
		const struct matrix *m = &x->m[i];
		size_t n = (size_t)m->out * (size_t)m->in * sizeof(float);
		char shape[32];

		if (i == skip)
			continue;
		snprintf(shape, sizeof(shape), m->in == 1 ? "%d" : "%d,%d", m->out, m->in);
		at += (size_t)snprintf(header + at, sizeof(header) - at,
				       "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],"
				       "\"data_offsets\":[%zu,%zu]}",
				       begin ? "," : "", m->name, shape, begin, begin + n);
		begin += n;
	}
	assert_true(at + 1 < sizeof(header));
	header[at++] = '}';
	length[0] = (uint8_t)at;
	length[1] = (uint8_t)(at >> 8);
	assert_true(asprintf(&path, "%s/model.safetensors", x->directory) > 0);
	f = fopen(path, "w");
	assert_non_null(f);
	fwrite(length, 1, sizeof(length), f);
	fwrite(header, 1, at, f);
	for (int i = 0; i < MATRICES; i++)
		if (i != skip)
			fwrite(x->m[i].w, sizeof(float), (size_t)(x->m[i].out * x->m[i].in), f);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	strcpy(x->directory, "/tmp/test-llama-XXXXXX");
	assert_non_null(mkdtemp(x->directory));
	make_weights(x->m);
	write_file(x->directory, "config.json", config_text, strlen(config_text));
	write_model(x, -1);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	char path[128];

	snprintf(path, sizeof(path), "%s/model.safetensors", x->directory);
	unlink(path);
	snprintf(path, sizeof(path), "%s/config.json", x->directory);
	unlink(path);
	rmdir(x->directory);
	free(x);
	return 0;
}

/* ---- the reference, in double, one row after the other ------------------------- */

static void times(const struct matrix *m, const double *x, double *y)
{
	for (int i = 0; i < m->out; i++) {
		y[i] = 0;
		for (int j = 0; j < m->in; j++)
			y[i] += (double)m->w[i * m->in + j] * x[j];
	}
}

static void norm(const struct matrix *m, const double *x, double *y)
{
	double sum = 0;

	for (int i = 0; i < HIDDEN; i++)
		sum += x[i] * x[i] / HIDDEN;
	for (int i = 0; i < HIDDEN; i++)
		y[i] = x[i] / sqrt(sum + 1e-5) * m->w[i];
}

static void turn(double *x, int heads, int position)
{
	for (int h = 0; h < heads; h++) {
		for (int i = 0; i < DIM / 2; i++) {
			double angle = position / pow(10000, 2.0 * i / DIM);
			double *u = &x[h * DIM + i], *v = &x[h * DIM + i + DIM / 2], was = *u;

			*u = was * cos(angle) - *v * sin(angle);
			*v = *v * cos(angle) + was * sin(angle);
		}
	}
}

static void attend_one(const double *q, const double (*k)[KV], const double (*v)[KV], int seen,
		       double *o)
{
	for (int h = 0; h < HEADS; h++) {
		const int at = h / (HEADS / KV_HEADS) * DIM;
		double sum = 0;

		for (int d = 0; d < DIM; d++)
			o[h * DIM + d] = 0;
		for (int t = 0; t < seen; t++) {
			double logit = 0, e;

			for (int d = 0; d < DIM; d++)
				logit += q[h * DIM + d] * k[t][at + d];
			e = exp(logit / sqrt(DIM));
			sum += e;
			for (int d = 0; d < DIM; d++)
				o[h * DIM + d] += e * v[t][at + d];
		}
		for (int d = 0; d < DIM; d++)
			o[h * DIM + d] /= sum;
	}
}

static void reference(const struct matrix *m, const uint8_t *tokens, double (*ret)[VOCAB])
{
	static double k[LAYERS][ROWS][KV], v[LAYERS][ROWS][KV];

	for (int t = 0; t < ROWS; t++) {
		double x[HIDDEN], y[HIDDEN], q[Q], o[Q], gate[WIDE], up[WIDE];

		for (int i = 0; i < HIDDEN; i++)
			x[i] = m[EMBED].w[tokens[t] * HIDDEN + i];
		for (int l = 0; l < LAYERS; l++) {
			const struct matrix *w = &m[l * PER_LAYER];

			norm(&w[IN_NORM], x, y);
			times(&w[WQ], y, q);
			times(&w[WK], y, k[l][t]);
			times(&w[WV], y, v[l][t]);
			turn(q, HEADS, t);
			turn(k[l][t], KV_HEADS, t);
			attend_one(q, k[l], v[l], t + 1, o);
			times(&w[WO], o, y);
			for (int i = 0; i < HIDDEN; i++)
				x[i] += y[i];
			norm(&w[POST_NORM], x, y);
			times(&w[GATE], y, gate);
			times(&w[UP], y, up);
			for (int i = 0; i < WIDE; i++)
				gate[i] *= up[i] / (1 + exp(-gate[i]));
			times(&w[DOWN], gate, y);
			for (int i = 0; i < HIDDEN; i++)
				x[i] += y[i];
		}
		norm(&m[NORM], x, y);
		times(&m[HEAD], y, ret[t]);
	}
}

/* ---- the module, with the attention of the reference ---------------------------- */

/* Rows first.. in one pass; k and v keep what earlier passes brought. */
static void pass(struct llama_pass *p, const uint8_t *tokens, uint32_t first, uint32_t n,
		 double (*k)[ROWS][KV], double (*v)[ROWS][KV], float (*ret)[VOCAB])
{
	static float q[ROWS][Q], kv[ROWS][2 * KV], o[ROWS][Q];
	uint32_t positions[ROWS];

	for (uint32_t i = 0; i < n; i++)
		positions[i] = first + i;
	llama_embed(p, tokens + first, positions, n);
	for (uint32_t l = 0; l < LAYERS; l++) {
		llama_qkv(p, l, q[0], kv[0]);
		for (uint32_t i = 0; i < n; i++) {
			double wide_q[Q], wide_o[Q];

			for (int d = 0; d < KV; d++) {
				k[l][first + i][d] = kv[i][d];
				v[l][first + i][d] = kv[i][KV + d];
			}
			for (int d = 0; d < Q; d++)
				wide_q[d] = q[i][d];
			attend_one(wide_q, k[l], v[l], (int)(first + i + 1), wide_o);
			for (int d = 0; d < Q; d++)
				o[i][d] = (float)wide_o[d];
		}
		llama_finish(p, l, o[0]);
	}
	llama_logits(p, 0, n, ret[first]);
}

static void check_split(struct fixture *x, uint32_t block)
{
	static double wanted[ROWS][VOCAB], k[LAYERS][ROWS][KV], v[LAYERS][ROWS][KV];
	static float is[ROWS][VOCAB];
	uint8_t tokens[ROWS];
	struct llama_pass *p;
	struct llama *m;
	char why[WHY_BYTES];

	for (int i = 0; i < ROWS; i++)
		tokens[i] = (uint8_t)(i * 37 + 5);
	reference(x->m, tokens, wanted);
	assert_int_equal(llama_load(x->directory, why, &m), 0);
	assert_int_equal(llama_pass_new(m, ROWS, &p), 0);
	for (uint32_t first = 0; first < ROWS; first += block)
		pass(p, tokens, first, MIN(block, ROWS - first), k, v, is);
	for (int t = 0; t < ROWS; t++)
		for (int i = 0; i < VOCAB; i++)
			assert_float_equal(is[t][i], wanted[t][i], 2e-5 * (1 + fabs(wanted[t][i])));
	llama_pass_free(p);
	llama_free(m);
}

static void test_block(void **state)
{
	check_split(*state, ROWS);
}

/* One row takes gemv, four rows a short last block: the way of a real prompt. */
static void test_rows(void **state)
{
	check_split(*state, 1);
	check_split(*state, 4);
}

static void test_missing_tensor(void **state)
{
	struct fixture *x = *state;

	for (int i = 0; i < MATRICES; i++) {
		char why[WHY_BYTES];
		struct llama *m;

		write_model(x, i);
		assert_int_equal(llama_load(x->directory, why, &m), -ENOENT);
		assert_non_null(strstr(why, x->m[i].name));
	}
	write_model(x, -1);
}

static void test_other_shape(void **state)
{
	struct fixture *x = *state;
	FREE_MEMORY char *text = strdup(config_text);
	char why[WHY_BYTES];
	struct llama *m;

	memcpy(strstr(text, "\"intermediate_size\":40") + 20, "48", 2);
	write_file(x->directory, "config.json", text, strlen(text));
	assert_int_equal(llama_load(x->directory, why, &m), -EINVAL);
	assert_non_null(strstr(why, "model.layers.0.mlp.gate_proj.weight"));
	assert_non_null(strstr(why, "40 x 24"));
	write_file(x->directory, "config.json", config_text, strlen(config_text));
}

/* ---- config.json ------------------------------------------------------------------ */

/* `text` with the value of `key` replaced, or the pair taken away. */
static char *edited(const char *key, const char *value)
{
	char pattern[64], *text = NULL;
	const char *at, *end;

	snprintf(pattern, sizeof(pattern), "\"%s\":", key);
	at = strstr(config_text, pattern);
	if (!at) {
		assert_true(asprintf(&text, "{%s%s,%s", pattern, value, config_text + 1) > 0);
		return text;
	}
	end = at + strcspn(at, ",}");
	if (value)
		assert_true(asprintf(&text, "%.*s%s%s%s", (int)(at - config_text), config_text,
				     pattern, value, end) > 0);
	else
		assert_true(asprintf(&text, "%.*s%s", (int)(at - config_text), config_text,
				     *end == ',' ? end + 1 : "\"x\":0}") > 0);
	return text;
}

static void test_config(void **state)
{
	struct llama_config c;
	char why[WHY_BYTES];
	FREE_MEMORY char *text = edited("head_dim", NULL);

	assert_int_equal(llama_config_parse(config_text, why, &c), 0);
	assert_int_equal(c.layers, LAYERS);
	assert_int_equal(c.heads, HEADS);
	assert_int_equal(c.kv_heads, KV_HEADS);
	assert_int_equal(c.head_dim, DIM);
	assert_int_equal(c.intermediate, WIDE);
	assert_false(c.tied);
	/* Absent, it is hidden_size / num_attention_heads. */
	assert_int_equal(llama_config_parse(text, why, &c), 0);
	assert_int_equal(c.head_dim, HIDDEN / HEADS);
}

static void test_config_refused(void **state)
{
	static const struct {
		const char *key, *value; /* NULL: taken away */
	} cases[] = {
		{ "architectures", NULL },
		{ "architectures", "[\"GPT2LMHeadModel\"]" },
		{ "architectures", "[]" },
		{ "hidden_size", NULL },
		{ "hidden_size", "\"24\"" },
		{ "num_hidden_layers", NULL },
		{ "num_hidden_layers", "0" },
		{ "num_attention_heads", NULL },
		{ "num_key_value_heads", "3" },
		{ "head_dim", "7" },
		{ "intermediate_size", "-1" },
		{ "vocab_size", NULL },
		{ "vocab_size", "32000" },
		{ "max_position_embeddings", NULL },
		{ "max_position_embeddings", "99999999999" },
		{ "rope_theta", NULL },
		{ "rope_theta", "0" },
		{ "rms_norm_eps", NULL },
		{ "rms_norm_eps", "\"small\"" },
		{ "hidden_act", "\"gelu\"" },
		{ "rope_scaling", "{\"type\":\"linear\",\"factor\":2}" },
		{ "rope_parameters", "{}" },
		{ "attention_bias", "true" },
		{ "mlp_bias", "true" },
		{ "sliding_window", "4096" },
		{ "quantization_config", "{}" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		FREE_MEMORY char *text = edited(cases[i].key, cases[i].value);
		struct llama_config c;
		char why[WHY_BYTES] = "";

		if (llama_config_parse(text, why, &c) >= 0 || !strstr(why, cases[i].key))
			fail_msg("%s = %s: %s", cases[i].key, cases[i].value, why);
	}
}

static void test_config_no_json(void **state)
{
	struct llama_config c;
	char why[WHY_BYTES];

	assert_int_equal(llama_config_parse("", why, &c), -EINVAL);
	assert_int_equal(llama_config_parse("[]", why, &c), -EINVAL);
	for (size_t n = 0; n + 1 < sizeof(config_text); n++) {
		FREE_MEMORY char *text = strndup(config_text, n);

		assert_true(llama_config_parse(text, why, &c) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_block, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing_tensor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_shape, setup, teardown),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_config_refused),
		cmocka_unit_test(test_config_no_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
