/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What device code of this project uses of CUDA, for g++: included before it by the
 * compiler's command line. See emulate.h.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/gpu/emulate/emulate.h"

#define KV_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct emulate_dim {
	uint32_t x, y;
};
#define threadIdx (emulate_dim{ emulate_here.thread, 0 })
#define blockIdx (emulate_dim{ emulate_here.block_x, emulate_here.block_y })
#define blockDim (emulate_dim{ emulate_here.threads, 1 })
#define gridDim (emulate_dim{ emulate_here.grid_x, emulate_here.grid_y })

struct alignas(8) uint2 {
	uint32_t x, y;
};
struct alignas(16) uint4 {
	uint32_t x, y, z, w;
};
struct alignas(16) float4 {
	float x, y, z, w;
};

static inline void __syncthreads()
{
	emulate_block_barrier();
}

static inline void __syncwarp(uint32_t mask = UINT32_MAX)
{
	emulate_warp(EMULATE_SYNC, mask, 0, 0);
}

static inline void __threadfence() {}

template <typename T> static inline T __shfl_sync(uint32_t mask, T x, uint32_t lane)
{
	uint64_t bits = 0;

	memcpy(&bits, &x, sizeof(x));
	bits = emulate_warp(EMULATE_SHUFFLE, mask, bits, lane);
	memcpy(&x, &bits, sizeof(x));
	return x;
}

template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T x, uint32_t lanes)
{
	return __shfl_sync(mask, x, (emulate_here.thread % 32) ^ lanes);
}

static inline uint32_t __ballot_sync(uint32_t mask, bool x)
{
	return (uint32_t)emulate_warp(EMULATE_BALLOT, mask, x, 0);
}

static inline bool __any_sync(uint32_t mask, bool x)
{
	return __ballot_sync(mask, x) != 0;
}

static inline uint32_t atomicAdd(uint32_t *p, uint32_t x)
{
	uint32_t old = *p;

	*p += x;
	return old;
}

static inline uint32_t atomicOr(uint32_t *p, uint32_t x)
{
	uint32_t old = *p;

	*p |= x;
	return old;
}

static inline int __popc(uint32_t x)
{
	return __builtin_popcount(x);
}

static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t select)
{
	uint64_t both = (uint64_t)b << 32 | a;
	uint32_t x = 0;

	for (unsigned i = 0; i < 4; i++)
		x |= (uint32_t)(both >> (8 * (select >> (4 * i) & 7)) & 255) << (8 * i);
	return x;
}

/* Signed bytes by signed bytes. */
static inline int __dp4a(int a, int b, int c)
{
	for (unsigned i = 0; i < 4; i++)
		c += (int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
	return c;
}
