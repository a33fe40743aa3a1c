/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcuda.so.1 for tests: the part of the driver API that kernels/cuda uses, on
 * the host. Each stream is a thread, so what is not waited for is not done; device
 * memory is memory of the process that kernels may touch once it is mapped, with
 * garbage in it. Kernels are found by their names.
 *
 * FAKE_CUDA in the environment, words that are read at cuInit:
 *
 *   devices=N version=13000 memory=BYTES capability=90 vmm=0 slow_us=N
 *   oom_at=N    the Nth call that takes memory finds none
 *   lost_at=N   from the Nth call on, every call fails
 *   lost_file=PATH  so it does while that file exists
 *   graphs=0    there are none (cuGraphCreate)
 *
 * A program that links or opens the library may look at what is left.
 */
#pragma once

#include <stdint.h>

/* Things that were made and not yet given back: contexts, modules, memory, streams, events. */
typedef uint64_t fake_cuda_count_fn(void);
#define FAKE_CUDA_LIVE "fake_cuda_live"
#define FAKE_CUDA_CALLS "fake_cuda_calls" /* of the driver, since cuInit */
#define FAKE_CUDA_TAKES "fake_cuda_takes" /* those that take memory */
#define FAKE_CUDA_BYTES "fake_cuda_bytes" /* of device memory, mapped or allocated */
/* The range of addresses that was reserved last. */
typedef void *fake_cuda_range_fn(void);
#define FAKE_CUDA_RANGE "fake_cuda_range"

/* Kernels that it knows: one pointer is all that they are given. */
struct fake_kernel;
struct fake_launch {
	const struct fake_kernel *kernel;
	unsigned grid[3], block[3], shared;
	void *argument;
};
typedef void fake_kernel_fn(const struct fake_launch *l);
struct fake_kernel {
	const char *name;
	fake_kernel_fn *run;
	void (*emulated)(const void *parameters); /* device code; NULL: `run` is all of it */
};
const struct fake_kernel *fake_kernel_find(const char *name);
