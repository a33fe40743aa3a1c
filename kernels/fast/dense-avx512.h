/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as two signed bytes, for attention over codes with VNNI: what k_dot
 * multiplies codes of K with (coefficients) and v_axpy those of V (weights).
 *
 * x = step * (256 high + low), with the step such that the largest of those
 * rounded together is 32639, all that two signed bytes hold. So each is off by
 * at most largest / 65278. Codes are taken from their middle: what rounding
 * loses times the middle goes into the bias, exactly, and an element of range R
 * adds at most (R / 2) largest / 65278 to the error. That is below 2^-17 of the
 * largest coefficient times range: of codes in 255 steps a 250th of what the
 * code itself may cost.
 *
 * Sums are exact: 256 codes times 32639 are below 2^31.
 */
#pragma once

#include "kernels/codec.h"

#define DENSE_HEADS 4u
#define DENSE_TWO 32639.0f /* 127 * 256 + 127 */
#define DENSE_ONE 127.0f

/* A sum is a vector of ints to the compiler too: as __m512i it copies each one twice a step. */
typedef int dense_ints __attribute__((vector_size(64)));

KV_FN dense_ints dense_add(dense_ints sum, __m512i codes, __m512i by)
{
	return (dense_ints)_mm512_dpbusd_epi32((__m512i)sum, codes, by);
}

/* Magnitudes as integers, which order as they do, with NaN above all. */
KV_FN __m512i dense_larger(__m512i top, vf x)
{
	__m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));

	return _mm512_max_epu32(top, bits);
}

/* Keeps a vector that is used often in a register: the compiler would rather load it again. */
KV_FN __m512i dense_held(__m512i x)
{
	__asm__("" : "+v"(x));
	return x;
}

struct dense_step {
	float step, per; /* its reciprocal; both 0 if all numbers are */
};

/* False where numbers cannot be rounded together: one is not finite, or the reciprocal of the
 * step would not be. */
KV_FN bool dense_step(__m512i top, float most, struct dense_step *ret)
{
	uint32_t bits = _mm512_reduce_max_epu32(top);
	float largest = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)bits)));
	bool rounds = bits < 0x7f800000 && largest >= 0x1p-100f;

	ret->step = rounds ? largest / most : 0;
	ret->per = rounds ? most / largest : 0;
	return rounds || bits == 0;
}

/* Four vectors of numbers that fit a signed byte, as 64 of them. */
KV_FN __m512i dense_bytes(const __m512i x[4])
{
	const __m512i order =
		_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	__m512i low = _mm512_packs_epi32(x[0], x[1]), high = _mm512_packs_epi32(x[2], x[3]);

	return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
}

/* 64 numbers. What is lost of them, in all, is added to *lost; with one part it is ret[1]. */
KV_FN void dense_round(const vf x[4], struct dense_step s, unsigned parts, vf *lost, __m512i ret[2])
{
	__m512i high[4], low[4];

	KV_EACH (i, 4) {
		low[i] = _mm512_cvtps_epi32(_mm512_mul_ps(x[i], vf_set(s.per)));
		*lost = _mm512_add_ps(*lost, _mm512_fnmadd_ps(_mm512_cvtepi32_ps(low[i]),
							      vf_set(s.step), x[i]));
		high[i] = _mm512_srai_epi32(_mm512_add_epi32(low[i], _mm512_set1_epi32(128)), 8);
		if (parts > 1)
			low[i] = _mm512_sub_epi32(low[i], _mm512_slli_epi32(high[i], 8));
	}
	ret[0] = dense_bytes(high);
	ret[1] = dense_bytes(low);
}

/* Of each 128-bit lane the four vectors' parts side by side: ret[L] is lane L. */
KV_FN void dense_lanes(const vf x[4], vf ret[4])
{
	vf t[4];

	t[0] = _mm512_shuffle_f32x4(x[0], x[1], 0x44);
	t[1] = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
	t[2] = _mm512_shuffle_f32x4(x[2], x[3], 0x44);
	t[3] = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
	ret[0] = _mm512_shuffle_f32x4(t[0], t[2], 0x88);
	ret[1] = _mm512_shuffle_f32x4(t[0], t[2], 0xdd);
	ret[2] = _mm512_shuffle_f32x4(t[1], t[3], 0x88);
	ret[3] = _mm512_shuffle_f32x4(t[1], t[3], 0xdd);
}
