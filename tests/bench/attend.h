/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `sparq-bench attend` share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/kernels/rig.h"

/* ---- attend-rows.c: sequences to attend to ----------------------------------- */

struct bench_rows {
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	struct rig *rig; /* equal ones, visited in turn so that none is in a cache */
	unsigned n;
	float *q; /* BENCH_QUERIES of them, so that channels differ */
};
#define BENCH_QUERIES 8u

struct bench_shape {
	uint32_t rows, dim, heads, kv_heads;
	const char *format, *policy, *r, *k; /* r, k: NULL for the policy's own */
};

/* -errno with `why` (KV_ERROR_TEXT bytes). */
int bench_rows_init(struct bench_rows *b, const struct bench_shape *shape, char *why);
void bench_rows_deinit(struct bench_rows *b);

/* ---- attend-crew.c: threads that share a step as the daemon's workers do ------- */

struct crew;
int crew_start(unsigned threads, struct crew **ret);
void crew_stop(struct crew *c);
/* Runs work(argument, i) for i below n, each once, on all threads; returns when all are done. */
void crew_run(struct crew *c, void (*work)(void *argument, unsigned i), void *argument, unsigned n);

/* ---- roofline.c ---------------------------------------------------------------- */

/* Bytes per nanosecond that the crew reads from memory, the best of several passes. 0: no memory.
 */
double roofline_gbps(struct crew *c);
