/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integer scan of hier4 with products of bytes into 16 bits.
 *
 * Half a line of four channels (64 rows) becomes, by two rounds of interleaving,
 * vectors with the four channels side by side. A product of bytes adds two
 * neighbours, at most 2 * 15 * 127, and eight of these fit 16 bits: so sums are
 * widened once in 32 channels, where neighbours meet to a row's sum. A step is
 * 16 rows of four heads, 8 accumulators, and asks nothing more of the loaded
 * bytes than one interleaving; the lines are in L1 for the three that follow.
 */
#pragma once

#include "kernels/fast/scan-hier4.h"

#define FAST_WIDEN 32u /* channels until the sums must be widened */
#define FAST_UNIT 16u  /* rows of a step: four vectors of 8 dwords hold 64 */

/* Vectors of ints to the compiler too: as __m256i it keeps the sums in memory. */
typedef short fast_shorts __attribute__((vector_size(32)));

/* Dwords of four channels: quarter `q` of 32 bytes of each. */
KV_FN __m256i fast_four(const uint8_t *const run[4], size_t at, unsigned q)
{
	__m256i x[4], y[2];

	KV_EACH (i, 4)
		x[i] = _mm256_loadu_si256((const __m256i *)(const void *)(run[i] + at));
	y[0] = q & 2 ? _mm256_unpackhi_epi8(x[0], x[1]) : _mm256_unpacklo_epi8(x[0], x[1]);
	y[1] = q & 2 ? _mm256_unpackhi_epi8(x[2], x[3]) : _mm256_unpacklo_epi8(x[2], x[3]);
	return q & 1 ? _mm256_unpackhi_epi16(y[0], y[1]) : _mm256_unpacklo_epi16(y[0], y[1]);
}

KV_FN fast_shorts fast_add(fast_shorts sum, __m256i bytes, __m256i coef)
{
	return sum + (fast_shorts)_mm256_maddubs_epi16(bytes, coef);
}

/* 16 rows, lanes apart: sums[h][0] of even rows, [1] of odd. */
KV_FN void fast_unit(const struct fast_scan *s, const struct fast_fold *f, size_t at, uint32_t lane,
		     unsigned heads, unsigned q, __m256i sums[FAST_HEADS][2])
{
	const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
	const int32_t *coef = &f->coef[0][0][lane];

	KV_EACH (h, heads)
		sums[h][0] = sums[h][1] = _mm256_setzero_si256();
	for (uint32_t j = 0; j < s->r;) {
		uint32_t end = MIN(j + FAST_WIDEN, s->r);
		fast_shorts even[FAST_HEADS], odd[FAST_HEADS];

		KV_EACH (h, heads)
			even[h] = odd[h] = (fast_shorts){ 0 };
		for (; j < end; j += 4, coef += FAST_HEADS * FAST_TILES) {
			__m256i u = fast_four(&s->run[j], at, q);
			__m256i x = _mm256_and_si256(u, low);
			__m256i y = _mm256_and_si256(_mm256_srli_epi16(u, 4), low);

			KV_EACH (h, heads) {
				__m256i c = _mm256_set1_epi32(coef[h * FAST_TILES]);

				even[h] = fast_add(even[h], x, c);
				odd[h] = fast_add(odd[h], y, c);
			}
		}
		KV_EACH (h, heads) {
			sums[h][0] = _mm256_add_epi32(sums[h][0],
						      _mm256_madd_epi16((__m256i)even[h], ones));
			sums[h][1] = _mm256_add_epi32(sums[h][1],
						      _mm256_madd_epi16((__m256i)odd[h], ones));
		}
	}
}

/* Of lane L rows 32 L + 8 q .. + 7, in order: ret[32 L + 8 q ...]. */
KV_FN void fast_store(const __m256i sums[2], float scale, float bias, float *ret)
{
	__m256 m = _mm256_set1_ps(scale), b = _mm256_set1_ps(bias);
	__m256i w[2];

	w[0] = _mm256_unpacklo_epi32(sums[0], sums[1]);
	w[1] = _mm256_unpackhi_epi32(sums[0], sums[1]);
	_mm256_storeu_ps(ret, _mm256_fmadd_ps(_mm256_cvtepi32_ps(
						      _mm256_permute2x128_si256(w[0], w[1], 0x20)),
					      m, b));
	_mm256_storeu_ps(ret + 32,
			 _mm256_fmadd_ps(_mm256_cvtepi32_ps(
						 _mm256_permute2x128_si256(w[0], w[1], 0x31)),
					 m, b));
}

/* Some of the next block's runs, whole, at each half of a tile: all of them in the end. */
KV_FN void fast_prefetch(const struct fast_scan *s, uint32_t half)
{
	uint32_t halves = 2 * s->b->tiles, end = (half + 1) * s->r / halves;

	for (uint32_t j = half * s->r / halves; j < end; j++) {
		const uint8_t *pair = (const uint8_t *)k_pair(s->b, 0, s->channel[j]);

		__builtin_prefetch(pair + s->ahead, 0, 2);
		for (uint32_t i = 0; i < s->b->tiles; i++)
			__builtin_prefetch(s->run[j] + s->ahead + i * RUN, 0, 2);
	}
}

KV_FN void fast_tile(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
		     uint32_t lane, uint32_t head, unsigned heads)
{
	uint32_t row = tile * TILE, from = MAX(row, s->first), to = MIN(row + TILE, s->end);
	bool inside = from == row && to == row + TILE;
	float edge[FAST_HEADS][TILE];

	for (uint32_t half = 0; half < 2; half++) {
		if (s->ahead)
			fast_prefetch(s, 2 * tile + half);
		KV_EACH (q, 4) {
			__m256i sums[FAST_HEADS][2];
			uint32_t at = half * (TILE / 2) + q * 8;

			fast_unit(s, f, (size_t)tile * RUN + half * RUN / 2, lane, heads, q, sums);
			KV_EACH (h, heads)
				fast_store(sums[h], f->scale[h][lane], f->bias[h][lane],
					   inside ? s->a + (head + h) * s->a_stride +
							    (row - s->first) + at
						  : edge[h] + at);
		}
	}
	for (unsigned h = 0; h < heads && !inside; h++)
		memcpy(s->a + (head + h) * s->a_stride + (from - s->first), edge[h] + (from - row),
		       (to - from) * sizeof(float));
}
