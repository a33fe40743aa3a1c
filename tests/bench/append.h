/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `sparq-bench append` share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/option.h"
#include "tests/kernels/rig.h"

struct append_options {
	struct bench_numbers entry;
	struct bench_words format;
	const char *isa, *daemon;
	uint32_t rows, dim, kv_heads;
	double seconds;
	bool through_daemon, json;
};

/* Rows to append, few enough to be in a cache, as the ones are that a model has just computed. */
struct append_rows {
	struct kv_space *space;
	uint32_t n;
	size_t row_bytes, used; /* used: of an empty rig */
	char *packed;           /* BLOCKS blocks of KV_MAX_ENTRY_ROWS */
	char k[16], v[16];
};

/* -errno with `why` (KV_ERROR_TEXT bytes). */
int append_rows_init(struct append_rows *a, const struct append_options *o, const char *format,
		     char *why);
void append_rows_deinit(struct append_rows *a);
/* What is appended as rows row...: at most KV_MAX_ENTRY_ROWS of them. */
const char *append_block(const struct append_rows *a, uint32_t row);

/* The same through a daemon, ns a row. -errno; it said why. */
int append_remote(const struct append_options *o, const struct append_rows *rows, uint32_t entry,
		  double *ret_ns);
