/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as two signed bytes, for attention over codes with VNNI: what k_dot
 * multiplies codes of K with (coefficients) and v_axpy those of V (weights).
 *
 * x = step * (256 high + low), with the step such that the largest of those
 * rounded together is 32639, all that two signed bytes hold. So each is off by
 * at most largest / 65278. Codes are taken from their middle: a bias has each
 * number times the min at the middle of its codes, less what x times the middle
 * is, so that what rounding loses times the middle is in it, and an element of
 * range R adds at most (R / 2) largest / 65278 to the error. That is below 2^-17
 * of the largest coefficient times range: of codes in 255 steps a 250th of what
 * the code itself may cost.
 *
 * Sums are exact: 256 codes times 32639 are below 2^31.
 *
 * Up to four heads are rounded side by side: what there is one of for a head
 * (its largest number, its step) lies in lane h of a vector, four times.
 */
#pragma once

#include "kernels/codec.h"

#define DENSE_HEADS 4u
#define DENSE_TWO 32639.0f /* 127 * 256 + 127 */
#define DENSE_ONE 127.0f

typedef int dense_ints __attribute__((vector_size(64)));

/* In place: the compiler would copy each sum once or twice a step, and run out of registers. */
KV_FN dense_ints dense_add(dense_ints sum, __m512i codes, __m512i by)
{
	__asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(by));
	return sum;
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

/* Lane h of x in all lanes. */
KV_FN vf dense_of_head(vf x, unsigned h)
{
	return _mm512_permutexvar_ps(_mm512_set1_epi32((int)(4 * h)), x);
}

struct dense_steps {
	vf step, per; /* its reciprocal; both 0 if all numbers are */
};

/* Each vector's largest, in its lane. */
KV_FN __m512i dense_largest(const __m512i top[DENSE_HEADS])
{
	__m512i a = _mm512_max_epu32(_mm512_shuffle_i32x4(top[0], top[1], 0x44),
				     _mm512_shuffle_i32x4(top[0], top[1], 0xee));
	__m512i b = _mm512_max_epu32(_mm512_shuffle_i32x4(top[2], top[3], 0x44),
				     _mm512_shuffle_i32x4(top[2], top[3], 0xee));

	a = _mm512_max_epu32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
	a = _mm512_max_epu32(a, _mm512_shuffle_epi32(a, 0x4e));
	return _mm512_max_epu32(a, _mm512_shuffle_epi32(a, 0xb1));
}

/* Which heads' numbers cannot be rounded together, four bits a head: one is not finite, or the
 * reciprocal of the step would not be. */
KV_FN __mmask16 dense_steps(const __m512i top[DENSE_HEADS], float most, struct dense_steps *ret)
{
	__m512i bits = dense_largest(top);
	vf largest = _mm512_castsi512_ps(bits);
	__mmask16 finite = _mm512_cmplt_epu32_mask(bits, _mm512_set1_epi32(0x7f800000));
	__mmask16 rounds = _mm512_mask_cmp_ps_mask(finite, largest, vf_set(0x1p-100f), _CMP_GE_OQ);

	ret->step = _mm512_maskz_mul_ps(rounds, largest, vf_set(1 / most));
	ret->per = _mm512_maskz_div_ps(rounds, vf_set(most), largest);
	return (__mmask16) ~(rounds | _mm512_testn_epi32_mask(bits, bits));
}

/* Pairs as they are stored, apart. */
KV_FN void dense_apart(__m512i pairs, vf *ret_scale, vf *ret_min)
{
	const __m512i order =
		_mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28,
				 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
	__m512i x = _mm512_permutexvar_epi16(order, pairs);

	*ret_scale = _mm512_cvtph_ps(_mm512_castsi512_si256(x));
	*ret_min = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1));
}

/* 32 numbers below 2^15 when multiplied, in 16 bits each. Where 1.5 * 2^23 is added a number is
 * rounded, halves to even, and the lower bits of the sum are it. */
KV_FN __m512i dense_words(vf a, vf b, vf per)
{
	const __m512i even =
		_mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30,
				 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
	vf x = vf_fma(a, per, vf_set(0x1.8p+23f)), y = vf_fma(b, per, vf_set(0x1.8p+23f));

	return _mm512_permutex2var_epi16(_mm512_castps_si512(x), even, _mm512_castps_si512(y));
}

/* Where the bytes of numbers 4 i to 4 i + 3 lie. */
KV_FN uint32_t dense_at(uint32_t i)
{
	return 16 * (i % 8 / 2) + 8 * (i / 8) + 4 * (i % 2);
}

/* The same with the fours in their order. */
KV_FN __m512i dense_in_order_of(__m512i fours)
{
	const __m512i order =
		_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);

	return _mm512_permutexvar_epi32(order, fours);
}

/* 64 numbers of one head, by fours as dense_at says. Their sum, as they are rounded, is added to
 * *sum, over four of them in an element; with one part it is ret[1]. */
KV_FN void dense_round(const vf x[4], vf per, unsigned parts, __m512i *sum, __m512i ret[2])
{
	const __m512i low = _mm512_set1_epi16(255), half = _mm512_set1_epi16(128);
	__m512i word[2], high[2];

	KV_EACH (i, 2) {
		word[i] = dense_words(x[2 * i], x[2 * i + 1], per);
		*sum = _mm512_dpwssd_epi32(*sum, word[i], _mm512_set1_epi16(1));
		high[i] = _mm512_srai_epi16(_mm512_add_epi16(word[i], half), 8);
	}
	if (parts == 1) {
		ret[0] = ret[1] = _mm512_packs_epi16(word[0], word[1]);
		return;
	}
	ret[0] = _mm512_packs_epi16(high[0], high[1]);
	ret[1] =
		_mm512_packus_epi16(_mm512_and_si512(word[0], low), _mm512_and_si512(word[1], low));
}

/* What the bias lacks when codes are not taken from their middle. */
KV_FN vf dense_from_middle(vf bias, __m512i sum, vf step, float middle)
{
	return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(step, vf_set(middle)), bias);
}

/* Of each 128-bit lane the four vectors' parts side by side: ret[L] is lane L. */
KV_FN void dense_lanes(const __m512i x[4], __m512i ret[4])
{
	__m512i t[4];

	t[0] = _mm512_shuffle_i32x4(x[0], x[1], 0x44);
	t[1] = _mm512_shuffle_i32x4(x[0], x[1], 0xee);
	t[2] = _mm512_shuffle_i32x4(x[2], x[3], 0x44);
	t[3] = _mm512_shuffle_i32x4(x[2], x[3], 0xee);
	ret[0] = _mm512_shuffle_i32x4(t[0], t[2], 0x88);
	ret[1] = _mm512_shuffle_i32x4(t[0], t[2], 0xdd);
	ret[2] = _mm512_shuffle_i32x4(t[1], t[3], 0x88);
	ret[3] = _mm512_shuffle_i32x4(t[1], t[3], 0xdd);
}

/* Of bytes 16 L + 8 half + 4 q + e four rows side by side in lane L, element e of ret[q]. */
KV_FN void dense_weave_half(const uint8_t *row, size_t stride, bool half, __m512i ret[2])
{
	__m512i x[4], y[2];

	KV_EACH (i, 4)
		x[i] = dense_held(_mm512_loadu_si512(row + i * stride));
	KV_EACH (i, 2)
		y[i] = half ? _mm512_unpackhi_epi8(x[2 * i], x[2 * i + 1])
			    : _mm512_unpacklo_epi8(x[2 * i], x[2 * i + 1]);
	ret[0] = _mm512_unpacklo_epi16(y[0], y[1]);
	ret[1] = _mm512_unpackhi_epi16(y[0], y[1]);
}

KV_FN __m512i dense_four(const int8_t *weight)
{
	int32_t four;

	memcpy(&four, weight, sizeof(four));
	return _mm512_set1_epi32(four);
}
