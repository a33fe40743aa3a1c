/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs device code on the host: for tests of the GPU's kernels where there is no
 * GPU. It says what a kernel computes and whether it keeps the rules, nothing about
 * its speed.
 *
 * Kernels are compiled by g++ with emulate/cuda.h in the place of the toolkit's
 * headers. A thread of a block is a fibre that runs until it waits for others: the
 * lanes of its warp, or the block. Blocks run one after the other. The seed decides
 * in which order blocks, warps and lanes run, so a kernel that depends on it gives
 * other results with another seed. What is an error here:
 *
 * - a barrier that not all threads of a block reach, a shuffle that not all of its lanes do;
 * - a store outside a block's shared memory, which is filled with bytes that make no number;
 * - asynchronous copies take effect when they are waited for, as late as they may.
 *
 * What it cannot find: a wild load of global memory (AddressSanitizer does), two threads that write
 * the same word without a barrier in an order that no seed tried, a missing fence.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMULATE_WHY 240

typedef void emulate_kernel(const void *params);
/* By its name; NULL: there is none. */
emulate_kernel *emulate_find(const char *name);

struct emulate_grid {
	uint32_t x, y, threads; /* blocks, threads of each */
	size_t shared_bytes;
	uint64_t seed; /* 0: ascending */
};
/* -EDEADLK: a barrier or shuffle that not all reach; -EFAULT: a store outside shared memory;
 * -ENOMEM. `why` (EMULATE_WHY bytes) names block and threads. */
int emulate_run(emulate_kernel *kernel, const void *params, const struct emulate_grid *grid,
		char *why);

/* ---- for emulate/cuda.h: the thread that runs ------------------------------------- */

struct emulate_place {
	uint32_t thread, block_x, block_y, threads, grid_x, grid_y;
};
extern struct emulate_place emulate_here;

enum emulate_exchange { EMULATE_SHUFFLE, EMULATE_BALLOT, EMULATE_SYNC };
/* Waits for the lanes of `mask`; the value of lane `from`, or the ballot of them all. */
uint64_t emulate_warp(enum emulate_exchange what, uint32_t mask, uint64_t value, uint32_t from);
void emulate_block_barrier(void);
void *emulate_shared(void);
/* A copy of 4, 8 or 16 bytes; a group of them; until at most so many groups are left. */
void emulate_copy(void *to, const void *from, uint32_t bytes);
void emulate_copy_commit(void);
void emulate_copy_wait(uint32_t left);

#ifdef __cplusplus
}
#endif
