/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What device code of this project uses of CUDA, for g++: included before it by the
 * compiler's command line. See emulate.h.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vec/half.h"
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

/* ---- what kernels/cuda/device.cu says in instructions ------------------------------- */

static inline void *cuda_shared()
{
	return emulate_shared();
}

static inline void cuda_copy16(void *to, const void *from)
{
	emulate_copy(to, from, 16);
}

static inline void cuda_copy8(void *to, const void *from)
{
	emulate_copy(to, from, 8);
}

static inline void cuda_copy4(void *to, const void *from)
{
	emulate_copy(to, from, 4);
}

static inline void cuda_copy_commit()
{
	emulate_copy_commit();
}

template <int LEFT> static inline void cuda_copy_wait()
{
	emulate_copy_wait(LEFT);
}

static inline float cuda_from_f16(uint32_t x)
{
	return kv_from_f16((uint16_t)x);
}

static inline float cuda_float(uint32_t bits)
{
	return kv_float(bits);
}

static inline uint32_t cuda_bits(float x)
{
	return kv_bits(x);
}

static inline float cuda_exp2(float x)
{
	float y = exp2f(x);

	return y < 0x1p-126f ? 0 : y;
}

static inline int cuda_dot4(uint32_t a, uint32_t b, int c)
{
	for (unsigned i = 0; i < 4; i++)
		c += (int)(a >> (8 * i) & 255) * (int8_t)(b >> (8 * i));
	return c;
}
