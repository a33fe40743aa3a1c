/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of Llama around its attention
 *
 * Weights are widened to f32 once, activations are f32. Matrices are [out][in]
 * as the file has them, so a product is x . W^T and the keys and values of a
 * row land side by side, as an entry wants them, by the leading dimension.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cblas.h>

#include "client/examples/llama.h"
#include "client/examples/safetensors.h"
#include "client/examples/why.h"
#include "shm/base.h"

struct layer {
	float *in_norm, *post_norm; /* [hidden] */
	float *q, *k, *v, *o;       /* [out][in] */
	float *gate, *up, *down;
};

struct llama {
	struct llama_config config;
	float *embed, *norm, *head; /* head: the embedding where they are tied */
	struct layer *layers;
	float *cosine, *sine; /* [positions][head_dim / 2] */
};

struct llama_pass {
	const struct llama *model;
	uint32_t max_rows, n;
	uint32_t *positions;
	float *x, *normed; /* [max_rows][hidden] */
	float *gate, *up;  /* [max_rows][intermediate] */
};

/* ---- loading --------------------------------------------------------------- */

static int read_text(const char *path, char *why, char **ret)
{
	CLOSE_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	FREE_MEMORY char *text = calloc(1, MIB + 1);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = fd < 0 ? -1 : read(fd, text, MIB);
	if (n < 0) {
		n = -errno;
		snprintf(why, WHY_BYTES, "%s: %s", path, strerror(errno));
		return (int)n;
	}
	*ret = STEAL_PTR(text);
	return 0;
}

static int load_tensor(struct safetensors *s, const char *name, uint32_t out, uint32_t in,
		       char *why, float **ret)
{
	/* A vector is a matrix of one column that the file does not write. */
	uint64_t shape[2] = { out, in };
	FREE_MEMORY float *w = calloc((size_t)out * in, sizeof(float));
	int r;

	if (!w) {
		snprintf(why, WHY_BYTES, "tensor %s: no memory", name);
		return -ENOMEM;
	}
	r = safetensors_read(s, name, shape, in == 1 ? 1 : 2, why, w);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(w);
	return 0;
}

static int load_layer(struct safetensors *s, const struct llama_config *c, uint32_t i, char *why,
		      struct layer *l)
{
	const uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
	const struct {
		const char *name;
		uint32_t out, in;
		float **to;
	} all[] = {
		{ "input_layernorm", c->hidden, 1, &l->in_norm },
		{ "post_attention_layernorm", c->hidden, 1, &l->post_norm },
		{ "self_attn.q_proj", q, c->hidden, &l->q },
		{ "self_attn.k_proj", kv, c->hidden, &l->k },
		{ "self_attn.v_proj", kv, c->hidden, &l->v },
		{ "self_attn.o_proj", c->hidden, q, &l->o },
		{ "mlp.gate_proj", c->intermediate, c->hidden, &l->gate },
		{ "mlp.up_proj", c->intermediate, c->hidden, &l->up },
		{ "mlp.down_proj", c->hidden, c->intermediate, &l->down },
	};

	for (unsigned j = 0; j < ARRAY_SIZE(all); j++) {
		char name[96];
		int r;

		snprintf(name, sizeof(name), "model.layers.%u.%s.weight", i, all[j].name);
		r = load_tensor(s, name, all[j].out, all[j].in, why, all[j].to);
		if (r < 0)
			return r;
	}
	return 0;
}

static int load_weights(struct llama *m, struct safetensors *s, char *why)
{
	const struct llama_config *c = &m->config;
	int r;

	m->layers = calloc(c->layers, sizeof(*m->layers));
	if (!m->layers)
		return -ENOMEM;
	r = load_tensor(s, "model.embed_tokens.weight", c->vocab, c->hidden, why, &m->embed);
	for (uint32_t i = 0; r == 0 && i < c->layers; i++)
		r = load_layer(s, c, i, why, &m->layers[i]);
	if (r == 0)
		r = load_tensor(s, "model.norm.weight", c->hidden, 1, why, &m->norm);
	if (r == 0 && c->tied)
		m->head = m->embed;
	else if (r == 0)
		r = load_tensor(s, "lm_head.weight", c->vocab, c->hidden, why, &m->head);
	return r;
}

/* Channel i turns with channel i + head_dim / 2, by position . theta^(-2i / head_dim). */
static int make_rope(struct llama *m)
{
	const struct llama_config *c = &m->config;
	const uint32_t half = c->head_dim / 2;

	m->cosine = calloc((size_t)c->positions * half, sizeof(float));
	m->sine = calloc((size_t)c->positions * half, sizeof(float));
	if (!m->cosine || !m->sine)
		return -ENOMEM;
	for (uint32_t i = 0; i < half; i++) {
		double frequency = pow(c->theta, -2.0 * i / c->head_dim);

		for (uint32_t p = 0; p < c->positions; p++) {
			m->cosine[(size_t)p * half + i] = (float)cos(p * frequency);
			m->sine[(size_t)p * half + i] = (float)sin(p * frequency);
		}
	}
	return 0;
}

static int load(struct llama *m, const char *directory, char *why)
{
	FREE_MEMORY char *text = NULL, *path = NULL;
	struct safetensors *s;
	int r;

	if (asprintf(&path, "%s/config.json", directory) < 0)
		return -ENOMEM;
	r = read_text(path, why, &text);
	if (r == 0)
		r = llama_config_parse(text, why, &m->config);
	if (r < 0)
		return r;
	free(path);
	path = NULL;
	if (asprintf(&path, "%s/model.safetensors", directory) < 0)
		return -ENOMEM;
	r = safetensors_open(path, why, &s);
	if (r < 0)
		return r;
	r = load_weights(m, s, why);
	safetensors_close(s);
	return r < 0 ? r : make_rope(m);
}

int llama_load(const char *directory, char *why, struct llama **ret)
{
	struct llama *m = calloc(1, sizeof(*m));
	int r;

	snprintf(why, WHY_BYTES, "%s: no memory", directory);
	if (!m)
		return -ENOMEM;
	r = load(m, directory, why);
	if (r < 0) {
		llama_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

static void free_layer(struct layer *l)
{
	free(l->in_norm);
	free(l->post_norm);
	free(l->q);
	free(l->k);
	free(l->v);
	free(l->o);
	free(l->gate);
	free(l->up);
	free(l->down);
}

struct llama *llama_free(struct llama *m)
{
	if (!m)
		return NULL;
	for (uint32_t i = 0; m->layers && i < m->config.layers; i++)
		free_layer(&m->layers[i]);
	free(m->layers);
	if (m->head != m->embed)
		free(m->head);
	free(m->embed);
	free(m->norm);
	free(m->cosine);
	free(m->sine);
	free(m);
	return NULL;
}

const struct llama_config *llama_config(const struct llama *m)
{
	return &m->config;
}

/* ---- a pass ------------------------------------------------------------------ */

int llama_pass_new(const struct llama *m, uint32_t max_rows, struct llama_pass **ret)
{
	const struct llama_config *c = &m->config;
	struct llama_pass *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->model = m;
	p->max_rows = max_rows;
	p->positions = calloc(max_rows, sizeof(*p->positions));
	p->x = calloc((size_t)max_rows * c->hidden, sizeof(float));
	p->normed = calloc((size_t)max_rows * c->hidden, sizeof(float));
	p->gate = calloc((size_t)max_rows * c->intermediate, sizeof(float));
	p->up = calloc((size_t)max_rows * c->intermediate, sizeof(float));
	if (!p->positions || !p->x || !p->normed || !p->gate || !p->up) {
		llama_pass_free(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

struct llama_pass *llama_pass_free(struct llama_pass *p)
{
	if (!p)
		return NULL;
	free(p->positions);
	free(p->x);
	free(p->normed);
	free(p->gate);
	free(p->up);
	free(p);
	return NULL;
}

struct product { /* y[n][out], rows `stride` floats apart, = or += x[n][in] . w[out][in]^T */
	uint32_t n, out, in, stride;
	bool add;
};

static void multiply(struct product p, const float *x, const float *w, float *y)
{
	const float beta = p.add ? 1 : 0;

	/* One row is most of decoding; gemm would pack the whole matrix for it. */
	if (p.n == 1)
		cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)p.out, (int)p.in, 1, w, (int)p.in, x,
			    1, beta, y, 1);
	else
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p.n, (int)p.out,
			    (int)p.in, 1, x, (int)p.in, w, (int)p.in, beta, y, (int)p.stride);
}

static void normalise(const struct llama_config *c, const float *x, const float *weight, uint32_t n,
		      float *ret)
{
	for (uint32_t row = 0; row < n; row++, x += c->hidden, ret += c->hidden) {
		float sum = 0, scale;

		for (uint32_t i = 0; i < c->hidden; i++)
			sum += x[i] * x[i];
		scale = 1 / sqrtf(sum / (float)c->hidden + c->eps);
		for (uint32_t i = 0; i < c->hidden; i++)
			ret[i] = x[i] * scale * weight[i];
	}
}

/* Rotates n rows of `heads` heads that lie `stride` floats apart. */
static void rotate(const struct llama_pass *p, float *x, uint32_t heads, uint32_t stride)
{
	const struct llama *m = p->model;
	const uint32_t half = m->config.head_dim / 2;

	for (uint32_t row = 0; row < p->n; row++, x += stride) {
		const float *cosine = m->cosine + (size_t)p->positions[row] * half;
		const float *sine = m->sine + (size_t)p->positions[row] * half;

		for (uint32_t h = 0; h < heads; h++) {
			float *a = x + (size_t)h * 2 * half, *b = a + half;

			for (uint32_t i = 0; i < half; i++) {
				float u = a[i], v = b[i];

				a[i] = u * cosine[i] - v * sine[i];
				b[i] = v * cosine[i] + u * sine[i];
			}
		}
	}
}

void llama_embed(struct llama_pass *p, const uint8_t *tokens, const uint32_t *positions, uint32_t n)
{
	const struct llama_config *c = &p->model->config;

	assert(n <= p->max_rows);
	p->n = n;
	for (uint32_t row = 0; row < n; row++) {
		assert(tokens[row] < c->vocab && positions[row] < c->positions);
		p->positions[row] = positions[row];
		memcpy(p->x + (size_t)row * c->hidden,
		       p->model->embed + (size_t)tokens[row] * c->hidden,
		       c->hidden * sizeof(float));
	}
}

void llama_qkv(struct llama_pass *p, uint32_t layer, float *ret_q, float *ret_kv)
{
	const struct llama_config *c = &p->model->config;
	const struct layer *l = &p->model->layers[layer];
	const uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
	const struct product of_q = { p->n, q, c->hidden, q, false };
	const struct product of_kv = { p->n, kv, c->hidden, 2 * kv, false };

	normalise(c, p->x, l->in_norm, p->n, p->normed);
	multiply(of_q, p->normed, l->q, ret_q);
	multiply(of_kv, p->normed, l->k, ret_kv);
	multiply(of_kv, p->normed, l->v, ret_kv + kv);
	rotate(p, ret_q, c->heads, q);
	rotate(p, ret_kv, c->kv_heads, 2 * kv);
}

void llama_finish(struct llama_pass *p, uint32_t layer, const float *o)
{
	const struct llama_config *c = &p->model->config;
	const struct layer *l = &p->model->layers[layer];
	const uint32_t q = c->heads * c->head_dim, wide = c->intermediate;
	const struct product back = { p->n, c->hidden, q, c->hidden, true };
	const struct product widen = { p->n, wide, c->hidden, wide, false };
	const struct product narrow = { p->n, c->hidden, wide, c->hidden, true };

	multiply(back, o, l->o, p->x);
	normalise(c, p->x, l->post_norm, p->n, p->normed);
	multiply(widen, p->normed, l->gate, p->gate);
	multiply(widen, p->normed, l->up, p->up);
	for (size_t i = 0; i < (size_t)p->n * wide; i++)
		p->gate[i] *= p->up[i] / (1 + expf(-p->gate[i]));
	multiply(narrow, p->gate, l->down, p->x);
}

void llama_logits(struct llama_pass *p, uint32_t first, uint32_t n, float *ret)
{
	const struct llama_config *c = &p->model->config;
	const struct product logits = { n, c->vocab, c->hidden, c->vocab, false };

	assert(first + n <= p->n);
	normalise(c, p->x + (size_t)first * c->hidden, p->model->norm, n, p->normed);
	multiply(logits, p->normed, p->model->head, ret);
}
