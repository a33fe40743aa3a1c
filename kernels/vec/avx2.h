/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (scalar.h has its meaning) in AVX2 with FMA and F16C: vectors of 8. */
#pragma once
/* clang-format off: a line a word */

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/vec/half.h"

#define VL 8
#define KV_DOT_ROWS 2
#define KV_AXPY_VECS 2
#define KV_SCAN_VECS 2
#define KV_PRODUCT_ROWS 6
#define KV_PRODUCT_VECS 2

typedef __m256 vf;

static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_rint(vf a)
{
	return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Sums add element i and i + 4, then neighbours: vf_sum4 in the same order. */
static inline __m128 vf_half_sum(vf a)
{
	return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

static inline float vf_sum(vf a)
{
	__m128 s = vf_half_sum(a);

	s = _mm_add_ps(s, _mm_movehdup_ps(s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehl_ps(s, s)));
}

static inline void vf_sum4(float *to, vf a, vf b, vf c, vf d)
{
	__m128 ab = _mm_hadd_ps(vf_half_sum(a), vf_half_sum(b));
	__m128 cd = _mm_hadd_ps(vf_half_sum(c), vf_half_sum(d));

	_mm_storeu_ps(to, _mm_hadd_ps(ab, cd));
}

static inline vf vf_halves(vf a, vf b)
{
	return _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
}

static inline vf vf_neighbours(vf a, vf b)
{
	return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}

static inline void vf_sum_tile(float *to, size_t stride, vf a[4][KV_DOT_ROWS], const float *bias)
{
	/* heads 0 and 1, and in the upper half 2 and 3 */
	vf even = vf_neighbours(vf_halves(a[0][0], a[2][0]), vf_halves(a[0][1], a[2][1]));
	vf odd = vf_neighbours(vf_halves(a[1][0], a[3][0]), vf_halves(a[1][1], a[3][1]));
	vf s = vf_neighbours(even, odd);
	__m128 low, high;

	if (bias)
		s = _mm256_add_ps(s, _mm256_setr_ps(bias[0], bias[0], bias[1], bias[1], bias[2],
						    bias[2], bias[3], bias[3]));
	low = _mm256_castps256_ps128(s);
	high = _mm256_extractf128_ps(s, 1);
	_mm_storel_pi((__m64 *)(void *)to, low);
	_mm_storeh_pi((__m64 *)(void *)(to + stride), low);
	_mm_storel_pi((__m64 *)(void *)(to + 2 * stride), high);
	_mm_storeh_pi((__m64 *)(void *)(to + 3 * stride), high);
}

static inline float vf_top(vf a)
{
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline float vf_from_f16(uint16_t h) { return _cvtsh_ss(h); }

static inline vf vf_load_f16(const uint16_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline vf vf_load_bf16(const uint16_t *p)
{
	__m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));

	return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}

static inline vf vf_from_bytes(__m128i x)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x));
}

static inline vf vf_load_u8(const uint8_t *p)
{
	return vf_from_bytes(_mm_loadl_epi64((const __m128i *)p));
}

static inline __m128i vf_nibbles(const uint8_t *p, size_t i)
{
	return _mm_loadu_si32(p + i / 2);
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

/* Nibble k of each of eight words. */
typedef struct { __m256i words; vf scale, min; } vg;

static inline vg vg_load(const uint8_t *p, float scale, float min)
{
	return (vg){ _mm256_loadu_si256((const __m256i *)p), vf_set(scale), vf_set(min) };
}

static inline vf vg_get(vg x, unsigned k)
{
	__m256i code = _mm256_srl_epi32(x.words, _mm_cvtsi32_si128((int)(4 * k)));

	code = _mm256_and_si256(code, _mm256_set1_epi32(15));
	return vf_fma(_mm256_cvtepi32_ps(code), x.scale, x.min);
}

static inline unsigned vg_channel(unsigned k, unsigned i) { return 8 * i + (k ^ 1); }

/* The 32-bit word around element `at` of each row; elements are `log` = log2 bytes. */
static inline __m256i vf_gather_word(const void *p, size_t stride, size_t at, unsigned log)
{
	const char *word = (const char *)p + (((at << log) & ~(size_t)3));
	__m256i row = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	__m256i at_row = _mm256_mullo_epi32(row, _mm256_set1_epi32((int)stride));
	__m256i x = _mm256_i32gather_epi32((const int *)(const void *)word, at_row, 1);

	return _mm256_srl_epi32(x, _mm_cvtsi32_si128((int)(((at << log) & 3) * 8)));
}

static inline vf vf_from_low_f16(__m256i x)
{
	__m256i half = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));

	half = _mm256_permute4x64_epi64(_mm256_packus_epi32(half, half), 0x08);
	return _mm256_cvtph_ps(_mm256_castsi256_si128(half));
}

static inline vf vf_gather_f32(const void *p, size_t stride, size_t at)
{
	return _mm256_castsi256_ps(vf_gather_word(p, stride, at, 2));
}
static inline vf vf_gather_f16(const void *p, size_t stride, size_t at)
{
	return vf_from_low_f16(vf_gather_word(p, stride, at, 1));
}
static inline vf vf_gather_bf16(const void *p, size_t stride, size_t at)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(vf_gather_word(p, stride, at, 1), 16));
}
static inline vf vf_gather_u8(const void *p, size_t stride, size_t at)
{
	__m256i x = vf_gather_word(p, stride, at, 0);

	return _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(255)));
}

static inline void vf_gather_pair(const void *p, size_t stride, vf *ret_a, vf *ret_b)
{
	__m256i x = stride == 4 ? _mm256_loadu_si256(p) : vf_gather_word(p, stride, 0, 2);

	*ret_a = vf_from_low_f16(x);
	*ret_b = vf_from_low_f16(_mm256_srli_epi32(x, 16));
}

static inline void vf_store_f16(uint16_t *p, vf x)
{
	_mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vf_store_bf16(uint16_t *p, vf x)
{
	__m256i u = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
	__m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));

	r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
	r = _mm256_srli_epi32(r, 16);
	r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
	_mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
}

static inline void vf_store_u8(uint8_t *p, vf x)
{
	__m256i i = _mm256_cvtps_epi32(x);
	__m128i h = _mm_packus_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));

	_mm_storel_epi64((__m128i *)p, _mm_packus_epi16(h, h));
}

static inline vf vf_scale(vf x, vf n)
{
	__m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

	return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

static inline uint32_t vf_ge(vf a, vf b)
{
	return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}

static inline vf vf_if_ge(vf a, vf b, vf x, vf y)
{
	return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GE_OQ));
}

static inline vf vf_load_f32(const float *p) { return vf_load(p); }
static inline void vf_store_f32(float *p, vf x) { vf_store(p, x); }
