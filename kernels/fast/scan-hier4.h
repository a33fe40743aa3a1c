/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_score_dims over hier4 in integers: the loop that SparQ spends its time in.
 *
 * A tile's coefficients (coef * s4) of a head are rounded to int8 with one scale
 * for all channels, so a step is an integer product of 4 channels with some rows.
 * The rounding is largest / 254 a channel; nibbles are taken from their middle
 * (7.5), so a channel adds at most largest * 7.5 / 254 to the error of its
 * score, less than a sixteenth of what the nibble itself may cost.
 *
 * Here is what comes before the product, eight tiles at once in vectors that
 * AVX2 and AVX-512 both have. The header of the ISA brings fast_tile.
 */
#pragma once

#include "kernels/codec.h"

#define FAST_TILES 8u /* folded at once: what a vector holds of one channel's pairs */
#define FAST_HEADS 4u
#define FAST_MIDDLE 7.5f

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
	const __m256i tiles = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	const __m256i apart = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
	const void *pair = k_pair(b, tile, channel);
	__m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(b->tiles - tile)), tiles);
	__m256i x = _mm256_shuffle_epi8(_mm256_maskload_epi32(pair, mask), apart);

	x = _mm256_permute4x64_epi64(x, 0xd8);
	*ret_scale = _mm256_cvtph_ps(_mm256_castsi256_si128(x));
	*ret_min = _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1));
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
	__m256 some = _mm256_cmp_ps(step, lost, _CMP_GT_OQ); /* not all coefficients 0 */
	__m256 per = _mm256_and_ps(_mm256_div_ps(_mm256_set1_ps(1), step), some);

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

/* The rows of one tile that were asked for, of `heads` <= FAST_HEADS heads; `lane`: its place in
 * the fold. */
KV_FN void fast_tile(const struct fast_scan *s, const struct fast_fold *f, uint32_t tile,
		     uint32_t lane, uint32_t head, unsigned heads);

KV_FN void fast_fold(const struct fast_scan *s, uint32_t tile, uint32_t head, unsigned heads,
		     struct fast_fold *ret)
{
	fast_measure(s, tile, head, heads, ret);
	KV_EACH (h, heads)
		fast_round(s, head, h, ret);
}

KV_FN void fast_heads(const struct fast_scan *s, uint32_t head, unsigned heads)
{
	struct fast_fold f;
	uint32_t first = s->first / TILE, end = DIV_UP(s->end, TILE);

	for (uint32_t group = first / FAST_TILES * FAST_TILES; group < end; group += FAST_TILES) {
		fast_fold(s, group, head, heads, &f);
		for (uint32_t tile = MAX(group, first); tile < MIN(group + FAST_TILES, end); tile++)
			fast_tile(s, &f, tile, tile - group, head, heads);
	}
}

KV_FN void fast_begin(struct fast_scan *s, const struct kv_block *b, uint32_t row, uint32_t n,
		      const float *coef, size_t coef_stride, const uint16_t *channel, uint32_t r,
		      float *a, size_t a_stride)
{
	s->b = b;
	s->coef = coef;
	s->coef_stride = coef_stride;
	s->channel = channel;
	s->r = r;
	s->a = a;
	s->a_stride = a_stride;
	s->first = row;
	s->end = row + n;
	s->ahead = b->next ? (const char *)b->next - (const char *)b->base : 0;
	for (uint32_t j = 0; j < ALIGN_UP(r, 4); j++)
		s->run[j] = fmt_run(b, channel[MIN(j, r - 1)]);
}

static void fast_score_dims(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			    size_t coef_stride, const uint16_t *channel, uint32_t r, uint32_t heads,
			    float *a, size_t a_stride)
{
	struct fast_scan s; /* mostly room for more channels: not cleared */
	uint32_t h = 0;

	if (n == 0)
		return;
	fast_begin(&s, b, row, n, coef, coef_stride, channel, r, a, a_stride);
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
