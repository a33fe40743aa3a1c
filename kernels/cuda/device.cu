/* SPDX-License-Identifier: Apache-2.0 */
/* The device's own words, in instructions; the emulator of the tests has the same ones. */

#define KV_NUMBER static __host__ __device__ inline
#include "kernels/vec/half.h"

/* Dynamic shared memory of the block. */
static __device__ __forceinline__ void *cuda_shared()
{
	extern __shared__ uint4 shared_memory[];

	return shared_memory;
}

/* Asynchronous copies from global to shared memory, of as many bytes as both are aligned to; past
 * the first cache, which they would only fill. */
static __device__ __forceinline__ void cuda_copy16(void *to, const void *from)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}

static __device__ __forceinline__ void cuda_copy8(void *to, const void *from)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

	asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(from) : "memory");
}

static __device__ __forceinline__ void cuda_copy4(void *to, const void *from)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

	asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
}

static __device__ __forceinline__ void cuda_copy_commit()
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most so many groups are on their way. */
template <int LEFT> static __device__ __forceinline__ void cuda_copy_wait()
{
	asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

static __device__ __forceinline__ float cuda_from_f16(uint32_t x)
{
	float y;

	asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"((uint16_t)x));
	return y;
}

static __device__ __forceinline__ float cuda_float(uint32_t bits)
{
	return __uint_as_float(bits);
}

static __device__ __forceinline__ uint32_t cuda_bits(float x)
{
	return __float_as_uint(x);
}

/* 2^x, two units in the last place off. */
static __device__ __forceinline__ float cuda_exp2(float x)
{
	float y;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* Bytes of b are signed, those of a are not. */
static __device__ __forceinline__ int cuda_dot4(uint32_t a, uint32_t b, int c)
{
	int d;

	asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
	return d;
}
