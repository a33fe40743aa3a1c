/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does dense attention by the daemon predict what it should? Compares with a
 * reference.json: of each text, the first predictions fed in blocks, and bits
 * per byte one step a byte, both dense over f32.
 */
#pragma once

#include <stdbool.h>

#include "client/examples/attend.h"
#include "client/examples/llama.h"

#define CHECK_TEXTS 4u
#define CHECK_TOLERANCE 1e-3 /* nats of one prediction, and bits per byte */

struct check_text {
	char name[64];
	unsigned predictions, windows;
	double nats_off; /* largest difference */
	double bits_per_byte, wanted;
};

struct check {
	struct check_text text[CHECK_TEXTS];
	unsigned n_texts;
	bool passed;
};

/* `max_windows`: as in score.h; with fewer than all, bits per byte are not compared. */
int check_run(const struct llama *m, const struct attend_daemon *daemon, const char *path,
	      unsigned max_windows, char *why, struct check *ret);
