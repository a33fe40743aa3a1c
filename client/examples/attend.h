/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention by sparqd: one session, one cache, one queue, and a sequence for
 * each lane. All of a model's attention goes through attend_layer; nothing of
 * it is computed in this process. A daemon that restarts is waited for, and what
 * it left undone is done again.
 */
#pragma once

#include <stdint.h>

#include "shm/sparq-abi.h"

struct attend;

struct attend_daemon {
	const char *socket; /* NULL: the library's default */
	uint32_t wait_s;    /* for one that went away to come back */
};

struct attend_params {
	struct attend_daemon daemon;
	uint32_t layers, heads, kv_heads, head_dim;
	const char *policy, *format, *options; /* as the daemon names them */
	uint32_t lanes;
};

/* What steps cost, added up over layers and lanes. */
struct attend_count {
	uint64_t tokens;                /* rows of all lanes, once for all layers */
	uint64_t steps, dense;          /* items, and how many of them ran a dense plan */
	uint64_t read_bytes, f16_bytes; /* read; what dense f16 would have read */
	uint64_t plane_bytes[SPARQ_PLANES];
};

/* A cache whose dtype is f32 if its format is, else f16: q, k, v and o are rounded to it. */
int attend_open(const struct attend_params *params, char *why, struct attend **ret);
struct attend *attend_close(struct attend *a);

uint32_t attend_max_rows(const struct attend *a); /* of one lane in one entry */
uint32_t attend_rows(const struct attend *a, uint32_t lane);
/* Every lane begins an empty sequence. */
int attend_restart(struct attend *a, char *why);

/* Rows of some lanes: lanes x rows, all of one lane together, at most max(max_rows, lanes). */
struct attend_block {
	uint32_t first_lane, lanes, rows;
};
/* Appends the rows to `layer` of each lane and attends with a query for each. Layers go in order:
 * the last one completes the rows. Tensors as in llama.h. */
int attend_layer(struct attend *a, uint32_t layer, struct attend_block b, const float *q,
		 const float *kv, float *ret_o, char *why);

/* Since the last call. Prompts count too: call it after the prompt to count steps alone. */
struct attend_count attend_take_count(struct attend *a);
