/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that break a rule each, and one that keeps them: what test-emulate.c holds
 * the emulator to. Each sums its block's numbers into out[block].
 */
#include "tests/gpu/emulate/broken.h"

#define WARPS (BROKEN_THREADS / 32)

static __device__ uint32_t number()
{
	return blockIdx.x * 1000 + threadIdx.x;
}

static __device__ uint32_t warp_sum(uint32_t x)
{
	for (uint32_t o = 16; o; o /= 2)
		x += __shfl_xor_sync(UINT32_MAX, x, o);
	return x;
}

static __device__ void sum_warps(const struct broken *b, const uint32_t *part)
{
	if (threadIdx.x == 0) {
		b->out[blockIdx.x] = 0;
		for (uint32_t i = 0; i < WARPS; i++)
			b->out[blockIdx.x] += part[i];
	}
}

extern "C" void broken_none(const struct broken *b)
{
	uint32_t *part = (uint32_t *)emulate_shared(), sum = warp_sum(number());

	if (threadIdx.x % 32 == 0)
		part[threadIdx.x / 32] = sum;
	__syncthreads();
	sum_warps(b, part);
}

extern "C" void broken_barrier_lacks(const struct broken *b)
{
	uint32_t *part = (uint32_t *)emulate_shared(), sum = warp_sum(number());

	if (threadIdx.x % 32 == 0)
		part[threadIdx.x / 32] = sum;
	sum_warps(b, part);
}

extern "C" void broken_race(const struct broken *b)
{
	uint32_t *last = (uint32_t *)emulate_shared();

	if (threadIdx.x % 32 == 0)
		*last = threadIdx.x;
	__syncthreads();
	if (threadIdx.x == 0)
		b->out[blockIdx.x] = *last;
}

extern "C" void broken_barrier_diverges(const struct broken *b)
{
	if (threadIdx.x < 40)
		__syncthreads();
	b->out[blockIdx.x] = 1;
}

extern "C" void broken_shuffle_diverges(const struct broken *b)
{
	b->out[blockIdx.x] = threadIdx.x % 32 < 20 ? warp_sum(number()) : 0;
}

extern "C" void broken_store(const struct broken *b)
{
	uint32_t *part = (uint32_t *)emulate_shared();

	part[threadIdx.x == 5 ? WARPS : 0] = 1;
	b->out[blockIdx.x] = 1;
}

/* The copy is waited for by who made it, and read by others. */
static __device__ void copied(const struct broken *b, bool wait)
{
	uint32_t *part = (uint32_t *)emulate_shared();

	if (threadIdx.x < WARPS) {
		emulate_copy(&part[threadIdx.x], &b->in[threadIdx.x], 4);
		emulate_copy_commit();
		if (wait)
			emulate_copy_wait(0);
	}
	__syncthreads();
	sum_warps(b, part);
}

extern "C" void broken_copy_none(const struct broken *b)
{
	copied(b, true);
}

extern "C" void broken_copy_unawaited(const struct broken *b)
{
	copied(b, false);
}
