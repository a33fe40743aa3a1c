/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_score_dims over hier4 with VNNI: the loop that SparQ spends its time in.
 *
 * A tile's coefficients (coef * s4) of a head are rounded to int8 with one scale
 * for all channels, so a step is an integer product of 4 channels with 16 rows.
 * The rounding is largest / 254 a channel; nibbles are taken from their middle
 * (7.5), so a channel adds at most largest * 7.5 / 254 to the error of its
 * score, less than a sixteenth of what the nibble itself may cost.
 *
 * Four lines (one channel's 128 nibbles each) become, by two rounds of byte
 * interleaving, vectors with the four channels side by side. The packed bytes
 * are multiplied as they are: raw = even + 16 odd, so that with the product of
 * the low nibbles alone odd = (raw - even) / 16, exactly, at one AND a vector.
 * One pass takes the low halves of all lines, one the high halves: 64 rows of
 * four heads each, 16 accumulators.
 */
#pragma once

#include "kernels/codec.h"

#define FAST_TILES 8u /* folded at once: what a vector holds of one channel's pairs */
#define FAST_HEADS 4u
#define FAST_MIDDLE 7.5f

/* A sum is a vector of ints to the compiler too: as __m512i it copies each one twice a step. */
typedef int fast_ints __attribute__((vector_size(64)));

KV_FN fast_ints fast_add(fast_ints sum, __m512i bytes, __m512i coef)
{
	return (fast_ints)_mm512_dpbusd_epi32((__m512i)sum, bytes, coef);
}

struct fast_fold { /* of up to FAST_TILES tiles */
	float bias[FAST_HEADS][FAST_TILES], scale[FAST_HEADS][FAST_TILES];
	float s4[KV_MAX_DIM][FAST_TILES];
	int32_t coef[KV_MAX_DIM / 4][FAST_HEADS][FAST_TILES]; /* four int8: four channels */
};

struct fast_scan {
	const struct kv_block *b;
	const float *coef;
	size_t coef_stride;
	const uint16_t *channel;
	uint32_t r;
	float *a;
	size_t a_stride;
	uint32_t first, end; /* rows; a[0] is of `first` */
	ptrdiff_t ahead;     /* from a line of this block to that of the next; 0: none */
	/* Of each channel; a last one again up to a multiple of 4. */
	const uint8_t *run[KV_MAX_DIM];
};

/* Scale and min of one channel in tiles [tile, tile + 8), zeros beyond the block. */
KV_FN void fast_pairs(const struct kv_block *b, uint32_t tile, uint32_t channel, __m256 *ret_scale,
		      __m256 *ret_min)
{
	uint32_t left = b->tiles - tile;
	__mmask8 mask = (__mmask8)(left >= 8 ? 0xff : (1u << left) - 1);
	__m256i x = _mm256_maskz_loadu_epi32(mask, k_pair(b, tile, channel));

	*ret_scale = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(x));
	*ret_min = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32(x, 16)));
}

KV_FN __m256 fast_abs(__m256 x)
{
	return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* The largest coefficient and the bias, by tile. */
KV_FN void fast_measure(const struct fast_scan *s, uint32_t tile, uint32_t head, unsigned heads,
			struct fast_fold *f)
{
	__m256 bias[FAST_HEADS], top[FAST_HEADS];

	KV_EACH (h, heads)
		bias[h] = top[h] = _mm256_setzero_ps();
	for (uint32_t j = 0; j < s->r; j++) {
		__m256 scale, min;

		fast_pairs(s->b, tile, s->channel[j], &scale, &min);
		_mm256_storeu_ps(f->s4[j], scale);
		KV_EACH (h, heads) {
			__m256 c = _mm256_set1_ps(s->coef[(head + h) * s->coef_stride + j]);

			top[h] = _mm256_max_ps(fast_abs(_mm256_mul_ps(c, scale)), top[h]);
			bias[h] = _mm256_fmadd_ps(c, min, bias[h]);
		}
	}
	KV_EACH (h, heads) {
		_mm256_storeu_ps(f->bias[h], bias[h]);
		_mm256_storeu_ps(f->scale[h], _mm256_mul_ps(top[h], _mm256_set1_ps(1.0f / 127)));
	}
}

/* Rounds one head's coefficients; what that loses at a nibble's middle goes into the bias. */
KV_FN void fast_round(const struct fast_scan *s, uint32_t head, unsigned h, struct fast_fold *f)
{
	const float *coef = s->coef + (head + h) * s->coef_stride;
	__m256 step = _mm256_loadu_ps(f->scale[h]), lost = _mm256_setzero_ps();
	__mmask8 some = _mm256_cmp_ps_mask(step, lost, _CMP_GT_OQ); /* not all coefficients 0 */
	__m256 per = _mm256_maskz_div_ps(some, _mm256_set1_ps(1), step);

	for (uint32_t j = 0; j < s->r; j += 4) {
		__m256i packed = _mm256_setzero_si256();

		for (uint32_t i = j; i < MIN(j + 4, s->r); i++) {
			__m256 w =
				_mm256_mul_ps(_mm256_set1_ps(coef[i]), _mm256_loadu_ps(f->s4[i]));
			__m256i x = _mm256_cvtps_epi32(_mm256_mul_ps(w, per));
			__m256i byte = _mm256_and_si256(x, _mm256_set1_epi32(255));

			packed = _mm256_or_si256(packed,
						 _mm256_slli_epi32(byte, (int)(8 * (i - j))));
			lost = _mm256_add_ps(lost,
					     _mm256_fnmadd_ps(_mm256_cvtepi32_ps(x), step, w));
		}
		_mm256_storeu_si256((__m256i *)f->coef[j / 4][h], packed);
	}
	_mm256_storeu_ps(f->bias[h], _mm256_fmadd_ps(lost, _mm256_set1_ps(FAST_MIDDLE),
						     _mm256_loadu_ps(f->bias[h])));
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

KV_FN void fast_heads(const struct fast_scan *s, uint32_t head, unsigned heads)
{
	struct fast_fold f;
	uint32_t first = s->first / TILE, end = DIV_UP(s->end, TILE);

	for (uint32_t group = first / FAST_TILES * FAST_TILES; group < end; group += FAST_TILES) {
		fast_measure(s, group, head, heads, &f);
		KV_EACH (h, heads)
			fast_round(s, head, h, &f);
		for (uint32_t tile = MAX(group, first); tile < MIN(group + FAST_TILES, end); tile++)
			fast_tile(s, &f, tile, tile - group, head, heads);
	}
}

static void fast_score_dims(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			    size_t coef_stride, const uint16_t *channel, uint32_t r, uint32_t heads,
			    float *a, size_t a_stride)
{
	struct fast_scan s = {
		b, coef, coef_stride, channel, r, a, a_stride, row, row + n, 0, { 0 }
	};
	uint32_t h = 0;

	if (n == 0)
		return;
	if (b->next)
		s.ahead = (const char *)b->next - (const char *)b->base;
	for (uint32_t j = 0; j < ALIGN_UP(r, 4); j++)
		s.run[j] = fmt_run(b, channel[MIN(j, r - 1)]);
	for (; h + 4 <= heads; h += 4) {
		fast_heads(&s, h, 4);
		s.ahead = 0; /* has been asked for */
	}
	if (heads & 2) {
		fast_heads(&s, h, 2);
		h += 2;
	}
	if (heads & 1)
		fast_heads(&s, h, 1);
}

#define FMT_SCORE_DIMS fast_score_dims
