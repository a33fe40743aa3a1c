/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole model: llama's arithmetic here, attention at the daemon. A lane is
 * one text on its way; lanes go side by side through the same products and as
 * items of the same entries.
 */
#pragma once

#include <stdint.h>

#include "client/examples/attend.h"
#include "client/examples/llama.h"

/* How attention is done: a row of the tables that are printed. */
struct setting {
	const char *label;
	const char *policy, *format, *options;
};

struct forward;

int forward_open(const struct llama *m, const struct attend_daemon *daemon, const struct setting *s,
		 uint32_t lanes, char *why, struct forward **ret);
struct forward *forward_close(struct forward *f);
uint32_t forward_lanes(const struct forward *f);
uint32_t forward_block(const struct forward *f); /* rows of the blocks that a prompt is fed in */

/* All lanes begin anew. */
int forward_restart(struct forward *f, char *why);
/* n bytes of one lane as a prompt, in blocks. */
int forward_feed(struct forward *f, uint32_t lane, const uint8_t *bytes, uint32_t n, char *why);
/* One byte of every lane, by itself: a step of decoding. */
int forward_step(struct forward *f, const uint8_t *bytes, char *why);
/* logits[vocab] of row i of the last block fed, or of lane i of the last step. */
const float *forward_logits(struct forward *f, uint32_t i);
struct attend_count forward_take_count(struct forward *f);
