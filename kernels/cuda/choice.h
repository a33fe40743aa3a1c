/* SPDX-License-Identifier: Apache-2.0 */
/* What of a plan the GPU's kernels do: see choice.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/params.h"
#include "kernels/gpu.h"

struct choice {
	uint32_t visible; /* rows, to the last query */
	uint32_t n_runs, fixed, fixed_sent;
	struct kv_cuda_run run[KV_CUDA_RUNS]; /* chosen whatever their scores, ascending */
	bool scored;                          /* rows are: for the choice below, or alpha */
	bool exact;                           /* by all channels; r: how many there are */
	uint32_t r, k, rank_first, rank_end;  /* k of these rows; 0: none */
	bool softmax;
	uint32_t mean; /* enum kv_mean */
};

/* -EOPNOTSUPP with `why` (KV_GPU_WHY bytes): the operation. */
int choice_make(const struct kv_gpu_item *item, struct choice *ret, char *why);
