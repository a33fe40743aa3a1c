/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers in order, rows of a block or one row of every lane through each
 */
#include <errno.h>

#include "client/examples/forward.h"
#include "client/examples/why.h"

struct forward {
	const struct llama *model;
	const struct llama_config *config;
	struct attend *attend;
	struct llama_pass *pass;
	uint32_t lanes;
	uint32_t *positions;
	float *q, *kv, *o;
	float *logits;
};

static int make_rows(struct forward *f, char *why)
{
	const struct llama_config *c = f->config;
	const size_t rows = MAX(attend_max_rows(f->attend), f->lanes);
	const size_t q = (size_t)c->heads * c->head_dim, kv = 2 * (size_t)c->kv_heads * c->head_dim;

	f->positions = calloc(rows, sizeof(*f->positions));
	f->q = calloc(rows * q, sizeof(float));
	f->kv = calloc(rows * kv, sizeof(float));
	f->o = calloc(rows * q, sizeof(float));
	f->logits = calloc(c->vocab, sizeof(float));
	if (!f->positions || !f->q || !f->kv || !f->o || !f->logits ||
	    llama_pass_new(f->model, (uint32_t)rows, &f->pass) < 0)
		return why_set(why, -ENOMEM, "no memory for %zu rows", rows);
	return 0;
}

int forward_open(const struct llama *m, const struct attend_daemon *daemon, const struct setting *s,
		 uint32_t lanes, char *why, struct forward **ret)
{
	const struct llama_config *c = llama_config(m);
	const struct attend_params params = {
		.daemon = *daemon,
		.layers = c->layers,
		.heads = c->heads,
		.kv_heads = c->kv_heads,
		.head_dim = c->head_dim,
		.policy = s->policy,
		.format = s->format,
		.options = s->options,
		.lanes = lanes,
	};
	struct forward *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return why_set(why, -ENOMEM, "no memory for a model");
	f->model = m;
	f->config = c;
	f->lanes = lanes;
	r = attend_open(&params, why, &f->attend);
	if (r == 0)
		r = make_rows(f, why);
	if (r < 0) {
		forward_close(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct forward *forward_close(struct forward *f)
{
	if (!f)
		return NULL;
	attend_close(f->attend);
	llama_pass_free(f->pass);
	free(f->positions);
	free(f->q);
	free(f->kv);
	free(f->o);
	free(f->logits);
	free(f);
	return NULL;
}

uint32_t forward_lanes(const struct forward *f)
{
	return f->lanes;
}

uint32_t forward_block(const struct forward *f)
{
	return attend_max_rows(f->attend);
}

int forward_restart(struct forward *f, char *why)
{
	return attend_restart(f->attend, why);
}

static int run(struct forward *f, struct attend_block b, const uint8_t *bytes, char *why)
{
	const uint32_t n = b.lanes * b.rows;

	for (uint32_t i = 0; i < n; i++) {
		f->positions[i] = attend_rows(f->attend, b.first_lane + i / b.rows) + i % b.rows;
		if (f->positions[i] >= f->config->positions)
			return why_set(why, -E2BIG, "the model has %u positions",
				       f->config->positions);
	}
	llama_embed(f->pass, bytes, f->positions, n);
	for (uint32_t layer = 0; layer < f->config->layers; layer++) {
		int r;

		llama_qkv(f->pass, layer, f->q, f->kv);
		r = attend_layer(f->attend, layer, b, f->q, f->kv, f->o, why);
		if (r < 0)
			return r;
		llama_finish(f->pass, layer, f->o);
	}
	return 0;
}

int forward_feed(struct forward *f, uint32_t lane, const uint8_t *bytes, uint32_t n, char *why)
{
	const uint32_t most = forward_block(f);

	for (uint32_t at = 0; at < n; at += most) {
		struct attend_block b = { lane, 1, MIN(most, n - at) };
		int r = run(f, b, bytes + at, why);

		if (r < 0)
			return r;
	}
	return 0;
}

int forward_step(struct forward *f, const uint8_t *bytes, char *why)
{
	return run(f, (struct attend_block){ 0, f->lanes, 1 }, bytes, why);
}

const float *forward_logits(struct forward *f, uint32_t i)
{
	llama_logits(f->pass, i, 1, f->logits);
	return f->logits;
}

struct attend_count forward_take_count(struct forward *f)
{
	return attend_take_count(f->attend);
}
