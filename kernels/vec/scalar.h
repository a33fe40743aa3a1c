/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary in plain C: a vector of one number. It is the fallback of
 * every CPU and the first thing to read: the other ISAs say the same words.
 *
 *   vf              VL floats; sums of a vector have one stated order per ISA
 *   vf_load_X       VL elements of X, widened; rows of u4 start at an even index
 *   vf_load_u4_high the same of nibble pairs with the even element in the high half
 *   vg, vg_load     64 numbers of four bits, even element in the high half, as scale x + min
 *   vg_get          VL of them, k < 64 / VL, in an order of the ISA's: vg_channel(k, i)
 *   vf_gather_X     element `at` of VL rows that lie `stride` bytes apart
 *   vf_store_X      narrowed, nearest even; u8 takes numbers from 0 to 255
 *   vf_max, vf_min  if either is NaN: the second
 */
#pragma once
/* clang-format off: a line a word */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/vec/half.h"

#define VL 1
/* Shapes that fit the registers: rows x heads of a dot, vectors x heads of an axpy or a scan, rows
 * (a multiple of three) x vectors of a product. */
#define KV_DOT_ROWS 2
#define KV_AXPY_VECS 2
#define KV_SCAN_VECS 2
#define KV_PRODUCT_ROWS 3
#define KV_PRODUCT_VECS 4

typedef float vf;

static inline vf vf_set(float x) { return x; }
static inline vf vf_load(const float *p) { return *p; }
static inline void vf_store(float *p, vf x) { *p = x; }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_min(vf a, vf b) { return a < b ? a : b; }
static inline vf vf_max(vf a, vf b) { return a > b ? a : b; }
static inline vf vf_rint(vf a) { return rintf(a); }
static inline float vf_sum(vf a) { return a; }
static inline float vf_top(vf a) { return a; }

static inline void vf_sum4(float *to, vf a, vf b, vf c, vf d)
{
	to[0] = a;
	to[1] = b;
	to[2] = c;
	to[3] = d;
}

/* to[h * stride + i] = sum of a[h][i] + bias[h], for 4 heads; bias NULL: 0 */
static inline void vf_sum_tile(float *to, size_t stride, vf a[4][KV_DOT_ROWS], const float *bias)
{
	for (unsigned h = 0; h < 4; h++)
		for (unsigned i = 0; i < KV_DOT_ROWS; i++)
			to[h * stride + i] = a[h][i] + (bias ? bias[h] : 0);
}

/* One number, not a vector. */
static inline float vf_from_f16(uint16_t h) { return kv_from_f16(h); }

static inline vf vf_load_f16(const uint16_t *p) { return kv_from_f16(*p); }
static inline vf vf_load_bf16(const uint16_t *p) { return kv_from_bf16(*p); }
static inline vf vf_load_u8(const uint8_t *p) { return (float)*p; }

static inline vf vf_load_u4(const uint8_t *p, size_t i)
{
	return (float)((p[i / 2] >> (4 * (i & 1))) & 15);
}

static inline vf vf_load_u4_high(const uint8_t *p, size_t i)
{
	return (float)((p[i / 2] >> (4 * (~i & 1))) & 15);
}

/* 16 upper + lower nibble */
static inline vf vf_load_u44(const uint8_t *upper, const uint8_t *lower, size_t i)
{
	unsigned shift = 4 * (i & 1);

	return (float)(((upper[i / 2] >> shift) & 15) * 16 + ((lower[i / 2] >> shift) & 15));
}

typedef struct { const uint8_t *p; float scale, min; } vg;

static inline vg vg_load(const uint8_t *p, float scale, float min)
{
	return (vg){ p, scale, min };
}
static inline vf vg_get(vg x, unsigned k) { return vf_load_u4_high(x.p, k) * x.scale + x.min; }
static inline unsigned vg_channel(unsigned k, unsigned i) { return k + i; }

static inline vf vf_gather_f32(const void *p, size_t stride, size_t at)
{
	return ((const float *)p)[at];
}
static inline vf vf_gather_f16(const void *p, size_t stride, size_t at)
{
	return kv_from_f16(((const uint16_t *)p)[at]);
}
static inline vf vf_gather_bf16(const void *p, size_t stride, size_t at)
{
	return kv_from_bf16(((const uint16_t *)p)[at]);
}
static inline vf vf_gather_u8(const void *p, size_t stride, size_t at)
{
	return (float)((const uint8_t *)p)[at];
}

/* VL pairs of f16, `stride` bytes apart. */
static inline void vf_gather_pair(const void *p, size_t stride, vf *ret_a, vf *ret_b)
{
	*ret_a = kv_from_f16(((const uint16_t *)p)[0]);
	*ret_b = kv_from_f16(((const uint16_t *)p)[1]);
}

static inline void vf_store_f16(uint16_t *p, vf x) { *p = kv_to_f16(x); }
static inline void vf_store_bf16(uint16_t *p, vf x) { *p = kv_to_bf16(x); }
static inline void vf_store_u8(uint8_t *p, vf x) { *p = (uint8_t)lrintf(x); }

/* 2^n x, for x near 1 and whole n from -127 to 127; n = -127 gives 0 */
static inline vf vf_scale(vf x, vf n)
{
	int32_t e = (int32_t)n + 127;

	return x * kv_float(e > 0 ? (uint32_t)e << 23 : 0);
}

/* Bit i: a[i] >= b[i]; NaN is not. */
static inline uint32_t vf_ge(vf a, vf b) { return a >= b; }
/* a >= b ? x : y */
static inline vf vf_if_ge(vf a, vf b, vf x, vf y) { return a >= b ? x : y; }

static inline vf vf_load_f32(const float *p) { return vf_load(p); }
static inline void vf_store_f32(float *p, vf x) { vf_store(p, x); }
