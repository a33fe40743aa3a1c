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
#include "kernels/stage/exp.h"

/* A sum is a vector of ints to the compiler too: as __m512i it copies each one twice a step. */
typedef int fast_ints __attribute__((vector_size(64)));

KV_FN fast_ints fast_add(fast_ints sum, __m512i bytes, __m512i coef)
{
	return (fast_ints)_mm512_dpbusd_epi32((__m512i)sum, bytes, coef);
}

/*
 * The next block's runs, one after the other, two lines at each step of this
 * block's: the core's few places for misses are never all taken at once, and
 * the product goes on.
 */
struct fast_ahead {
	uint32_t channel, tile;
};

/* Where a tile begins: its share of the lines, rounded up to whole steps. */
KV_FN struct fast_ahead fast_ahead_of(const struct fast_scan *s, uint32_t tile)
{
	uint32_t line = tile * ALIGN_UP(s->r, 4), channel = line / s->b->tiles;

	return (struct fast_ahead){ MIN(channel, s->r), channel < s->r ? line % s->b->tiles : 0 };
}

KV_FN void fast_prefetch(const struct fast_scan *s, struct fast_ahead *at)
{
	const uint8_t *line;

	if (at->channel == s->r)
		return;
	line = s->run[at->channel] + s->ahead + at->tile * RUN;
	if (at->tile == 0)
		__builtin_prefetch((const uint8_t *)k_pair(s->b, 0, s->channel[at->channel]) +
					   s->ahead,
				   0, 2);
	__builtin_prefetch(line, 0, 2);
	if (++at->tile == s->b->tiles) {
		at->tile = 0;
		at->channel++;
	}
}

/* Half of the 128 rows of one tile: sums[h][0, 1] of low nibbles, [2, 3] of packed bytes. */
KV_FN void fast_half(const struct fast_scan *s, const struct fast_fold *f, struct fast_ahead *ahead,
		     uint32_t tile, uint32_t lane, unsigned heads, bool high,
		     __m512i sums[FAST_HEADS][4])
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

		if (s->ahead) {
			fast_prefetch(s, ahead);
			fast_prefetch(s, ahead);
		}
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

/* 64 rows in order: of lane L rows 32 L + 0..15 (high: + 16). */
KV_FN void fast_order(const __m512i sums[4], __m512 ret[4])
{
	__m512i w[4], t[4];

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
	ret[0] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(t[0], t[2], 0x88));
	ret[1] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(t[0], t[2], 0xdd));
	ret[2] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(t[1], t[3], 0x88));
	ret[3] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(t[1], t[3], 0xdd));
}

KV_FN void fast_store(const __m512i sums[4], float scale, float bias, bool high, float *ret)
{
	__m512 m = _mm512_set1_ps(scale), b = _mm512_set1_ps(bias), x[4];

	fast_order(sums, x);
	KV_EACH (i, 4)
		_mm512_storeu_ps(ret + 32 * i + 16 * high, _mm512_fmadd_ps(x[i], m, b));
}

KV_FN void fast_tile(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
		     uint32_t lane, uint32_t head, unsigned heads)
{
	uint32_t row = tile * TILE, from = MAX(row, s->first), to = MIN(row + TILE, s->end);
	bool inside = from == row && to == row + TILE;
	struct fast_ahead ahead = fast_ahead_of(s, tile);
	float edge[FAST_HEADS][TILE];

	KV_EACH (half, 2) {
		__m512i sums[FAST_HEADS][4];

		fast_half(s, f, &ahead, tile, lane, heads, half, sums);
		KV_EACH (h, heads)
			fast_store(sums[h], f->scale[h][lane], f->bias[h][lane], half,
				   inside ? s->a + (head + h) * s->a_stride + (row - s->first)
					  : edge[h]);
	}
	for (unsigned h = 0; h < heads && !inside; h++)
		memcpy(s->a + (head + h) * s->a_stride + (from - s->first), edge[h] + (from - row),
		       (to - from) * sizeof(float));
}

/* ---- scores and their softmax ------------------------------------------------ */

struct fast_softmax {
	const float *ref;       /* [heads] */
	__m512 sum[FAST_HEADS]; /* of the heads at hand */
	float *c;
	bool first; /* nothing is in c yet */
};

/* Scores of 64 rows of a head, and their exponentials added to c. */
KV_FN void fast_weigh(const __m512i sums[4], float scale, float bias, float ref, bool high,
		      float *ret, __m512 *sum, __m512 c[4])
{
	const float log2e = 0x1.715476p+0f;
	__m512 m = _mm512_set1_ps(scale), b = _mm512_set1_ps(bias), x[4];
	__m512 unit = _mm512_set1_ps(log2e), zero = _mm512_set1_ps(-ref * log2e);

	fast_order(sums, x);
	KV_EACH (i, 4) {
		__m512 a = _mm512_fmadd_ps(x[i], m, b);
		__m512 e = exp2_near(_mm512_fmadd_ps(a, unit, zero));

		_mm512_storeu_ps(ret + 32 * i + 16 * high, a);
		*sum = _mm512_add_ps(*sum, e);
		c[i] = _mm512_add_ps(c[i], e);
	}
}

KV_FN void fast_tile_softmax(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
			     uint32_t lane, uint32_t head, unsigned heads, struct fast_softmax *x)
{
	struct fast_ahead ahead = fast_ahead_of(s, tile);
	uint32_t at = tile * TILE - s->first;

	KV_EACH (half, 2) {
		__m512i sums[FAST_HEADS][4];
		float *to = x->c + at + 16 * half;
		__m512 c[4];

		KV_EACH (i, 4)
			c[i] = x->first ? _mm512_setzero_ps() : _mm512_loadu_ps(to + 32 * i);
		fast_half(s, f, &ahead, tile, lane, heads, half, sums);
		KV_EACH (h, heads)
			fast_weigh(sums[h], f->scale[h][lane], f->bias[h][lane], x->ref[head + h],
				   half, s->a + (head + h) * s->a_stride + at, &x->sum[h], c);
		KV_EACH (i, 4)
			_mm512_storeu_ps(to + 32 * i, c[i]);
	}
}

KV_FN void fast_heads_softmax(const struct fast_scan *s, uint32_t head, unsigned heads,
			      struct fast_softmax *x, float *ret_sum)
{
	uint32_t first = s->first / TILE, end = s->end / TILE;
	struct fast_fold f;

	KV_EACH (h, heads)
		x->sum[h] = _mm512_setzero_ps();
	for (uint32_t group = first / FAST_TILES * FAST_TILES; group < end; group += FAST_TILES) {
		fast_fold(s, group, head, heads, &f);
		for (uint32_t tile = MAX(group, first); tile < MIN(group + FAST_TILES, end); tile++)
			fast_tile_softmax(s, &f, tile, tile - group, head, heads, x);
	}
	KV_EACH (h, heads)
		ret_sum[head + h] = vf_sum(x->sum[h]);
}

static void fast_score_softmax(const struct kv_block *b, uint32_t row, uint32_t n,
			       const float *coef, size_t coef_stride, const uint16_t *channel,
			       uint32_t r, uint32_t heads, float *a, size_t a_stride,
			       const float *ref, float *ret_sum, float *ret_c)
{
	struct fast_softmax x = { .ref = ref, .c = ret_c, .first = true };
	struct fast_scan s;
	uint32_t h = 0;

	fast_begin(&s, b, row, n, coef, coef_stride, channel, r, a, a_stride);

	for (; h + 4 <= heads; h += 4) {
		fast_heads_softmax(&s, h, 4, &x, ret_sum);
		s.ahead = 0; /* has been asked for */
		x.first = false;
	}
	for (; h < heads; h++) {
		fast_heads_softmax(&s, h, 1, &x, ret_sum);
		s.ahead = 0;
		x.first = false;
	}
}

#define FMT_SCORE_SOFTMAX fast_score_softmax
