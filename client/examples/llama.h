/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A language model of the Llama architecture, without its attention.
 *
 * A pass takes some rows (tokens with their positions) through the layers:
 *
 *	llama_embed -> { llama_qkv -> attention, by the caller -> llama_finish }
 *	of each layer -> llama_logits
 *
 * Whose rows they are is the caller's business: a block of one prompt and one
 * row each of many sequences look alike from here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct llama_config {
	uint32_t layers, heads, kv_heads, head_dim;
	uint32_t hidden, intermediate, vocab, positions;
	float theta, eps;
	bool tied; /* the embedding is the output matrix as well */
};

/* Text of a config.json: what is missing, of another architecture or not
 * supported is refused with `why` (why.h) naming the key. */
int llama_config_parse(const char *text, char *why, struct llama_config *ret);

struct llama;

/* `directory` holds config.json and model.safetensors. */
int llama_load(const char *directory, char *why, struct llama **ret);
struct llama *llama_free(struct llama *m);
const struct llama_config *llama_config(const struct llama *m);

/* The rows on their way: residual stream and scratch for at most `max_rows`. */
struct llama_pass;

int llama_pass_new(const struct llama *m, uint32_t max_rows, struct llama_pass **ret);
struct llama_pass *llama_pass_free(struct llama_pass *p);

/* Begins a pass with n rows. Tokens are below vocab, positions below positions: asserted. */
void llama_embed(struct llama_pass *p, const uint8_t *tokens, const uint32_t *positions,
		 uint32_t n);
/* After RoPE: q[n][heads][head_dim]; kv[n]: k[kv_heads][head_dim], then v likewise. */
void llama_qkv(struct llama_pass *p, uint32_t layer, float *ret_q, float *ret_kv);
/* Takes o[n][heads][head_dim] and ends the layer. */
void llama_finish(struct llama_pass *p, uint32_t layer, const float *o);
/* logits[n][vocab] of rows first.. of the pass. */
void llama_logits(struct llama_pass *p, uint32_t first, uint32_t n, float *ret);
