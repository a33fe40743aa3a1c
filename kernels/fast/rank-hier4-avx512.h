/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scan of hier4 whose scores are used up in registers.
 *
 * What a step wants of most rows is their part of each head's sum of
 * exponentials, and to hear that they are not among the best. For that a row's
 * place among the 64 of its group does not matter, so the sums of the product
 * are weighed in the order in which they come out, and no score is written. The
 * integers stay in the first cache until all heads have weighed a tile; of
 * the few groups that may have a row to choose they are brought into order,
 * the same bits as k_score_dims makes of them.
 *
 * 2^t is made of the bits of an integer: t in steps of 2^-23, whose upper part is
 * the exponent and whose lower part, as a number in [1, 2), goes through a
 * minimax cubic (7.5e-5 relative). That leaves the pipes that multiply to the
 * product: four of its instructions for 16 rows of a head, where rounding,
 * scaling and a quartic take nine.
 */
#pragma once

#include "kernels/fast/scan-hier4-avx512.h"

#define RANK_FOLDS (KV_RANK_HEADS / FAST_HEADS + FAST_HEADS - 1)
#define RANK_ONE 0x1p23f              /* t = 1 */
#define RANK_LEAST (-126 * (1 << 23)) /* from there down: 1e-38 */
#define RANK_MOST (126 * RANK_ONE)    /* from there up: a sum that says it is far too large */

struct rank_head { /* t = sum * scale + bias, of each tile that was folded */
	float scale[FAST_TILES], bias[FAST_TILES];
};

struct rank_scan {
	struct fast_scan scan;
	struct kv_rank *rank;
	uint32_t heads;
	__m512 sum[KV_RANK_HEADS];
	struct rank_head head[KV_RANK_HEADS];
	struct fast_fold fold[RANK_FOLDS];
	__m512i sums[KV_RANK_HEADS][2][4]; /* of the tile at hand */
	bool near; /* no t of the tiles that were folded is beyond RANK_LEAST or RANK_MOST */
};

/* Heads go by fours, and what is left one by one. */
KV_FN uint32_t rank_fold_of(const struct rank_scan *s, uint32_t head)
{
	uint32_t whole = s->heads / FAST_HEADS;

	return MIN(head / FAST_HEADS, whole) + (head >= whole * FAST_HEADS ? head % FAST_HEADS : 0);
}

KV_FN unsigned rank_place_of(const struct rank_scan *s, uint32_t head)
{
	return head < s->heads / FAST_HEADS * FAST_HEADS ? head % FAST_HEADS : 0;
}

/* 2^t; t as described, `near`: between the limits. */
KV_FN __m512 rank_power(__m512 t, bool near)
{
	const __m512i mantissa = _mm512_set1_epi32(0x7fffff), one = _mm512_set1_epi32(0x3f800000);
	__m512 m, y = _mm512_set1_ps(0.0780245227f);
	__m512i i;

	if (near)
		i = _mm512_cvtps_epi32(t);
	else
		i = _mm512_max_epi32(_mm512_cvtps_epi32(
					     _mm512_min_ps(t, _mm512_set1_ps(RANK_MOST))),
				     _mm512_set1_epi32(RANK_LEAST));
	/* (i & mantissa) | one */
	m = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(i, mantissa, one, 0xea));
	y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(-0.0080064126f));
	y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(0.477772798f));
	y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(0.452134311f));
	return _mm512_castsi512_ps(
		_mm512_add_epi32(_mm512_castps_si512(y), _mm512_andnot_si512(mantissa, i)));
}

/* 64 rows of a head, in no order: their exponentials, added to c. */
KV_FN void rank_weigh(const __m512i sums[4], float scale, float bias, bool near, __m512 *sum,
		      __m512 c[4])
{
	__m512 m = _mm512_set1_ps(scale), m16 = _mm512_set1_ps(scale / 16);
	__m512 b = _mm512_set1_ps(bias);

	KV_EACH (i, 2) {
		__m512i odd = _mm512_sub_epi32(sums[2 + i], sums[i]); /* 16 times as much */
		__m512 x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), m, b);
		__m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(odd), m16, b);

		x = rank_power(x, near);
		y = rank_power(y, near);
		*sum = _mm512_add_ps(*sum, _mm512_add_ps(x, y));
		c[2 * i] = _mm512_add_ps(c[2 * i], x);
		c[2 * i + 1] = _mm512_add_ps(c[2 * i + 1], y);
	}
}

/* `heads` of them from `head` on, of one half of a tile. */
KV_FN void rank_heads(struct rank_scan *s, struct fast_ahead *ahead, uint32_t tile, uint32_t lane,
		      uint32_t head, unsigned heads, bool high, bool near, __m512 c[4])
{
	struct fast_ahead none = { .channel = s->scan.r };
	const struct fast_fold *f = &s->fold[rank_fold_of(s, head)];
	__m512i sums[FAST_HEADS][4];

	fast_half(&s->scan, f, head ? &none : ahead, tile, lane, heads, high, sums);
	KV_EACH (h, heads)
		KV_EACH (i, 4)
			s->sums[head + h][high][i] = sums[h][i];
	__asm__ volatile("" ::: "memory"); /* there they are, and not a second time on the stack */
	KV_EACH (h, heads) {
		const struct rank_head *x = &s->head[head + h];

		rank_weigh(s->sums[head + h][high], x->scale[lane], x->bias[lane], near,
			   &s->sum[head + h], c);
	}
}

/* What ranks the rows of a tile, the largest of each lane: of rows 32 L .. 32 L + 31, of which
 * either half has 16. */
KV_FN __m512 rank_rows(struct rank_scan *s, uint32_t tile, uint32_t lane, bool near)
{
	struct fast_ahead ahead = fast_ahead_of(&s->scan, tile);
	__m512 top = _mm512_setzero_ps();

	KV_EACH (half, 2) {
		__m512 c[4];
		uint32_t h = 0;

		KV_EACH (i, 4)
			c[i] = _mm512_setzero_ps();
		for (; h + 4 <= s->heads; h += 4)
			rank_heads(s, &ahead, tile, lane, h, 4, half, near, c);
		for (; h < s->heads; h++)
			rank_heads(s, &ahead, tile, lane, h, 1, half, near, c);
		KV_EACH (i, 4)
			top = _mm512_max_ps(top, c[i]);
	}
	return top;
}

/* Puts the scores of a group of the tile aside. */
static void rank_take(struct rank_scan *s, uint32_t group, uint32_t lane)
{
	struct kv_rank *to = s->rank;
	float *a = to->aside + (size_t)to->n * s->heads * KV_GROUP_ROWS;
	unsigned pair = group % 2 * 2;

	to->group[to->n++] = (uint16_t)group;
	for (uint32_t h = 0; h < s->heads; h++, a += KV_GROUP_ROWS) {
		const struct fast_fold *f = &s->fold[rank_fold_of(s, h)];
		unsigned at = rank_place_of(s, h);
		__m512 scale = _mm512_set1_ps(f->scale[at][lane]);
		__m512 bias = _mm512_set1_ps(f->bias[at][lane]);

		KV_EACH (half, 2) {
			__m512 x[4];

			fast_order(s->sums[h][half], x);
			KV_EACH (i, 2)
				_mm512_storeu_ps(a + 32 * i + 16 * half,
						 _mm512_fmadd_ps(x[pair + i], scale, bias));
		}
	}
}

KV_FN void rank_tile(struct rank_scan *s, uint32_t tile, uint32_t lane)
{
	struct kv_rank *to = s->rank;
	uint32_t group = (tile * TILE - s->scan.first) / KV_GROUP_ROWS;
	__m512 x = s->near ? rank_rows(s, tile, lane, true) : rank_rows(s, tile, lane, false);

	/* Over the lanes of a group, then within a lane. */
	x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
	x = _mm512_max_ps(x, _mm512_permute_ps(x, 0x4e));
	x = _mm512_max_ps(x, _mm512_permute_ps(x, 0xb1));
	to->max[group] = _mm512_cvtss_f32(x);
	to->max[group + 1] = _mm_cvtss_f32(_mm512_extractf32x4_ps(x, 2));
	for (uint32_t g = group; g < group + 2; g++)
		if (unlikely(to->max[g] >= to->likely) && to->n < to->room)
			rank_take(s, g, lane);
}

/* The least and the largest t that any nibbles can have, of eight tiles. */
KV_FN bool rank_is_near(const struct rank_scan *s, uint32_t head, __m256 scale, __m256 bias)
{
	const struct fast_fold *f = &s->fold[rank_fold_of(s, head)];
	const __m256 middle = _mm256_mul_ps(scale, _mm256_set1_ps(FAST_MIDDLE));
	const __m256i one = _mm256_set1_epi8(1);
	__m256i sum = _mm256_setzero_si256(), size = sum;
	__m256 centre, reach;

	for (uint32_t j = 0; j < s->scan.r; j += 4) {
		__m256i x =
			_mm256_loadu_si256((const __m256i *)f->coef[j / 4][rank_place_of(s, head)]);

		sum = _mm256_dpbusd_epi32(sum, one, x);
		size = _mm256_dpbusd_epi32(size, _mm256_abs_epi8(x), one);
	}
	centre = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), middle, bias);
	reach = _mm256_fmadd_ps(_mm256_cvtepi32_ps(size), middle, fast_abs(centre));
	return _mm256_movemask_ps(_mm256_cmp_ps(reach, _mm256_set1_ps(RANK_MOST), _CMP_LT_OQ)) ==
	       0xff;
}

/* Of eight tiles. */
KV_FN void rank_fold(struct rank_scan *s, uint32_t tile)
{
	const __m256 unit = _mm256_set1_ps(0x1.715476p+0f * RANK_ONE);
	uint32_t h = 0;

	for (; h + 4 <= s->heads; h += 4)
		fast_fold(&s->scan, tile, h, 4, &s->fold[rank_fold_of(s, h)]);
	for (; h < s->heads; h++)
		fast_fold(&s->scan, tile, h, 1, &s->fold[rank_fold_of(s, h)]);
	s->near = true;
	for (h = 0; h < s->heads; h++) {
		const struct fast_fold *f = &s->fold[rank_fold_of(s, h)];
		__m256 scale = _mm256_loadu_ps(f->scale[rank_place_of(s, h)]);
		__m256 bias = _mm256_loadu_ps(f->bias[rank_place_of(s, h)]);

		bias = _mm256_sub_ps(bias, _mm256_set1_ps(s->rank->ref[h]));
		scale = _mm256_mul_ps(scale, unit);
		bias = _mm256_mul_ps(bias, unit);
		_mm256_storeu_ps(s->head[h].scale, scale);
		_mm256_storeu_ps(s->head[h].bias, bias);
		s->near &= rank_is_near(s, h, scale, bias);
	}
}

static void rank_score(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
		       size_t coef_stride, const uint16_t *channel, uint32_t r, uint32_t heads,
		       struct kv_rank *rank)
{
	uint32_t first = row / TILE, end = (row + n) / TILE;
	struct rank_scan s; /* mostly room for more heads: not cleared */

	fast_begin(&s.scan, b, row, n, coef, coef_stride, channel, r, NULL, 0);
	s.rank = rank;
	s.heads = heads;
	for (uint32_t h = 0; h < heads; h++)
		s.sum[h] = _mm512_setzero_ps();
	for (uint32_t group = first / FAST_TILES * FAST_TILES; group < end; group += FAST_TILES) {
		rank_fold(&s, group);
		for (uint32_t tile = MAX(group, first); tile < MIN(group + FAST_TILES, end); tile++)
			rank_tile(&s, tile, tile - group);
	}
	for (uint32_t h = 0; h < heads; h++)
		rank->sum[h] = vf_sum(s.sum[h]);
}

#define FMT_SCORE_RANK rank_score
