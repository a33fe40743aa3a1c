/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model predicts of a text it has not seen, in bits per byte.
 *
 * A text is cut into windows of as many bytes as the model has positions. Of
 * each window the first `context` bytes are given as a prompt, dense, and every
 * byte from there is predicted after a step of its own: that is where a policy
 * runs.
 */
#pragma once

#include <stdint.h>

#include "client/examples/forward.h"
#include "client/examples/text.h"

#define SCORE_TEXTS 4u

/* -ln of the probability of `next`. */
double score_nats(const float *logits, uint32_t vocab, uint8_t next);

struct score_job {
	const struct text *texts;
	uint32_t n_texts;
	uint32_t positions;      /* of a window; window i of a text begins at byte i * positions */
	uint32_t context, count; /* predictions context .. context + count - 1 of each window */
	uint32_t max_windows;    /* of each text; 0: all */
};

struct score {
	double bits_per_byte[SCORE_TEXTS];
	struct attend_count count; /* of the steps alone */
	double seconds;            /* of the steps, all lanes */
};

/* How many windows the texts have together; -EINVAL: a text is too short for one. */
int score_lanes(const struct score_job *job, char *why);
/* `f` has as many lanes as there are windows. */
int score_run(struct forward *f, const struct score_job *job, const char *label, char *why,
	      struct score *ret);
/* The first n predictions of a text that is fed in blocks; ret[n]. */
int score_blocks(struct forward *f, const struct text *t, uint32_t n, uint32_t vocab, char *why,
		 double *ret);
