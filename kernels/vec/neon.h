/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (scalar.h has its meaning) in Advanced SIMD of 64-bit ARM: vectors of 4. */
#pragma once
/* clang-format off: a line a word */

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vec/half.h"

#define VL 4
#define KV_DOT_ROWS 4
#define KV_AXPY_VECS 4
#define KV_SCAN_VECS 4
#define KV_PRODUCT_ROWS 6
#define KV_PRODUCT_VECS 4

typedef float32x4_t vf;

static inline vf vf_set(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf x) { vst1q_f32(p, x); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
/* Not vminq and vmaxq: those keep a NaN of either side. */
static inline vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vf_rint(vf a) { return vrndnq_f32(a); }

/* Sums add neighbours, then what is left: vf_sum4 in the same order. */
static inline vf vf_pairs(vf a, vf b) { return vpaddq_f32(a, b); }
static inline float vf_sum(vf a)
{
	vf s = vf_pairs(a, a);

	return vgetq_lane_f32(vf_pairs(s, s), 0);
}

static inline void vf_sum4(float *to, vf a, vf b, vf c, vf d)
{
	vst1q_f32(to, vf_pairs(vf_pairs(a, b), vf_pairs(c, d)));
}

static inline void vf_sum_tile(float *to, size_t stride, vf a[4][KV_DOT_ROWS], const float *bias)
{
	for (unsigned h = 0; h < 4; h++) {
		vf s = vf_pairs(vf_pairs(a[h][0], a[h][1]), vf_pairs(a[h][2], a[h][3]));

		vst1q_f32(to + h * stride, bias ? vaddq_f32(s, vdupq_n_f32(bias[h])) : s);
	}
}

static inline float vf_top(vf a)
{
	vf s = vf_max(a, vextq_f32(a, a, 2));

	return vgetq_lane_f32(vf_max(s, vextq_f32(s, s, 1)), 0);
}

/* One number, not a vector. */
static inline float vf_from_f16(uint16_t h) { return kv_from_f16(h); }

static inline vf vf_from_halves(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
static inline vf vf_from_words(uint32x4_t x) { return vcvtq_f32_u32(x); }

static inline vf vf_load_f32(const float *p) { return vf_load(p); }
static inline vf vf_load_f16(const uint16_t *p) { return vf_from_halves(vld1_u16(p)); }
static inline vf vf_load_bf16(const uint16_t *p)
{
	return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline vf vf_load_u8(const uint8_t *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return vf_from_words(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word)))));
}

/* Four nibbles of two bytes, one to a word. */
static inline uint32x4_t vf_nibbles_by(const uint8_t *p, size_t i, int32x4_t shift)
{
	uint16_t x;

	memcpy(&x, p + i / 2, sizeof(x));
	return vandq_u32(vshlq_u32(vdupq_n_u32(x), shift), vdupq_n_u32(15));
}

static inline uint32x4_t vf_nibbles(const uint8_t *p, size_t i)
{
	return vf_nibbles_by(p, i, (int32x4_t){ 0, -4, -8, -12 });
}

static inline vf vf_load_u4(const uint8_t *p, size_t i) { return vf_from_words(vf_nibbles(p, i)); }
static inline vf vf_load_u4_high(const uint8_t *p, size_t i)
{
	return vf_from_words(vf_nibbles_by(p, i, (int32x4_t){ -4, 0, -12, -8 }));
}
static inline vf vf_load_u44(const uint8_t *upper, const uint8_t *lower, size_t i)
{
	return vf_from_words(vsliq_n_u32(vf_nibbles(lower, i), vf_nibbles(upper, i), 4));
}

/* Nibble k % 8 of each of four words: the first four, then the others. */
typedef struct { uint32x4_t words[2]; vf scale, min; } vg;

static inline vg vg_load(const uint8_t *p, float scale, float min)
{
	const uint8x16_t low = vld1q_u8(p), high = vld1q_u8(p + 16);

	return (vg){ { vreinterpretq_u32_u8(low), vreinterpretq_u32_u8(high) },
		     vf_set(scale), vf_set(min) };
}

static inline vf vg_get(vg x, unsigned k)
{
	uint32x4_t code = vshlq_u32(x.words[k / 8], vdupq_n_s32(-4 * (int)(k % 8)));

	return vf_fma(vf_from_words(vandq_u32(code, vdupq_n_u32(15))), x.scale, x.min);
}

static inline unsigned vg_channel(unsigned k, unsigned i)
{
	return 8 * (k / 8 * 4 + i) + (k % 8 ^ 1);
}

static inline vf vf_gather_f32(const void *p, size_t stride, size_t at)
{
	float x[VL];

	for (unsigned i = 0; i < VL; i++)
		x[i] = ((const float *)(const void *)((const char *)p + i * stride))[at];
	return vf_load(x);
}

static inline uint16x4_t vf_gather_halves(const void *p, size_t stride, size_t at)
{
	uint16_t x[VL];

	for (unsigned i = 0; i < VL; i++)
		x[i] = ((const uint16_t *)(const void *)((const char *)p + i * stride))[at];
	return vld1_u16(x);
}

static inline vf vf_gather_f16(const void *p, size_t stride, size_t at)
{
	return vf_from_halves(vf_gather_halves(p, stride, at));
}
static inline vf vf_gather_bf16(const void *p, size_t stride, size_t at)
{
	return vreinterpretq_f32_u32(vshll_n_u16(vf_gather_halves(p, stride, at), 16));
}
static inline vf vf_gather_u8(const void *p, size_t stride, size_t at)
{
	uint32_t x[VL];

	for (unsigned i = 0; i < VL; i++)
		x[i] = ((const uint8_t *)p + i * stride)[at];
	return vf_from_words(vld1q_u32(x));
}

static inline void vf_gather_pair(const void *p, size_t stride, vf *ret_a, vf *ret_b)
{
	uint32_t x[VL];

	for (unsigned i = 0; i < VL; i++)
		memcpy(&x[i], (const char *)p + i * stride, sizeof(x[i]));
	*ret_a = vf_from_halves(vmovn_u32(vld1q_u32(x)));
	*ret_b = vf_from_halves(vshrn_n_u32(vld1q_u32(x), 16));
}

static inline void vf_store_f32(float *p, vf x) { vf_store(p, x); }
static inline void vf_store_f16(uint16_t *p, vf x)
{
	vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}

static inline void vf_store_bf16(uint16_t *p, vf x)
{
	uint32x4_t u = vreinterpretq_u32_f32(x);
	uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
	uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));

	/* A NaN stays one when its low bits go. */
	r = vbslq_u32(vceqq_f32(x, x), r, vorrq_u32(u, vdupq_n_u32(0x400000)));
	vst1_u16(p, vshrn_n_u32(r, 16));
}

static inline void vf_store_u8(uint8_t *p, vf x)
{
	uint16x4_t half = vqmovn_u32(vcvtnq_u32_f32(x));
	uint32_t word = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(half, half))), 0);

	memcpy(p, &word, sizeof(word));
}

static inline vf vf_scale(vf x, vf n)
{
	int32x4_t e = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));

	return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)));
}

static inline uint32_t vf_ge(vf a, vf b)
{
	const uint32x4_t bit = { 1, 2, 4, 8 };

	return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), bit));
}

static inline vf vf_if_ge(vf a, vf b, vf x, vf y) { return vbslq_f32(vcgeq_f32(a, b), x, y); }
