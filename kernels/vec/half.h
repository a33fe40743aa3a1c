/* SPDX-License-Identifier: Apache-2.0 */
/*
 * binary16 and bfloat16, one number at a time, in integers: exact, round to
 * nearest even, and blind to the thread's denormal mode.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#ifndef KV_NUMBER /* other compilers' words for it */
#define KV_NUMBER static inline
#endif

KV_NUMBER uint32_t kv_bits(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

KV_NUMBER float kv_float(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

KV_NUMBER float kv_from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, em = h & 0x7fff;
	/* Below the smallest normal number the value is the mantissa in units of 2^-24. */
	uint32_t tiny = kv_bits((float)(int32_t)em * 0x1p-24f);
	uint32_t normal = (em << 13) + (112u << 23);

	normal += em >= 0x7c00 ? 112u << 23 : 0; /* inf and NaN keep an exponent of all ones */
	return kv_float(sign | (em < 0x400 ? tiny : normal));
}

KV_NUMBER uint16_t kv_to_f16(float x)
{
	uint32_t u = kv_bits(x), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
	uint32_t half;

	if (a > 0x7f800000)
		half = 0x7e00;
	else if (a >= 0x477ff000) /* rounds to 2^16 or more */
		half = 0x7c00;
	else if (a < 0x38800000) /* adding 1/2 leaves units of 2^-24, rounded by the FPU */
		half = kv_bits(kv_float(a) + 0.5f) - kv_bits(0.5f);
	else
		half = (a - (112u << 23) + 0xfff + ((a >> 13) & 1)) >> 13;
	return (uint16_t)(sign | half);
}

/* The nearest number that binary16 has room for; NaN is 0. */
KV_NUMBER float kv_finite_f16(float x)
{
	return x > 65504 ? 65504 : x < -65504 ? -65504 : x == x ? x : 0;
}

KV_NUMBER float kv_from_bf16(uint16_t h)
{
	return kv_float((uint32_t)h << 16);
}

KV_NUMBER uint16_t kv_to_bf16(float x)
{
	uint32_t u = kv_bits(x);

	if ((u & 0x7fffffff) > 0x7f800000)
		return (uint16_t)((u >> 16) | 0x40); /* stays a NaN when its low bits go */
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
