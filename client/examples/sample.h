/* SPDX-License-Identifier: Apache-2.0 */
/* Continues a prompt, one byte a step. */
#pragma once

#include <stdint.h>

#include "client/examples/forward.h"
#include "client/examples/text.h"

struct sample_params {
	const struct text *prompt;
	uint32_t tokens;
	float temperature; /* 0: always the most probable */
	uint64_t seed;
};

struct sample {
	uint8_t *bytes; /* followed by a 0 */
	uint32_t n, prompt_bytes;
	double prompt_seconds, seconds;
	struct attend_count count; /* of the steps alone */
};

/* `f` has one lane. Of a prompt that does not fit with its continuation the end is taken. */
int sample_run(struct forward *f, const struct llama_config *c, const struct sample_params *p,
	       const char *label, char *why, struct sample *ret);
void sample_deinit(struct sample *s);
/* The token that a number in [0, 1) chooses. */
uint32_t sample_choose(const float *logits, uint32_t vocab, float temperature, double number);
