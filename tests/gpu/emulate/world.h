/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One cache's sequence (rig.h) and steps over it, by the CPU's executor and by the
 * GPU's kernels under the emulator.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/batch.h"
#include "tests/kernels/rig.h"

#define WORLD_HEADS 2u /* KV heads */

struct shape {
	uint32_t dim, rows, group, n_q, sinks, rollback, outliers;
	enum kv_dtype dtype;
	const char *k_format, *v_format, *policy;
	char sets[96];  /* "key=value " words of the policy */
	bool cut;       /* a fork: a tile that counts in part, other rows behind it */
	bool ordered;   /* tables of channels, another one a KV head */
	bool parted;    /* pages in two parts */
	bool corrected; /* extents lack something in their sums */
	bool full, draft;
	uint32_t exact;   /* not 0: so many rows, by all channels of K, whatever the policy */
	unsigned special; /* some rows of K have what is no number: 1 NaN, 2 infinity, 3 both */
	uint64_t random;
};

struct world {
	struct shape x;
	struct kv_space space;
	uint32_t args[64];
	struct rig rig;
	struct kv_channels channels[WORLD_HEADS];
	const struct kv_channels *table[WORLD_HEADS];
	double *correction;
	struct kv_parts parts;
	char *elsewhere; /* where the second part is */
	float *q;
	struct kv_query query;
	struct kv_plan plan;
	void *scratch; /* the CPU's */
	uint64_t scratch_bytes;
	struct kv_result cpu[WORLD_HEADS], gpu[WORLD_HEADS];
	struct kv_gpu_item item;
};

/* NULL: the shape cannot be (a format without that, ...). */
struct world *world_new(const struct shape *x);
struct world *world_free(struct world *w);

struct gpu_run { /* of a batch */
	struct kv_cuda_batch batch;
	char *params, *device, *scratch, *output;
};
/* Runs the worlds' items in one batch. False with a line on stderr: the emulator found something.
 */
bool world_run(struct world *const *w, uint32_t n, uint64_t seed, struct gpu_run *ret);
void gpu_run_free(struct gpu_run *r);
/* The CPU's result of the same. */
void world_run_cpu(struct world *w);
/* A line of what it is. */
const char *world_name(const struct world *w);
