/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch of steps as the GPU's kernels want it: one block of parameters, and
 * what to launch with it.
 *
 * Everything here is a pure function of memory: who has a device copies the
 * parameters to it, launches in the order of the list with the parameters'
 * device address as the one argument of each kernel, and copies the output
 * back. The parameters hold counters that kernels use up, so they are copied
 * for every batch. What is summed up in which order depends on an item alone, never on
 * what else is in the batch: same input, same bits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/gpu.h"
#include "kernels/kernels.h"

#define KV_CUDA_LAUNCHES 5u
#define KV_CUDA_ALIGN 256u /* of the parameters', the scratch's and the output's addresses */

struct kv_cuda_launch {
	const char *kernel;      /* its name in the module */
	uint32_t grid_x, grid_y; /* blocks */
	uint32_t threads;        /* of each */
	uint32_t shared_bytes;   /* dynamic: above 48 KiB a kernel must be told once that it may */
};

/* Kinds of things that the parameters hold arrays of. */
enum kv_cuda_array {
	KV_CUDA_SPACES,
	KV_CUDA_ITEMS,
	KV_CUDA_LAYOUTS,
	KV_CUDA_BLOCKS,
	KV_CUDA_ADDRESSES,
	KV_CUDA_UNITS,
	KV_CUDA_TABLES,
	KV_CUDA_QUERIES,
	KV_CUDA_CORRECTIONS,
	KV_CUDA_COUNTERS,
	KV_CUDA_ARRAYS
};

struct kv_cuda_batch {
	size_t params_bytes, scratch_bytes, output_bytes;
	uint32_t n_launches;
	struct kv_cuda_launch launch[KV_CUDA_LAUNCHES];
	uint32_t n[KV_CUDA_ARRAYS];
};

/* Where the batch's memory is, and where host memory is on the device. */
struct kv_cuda_where {
	uint64_t params, scratch, output; /* device addresses */
	/* Of a byte of a view's pages; 0: it is not there. */
	uint64_t (*device_of)(void *arg, const void *host);
	void *arg;
};

/* Caches that can be served at all. -EOPNOTSUPP with `why` (KV_GPU_WHY bytes). */
int kv_cuda_serves(const struct kv_space *s, char *why);
/* One step of such a cache; -EOPNOTSUPP with `why`: an operation of its plan, or queries of more
 * bytes than a step may have. */
int kv_cuda_runs(const struct kv_gpu_item *item, char *why);

/* How much memory the items take and what is launched. All of them passed kv_cuda_runs. */
void kv_cuda_measure(const struct kv_gpu_item *item, uint32_t n, struct kv_cuda_batch *ret);
/* Fills params[batch->params_bytes]. -EFAULT: a page is not on the device. */
int kv_cuda_fill(const struct kv_gpu_item *item, uint32_t n, const struct kv_cuda_batch *batch,
		 const struct kv_cuda_where *where, void *params);
/* From the filled parameters and the output that came back, to the items' results: y and lse point
 * into `output`. */
void kv_cuda_collect(const struct kv_gpu_item *item, uint32_t n, const void *params, void *output);

/* ---- tiles, where the device has the only copy of the rows ------------------------------- */

struct kv_cuda_tile { /* what kv_flush is asked for, of all KV heads */
	const struct kv_space *space;
	const struct kv_view *view;
	const struct kv_extent *extent;
	unsigned slot;
};
/* As kv_cuda_measure and kv_cuda_fill; there is no output. */
void kv_cuda_flush_measure(const struct kv_cuda_tile *tile, uint32_t n, struct kv_cuda_batch *ret);
int kv_cuda_flush_fill(const struct kv_cuda_tile *tile, uint32_t n,
		       const struct kv_cuda_batch *batch, const struct kv_cuda_where *where,
		       void *params);
