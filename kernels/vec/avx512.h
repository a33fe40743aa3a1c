/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (scalar.h has its meaning) in AVX-512 F, BW, DQ, VL: vectors of 16. */
#pragma once
/* clang-format off: a line a word */

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/vec/half.h"

#define VL 16
#define KV_DOT_ROWS 4
#define KV_AXPY_VECS 4
#define KV_SCAN_VECS 4
#define KV_PRODUCT_ROWS 12
#define KV_PRODUCT_VECS 2

typedef __m512 vf;

static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_rint(vf a)
{
	return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Sums add element i and i + 8, i and i + 4, then neighbours: vf_sum4 in the same order. */
static inline __m128 vf_quarter_sum(vf a)
{
	__m256 s = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));

	return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

static inline float vf_sum(vf a)
{
	__m128 s = vf_quarter_sum(a);

	s = _mm_add_ps(s, _mm_movehdup_ps(s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehl_ps(s, s)));
}

static inline void vf_sum4(float *to, vf a, vf b, vf c, vf d)
{
	__m128 ab = _mm_hadd_ps(vf_quarter_sum(a), vf_quarter_sum(b));
	__m128 cd = _mm_hadd_ps(vf_quarter_sum(c), vf_quarter_sum(d));

	_mm_storeu_ps(to, _mm_hadd_ps(ab, cd));
}

static inline vf vf_quarters(vf a, vf b, vf c, vf d)
{
	const __mmask16 upper = 0xff00;
	vf ab = _mm512_add_ps(_mm512_mask_blend_ps(upper, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
	vf cd = _mm512_add_ps(_mm512_mask_blend_ps(upper, c, d), _mm512_shuffle_f32x4(c, d, 0x4e));

	return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88),
			     _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

static inline vf vf_neighbours(vf a, vf b)
{
	return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

static inline void vf_sum_tile(float *to, size_t stride, vf a[4][KV_DOT_ROWS], const float *bias)
{
	vf row[4], s;

	for (unsigned i = 0; i < 4; i++)
		row[i] = vf_quarters(a[0][i], a[1][i], a[2][i], a[3][i]);
	s = vf_neighbours(vf_neighbours(row[0], row[1]), vf_neighbours(row[2], row[3]));
	if (bias) {
		__m512i head = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
		vf four = _mm512_castps128_ps512(_mm_loadu_ps(bias));

		s = _mm512_add_ps(s, _mm512_permutexvar_ps(head, four));
	}
	_mm_storeu_ps(to, _mm512_castps512_ps128(s));
	_mm_storeu_ps(to + stride, _mm512_extractf32x4_ps(s, 1));
	_mm_storeu_ps(to + 2 * stride, _mm512_extractf32x4_ps(s, 2));
	_mm_storeu_ps(to + 3 * stride, _mm512_extractf32x4_ps(s, 3));
}

static inline float vf_top(vf a) { return _mm512_reduce_max_ps(a); }

static inline float vf_from_f16(uint16_t h) { return _cvtsh_ss(h); }

static inline vf vf_load_f16(const uint16_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf vf_load_bf16(const uint16_t *p)
{
	__m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));

	return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

static inline vf vf_from_bytes(__m128i x)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x));
}

static inline vf vf_load_u8(const uint8_t *p)
{
	return vf_from_bytes(_mm_loadu_si128((const __m128i *)p));
}

static inline __m128i vf_nibbles(const uint8_t *p, size_t i)
{
	return _mm_loadl_epi64((const __m128i *)(p + i / 2));
}

static inline vf vf_load_u4(const uint8_t *p, size_t i)
{
	__m128i low = _mm_set1_epi8(15), x = vf_nibbles(p, i);

	return vf_from_bytes(_mm_unpacklo_epi8(_mm_and_si128(x, low),
					       _mm_and_si128(_mm_srli_epi16(x, 4), low)));
}

static inline vf vf_load_u4_high(const uint8_t *p, size_t i)
{
	__m128i low = _mm_set1_epi8(15), x = vf_nibbles(p, i);

	return vf_from_bytes(_mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(x, 4), low),
					       _mm_and_si128(x, low)));
}

static inline vf vf_load_u44(const uint8_t *upper, const uint8_t *lower, size_t i)
{
	__m128i low = _mm_set1_epi8(15), u = vf_nibbles(upper, i), l = vf_nibbles(lower, i);
	__m128i even = _mm_or_si128(_mm_slli_epi16(_mm_and_si128(u, low), 4),
				    _mm_and_si128(l, low));
	__m128i odd = _mm_or_si128(_mm_andnot_si128(low, u),
				   _mm_and_si128(_mm_srli_epi16(l, 4), low));

	return vf_from_bytes(_mm_unpacklo_epi8(even, odd));
}

/* Nibble k of each of eight words, and k + 4 of the same: only the low bits of an index count. */
typedef struct { __m512i words; vf numbers; } vg;

static inline vg vg_load(const uint8_t *p, float scale, float min)
{
	const __m512i upper = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0,
						16, 16, 16, 16, 16, 16, 16, 16);
	const vf codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m512i x = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));

	return (vg){ _mm512_srlv_epi32(x, upper), vf_fma(codes, vf_set(scale), vf_set(min)) };
}

static inline vf vg_get(vg x, unsigned k)
{
	return _mm512_permutexvar_ps(_mm512_srl_epi32(x.words, _mm_cvtsi32_si128((int)(4 * k))),
				     x.numbers);
}

static inline unsigned vg_channel(unsigned k, unsigned i)
{
	return 8 * (i % 8) + ((k + i / 8 * 4) ^ 1);
}

/* The 32-bit word around element `at` of each row; elements are `log` = log2 bytes. */
static inline __m512i vf_gather_word(const void *p, size_t stride, size_t at, unsigned log)
{
	const char *word = (const char *)p + (((at << log) & ~(size_t)3));
	__m512i row = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m512i x = _mm512_i32gather_epi32(_mm512_mullo_epi32(row, _mm512_set1_epi32((int)stride)),
					   word, 1);

	return _mm512_srl_epi32(x, _mm_cvtsi32_si128((int)(((at << log) & 3) * 8)));
}

static inline vf vf_from_low_f16(__m512i x)
{
	return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
}

static inline vf vf_gather_f32(const void *p, size_t stride, size_t at)
{
	return _mm512_castsi512_ps(vf_gather_word(p, stride, at, 2));
}
static inline vf vf_gather_f16(const void *p, size_t stride, size_t at)
{
	return vf_from_low_f16(vf_gather_word(p, stride, at, 1));
}
static inline vf vf_gather_bf16(const void *p, size_t stride, size_t at)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(vf_gather_word(p, stride, at, 1), 16));
}
static inline vf vf_gather_u8(const void *p, size_t stride, size_t at)
{
	__m512i x = vf_gather_word(p, stride, at, 0);

	return _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(255)));
}

static inline void vf_gather_pair(const void *p, size_t stride, vf *ret_a, vf *ret_b)
{
	__m512i x = stride == 4 ? _mm512_loadu_si512(p) : vf_gather_word(p, stride, 0, 2);

	*ret_a = vf_from_low_f16(x);
	*ret_b = vf_from_low_f16(_mm512_srli_epi32(x, 16));
}

static inline void vf_store_f16(uint16_t *p, vf x)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vf_store_bf16(uint16_t *p, vf x)
{
	__m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
	__m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
	__m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
	__mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);

	r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

static inline void vf_store_u8(uint8_t *p, vf x)
{
	_mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

static inline vf vf_scale(vf x, vf n) { return _mm512_scalef_ps(x, n); }

static inline uint32_t vf_ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

static inline vf vf_if_ge(vf a, vf b, vf x, vf y)
{
	return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), y, x);
}

static inline vf vf_load_f32(const float *p) { return vf_load(p); }
static inline void vf_store_f32(float *p, vf x) { vf_store(p, x); }
