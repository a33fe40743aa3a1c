/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integer scan of hier4 with VNNI.
 *
 * Four lines (one channel's 128 nibbles each) become, by two rounds of byte
 * interleaving, vectors with the four channels side by side. The packed bytes
 * are multiplied as they are: raw = even + 16 odd, so that with the product of
 * the low nibbles alone odd = (raw - even) / 16, exactly, at one AND a vector.
 * One pass takes the low halves of all lines, one the high halves: 64 rows of
 * four heads each, 16 accumulators.
 */
#pragma once

#include "kernels/fast/scan-hier4.h"

/* A sum is a vector of ints to the compiler too: as __m512i it copies each one twice a step. */
typedef int fast_ints __attribute__((vector_size(64)));

KV_FN fast_ints fast_add(fast_ints sum, __m512i bytes, __m512i coef)
{
	return (fast_ints)_mm512_dpbusd_epi32((__m512i)sum, bytes, coef);
}

/* Half of the 128 rows of one tile: sums[h][0, 1] of low nibbles, [2, 3] of packed bytes. */
KV_FN void fast_half(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
		     uint32_t lane, unsigned heads, bool high, __m512i sums[FAST_HEADS][4])
{
	const __m512i low = _mm512_set1_epi8(15);
	const size_t at = (size_t)tile * RUN;
	const int32_t *coef = &f->coef[0][0][lane];
	fast_ints even[FAST_HEADS][2], raw[FAST_HEADS][2];

	KV_EACH (h, heads)
		KV_EACH (i, 2)
			even[h][i] = raw[h][i] = (fast_ints){ 0 };
	for (uint32_t j = 0; j < s->r; j += 4, coef += FAST_HEADS * FAST_TILES) {
		__m512i x[4], y[2], u[2];

		KV_EACH (i, 4)
			x[i] = _mm512_loadu_si512(s->run[j + i] + at);
		y[0] = high ? _mm512_unpackhi_epi8(x[0], x[1]) : _mm512_unpacklo_epi8(x[0], x[1]);
		y[1] = high ? _mm512_unpackhi_epi8(x[2], x[3]) : _mm512_unpacklo_epi8(x[2], x[3]);
		u[0] = _mm512_unpacklo_epi16(y[0], y[1]);
		u[1] = _mm512_unpackhi_epi16(y[0], y[1]);
		y[0] = _mm512_and_si512(u[0], low);
		y[1] = _mm512_and_si512(u[1], low);
		KV_EACH (h, heads) {
			__m512i c = _mm512_set1_epi32(coef[h * FAST_TILES]);

			even[h][0] = fast_add(even[h][0], y[0], c);
			even[h][1] = fast_add(even[h][1], y[1], c);
			raw[h][0] = fast_add(raw[h][0], u[0], c);
			raw[h][1] = fast_add(raw[h][1], u[1], c);
		}
	}
	KV_EACH (h, heads)
		KV_EACH (i, 2) {
			sums[h][i] = (__m512i)even[h][i];
			sums[h][2 + i] = (__m512i)raw[h][i];
		}
}

/* 64 rows in order: of lane L rows 32 L + 0..15 (high: + 16). ret[32 L ...]. */
KV_FN void fast_store(const __m512i sums[4], float scale, float bias, bool high, float *ret)
{
	__m512 m = _mm512_set1_ps(scale), b = _mm512_set1_ps(bias);
	__m512i w[4], t[4], out[4];

	KV_EACH (i, 2) {
		__m512i odd = _mm512_srai_epi32(_mm512_sub_epi32(sums[2 + i], sums[i]), 4);

		w[2 * i] = _mm512_unpacklo_epi32(sums[i], odd);
		w[2 * i + 1] = _mm512_unpackhi_epi32(sums[i], odd);
	}
	/* w[q] has rows 4 q .. 4 q + 3 of each lane: a transpose of lanes. */
	t[0] = _mm512_shuffle_i32x4(w[0], w[1], 0x44);
	t[1] = _mm512_shuffle_i32x4(w[0], w[1], 0xee);
	t[2] = _mm512_shuffle_i32x4(w[2], w[3], 0x44);
	t[3] = _mm512_shuffle_i32x4(w[2], w[3], 0xee);
	out[0] = _mm512_shuffle_i32x4(t[0], t[2], 0x88);
	out[1] = _mm512_shuffle_i32x4(t[0], t[2], 0xdd);
	out[2] = _mm512_shuffle_i32x4(t[1], t[3], 0x88);
	out[3] = _mm512_shuffle_i32x4(t[1], t[3], 0xdd);
	KV_EACH (i, 4)
		_mm512_storeu_ps(ret + 32 * i + 16 * high,
				 _mm512_fmadd_ps(_mm512_cvtepi32_ps(out[i]), m, b));
}

KV_FN void fast_tile(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
		     uint32_t lane, uint32_t head, unsigned heads)
{
	uint32_t row = tile * TILE, from = MAX(row, s->first), to = MIN(row + TILE, s->end);
	bool inside = from == row && to == row + TILE;
	float edge[FAST_HEADS][TILE];

	KV_EACH (half, 2) {
		__m512i sums[FAST_HEADS][4];

		if (s->ahead)
			fast_prefetch(s, 2 * tile + half);
		fast_half(s, f, tile, lane, heads, half, sums);
		KV_EACH (h, heads)
			fast_store(sums[h], f->scale[h][lane], f->bias[h][lane], half,
				   inside ? s->a + (head + h) * s->a_stride + (row - s->first)
					  : edge[h]);
	}
	for (unsigned h = 0; h < heads && !inside; h++)
		memcpy(s->a + (head + h) * s->a_stride + (from - s->first), edge[h] + (from - row),
		       (to - from) * sizeof(float));
}
