/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of sparq-generate(1). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/examples/score.h"

struct options {
	const char *model, *prompt, *check;
	struct attend_daemon daemon;
	const char *held_out[SCORE_TEXTS];
	uint32_t n_held_out;
	const char *policy, *format, *extra; /* extra: "key=value" words for the cache */
	uint32_t r, k;
	uint32_t tokens, context, count, windows;
	uint64_t seed;
	float temperature;
	bool compare, grid, json;
};

#define OPTIONS_DONE 1 /* --help or --version: printed, nothing to do */

/* -EINVAL: a sentence on stderr says what is wrong. */
int options_parse(struct options *ret, int argc, char **argv);

#define OPTIONS_TEXT 512
/* The words that a cache of `policy` is made with: r, k and dense_below=0 for sparq, first and
 * recent for window, then `extra`, whose words replace those of the same key. */
void options_words(const char *policy, uint32_t r, uint32_t k, const char *extra, char *ret);
