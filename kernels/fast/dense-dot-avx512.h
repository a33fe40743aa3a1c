/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_dot over rows of byte codes with VNNI.
 *
 * A tile's coefficients of a head (q * scale) become two signed bytes each
 * (dense-avx512.h). Of 64 channels of four rows, two rounds of interleaving make
 * vectors with the rows side by side: element e of lane L of vector k is of row
 * e and channels 4 (4 L + k) and three more. Coefficients lie alike, so a step is
 * an integer product of 16 channels of four rows; what remains is to add up the
 * four lanes. Eight rows of up to four heads are held at once.
 *
 * Loads are of 64 bytes whatever the dimension: coefficients beyond it are 0,
 * and behind the last row of a block lie its parameters.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/dot.h"

#define DENSE_DOT_ROWS 8u

struct dense_dot {
	struct kv_rows rows;
	uint32_t n;
	uint32_t columns; /* of 64 channels */
	size_t share;     /* bytes of rows that a quarter of a column stands for */
	struct ahead ahead;
	struct dense_step step[DENSE_HEADS];
	vf biases[DENSE_HEADS]; /* sums of 16 channels each */
	float bias[DENSE_HEADS];
	/* High and low bytes; of 64 channels a vector for each k. */
	__m512i coef[KV_MAX_DIM / 64][4][DENSE_HEADS][2];
};

struct dense_channels { /* parameters of a tile, zeros beyond the dimension */
	vf scale[KV_MAX_DIM / VL], min[KV_MAX_DIM / VL];
	uint32_t dim;
};

/* 16 channels' pairs in one of 8 tiles: those of two channels are a line. */
KV_FN __m512i dense_pairs_of_8(const struct kv_pair *first, uint32_t tile)
{
	const __m512i t = _mm512_set1_epi32((int)tile);
	const __m512i two = _mm512_add_epi32(_mm512_setr_epi32(0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16,
							       24, 0, 8, 16, 24),
					     t);
	__m512i x[4];

	KV_EACH (i, 4)
		x[i] = _mm512_permutex2var_epi32(_mm512_loadu_si512(first + 32 * i), two,
						 _mm512_loadu_si512(first + 32 * i + 16));
	x[0] = _mm512_mask_blend_epi32(0x00f0, x[0], x[1]);
	x[2] = _mm512_mask_blend_epi32(0xf000, x[2], x[3]);
	return _mm512_mask_blend_epi32(0xff00, x[0], x[2]);
}

KV_FN void dense_channel_params(const struct kv_block *b, uint32_t tile, struct dense_channels *ret)
{
	uint32_t i = 0;

	ret->dim = b->dim;
	for (; i * VL < b->dim; i++) {
		if (b->tiles == 8) {
			__m512i x = dense_pairs_of_8(k_pair(b, 0, i * VL), tile);

			ret->scale[i] = vf_from_low_f16(x);
			ret->min[i] = vf_from_low_f16(_mm512_srli_epi32(x, 16));
			fmt_v_steps(0, &ret->scale[i], &ret->min[i]);
		} else {
			fmt_k_params(b, tile, i * VL, &ret->scale[i], &ret->min[i]);
		}
	}
	for (; i % 4; i++)
		ret->scale[i] = ret->min[i] = vf_set(0);
}

/* What one head's coefficients are rounded to. False: they cannot be. */
KV_FN bool dense_measure(struct dense_dot *d, const struct dense_channels *x, const float *q,
			 unsigned h)
{
	__m512i top = _mm512_setzero_si512();
	vf bias = vf_set(0);

	for (uint32_t i = 0; i * VL < x->dim; i++) {
		vf from = vf_load(q + i * VL);

		top = dense_larger(top, vf_mul(from, x->scale[i]));
		bias = vf_fma(from, x->min[i], bias);
	}
	d->biases[h] = bias;
	return dense_step(top, DENSE_TWO, &d->step[h]);
}

KV_FN void dense_fold(struct dense_dot *d, const struct dense_channels *x, const float *q,
		      unsigned h)
{
	vf lost = vf_set(0);

	for (uint32_t column = 0; column < d->columns; column++) {
		__m512i bytes[2];
		vf w[4];

		KV_EACH (i, 4) {
			uint32_t c = column * 64 + i * VL;

			w[i] = vf_mul(c < x->dim ? vf_load(q + c) : vf_set(0), x->scale[c / VL]);
		}
		dense_round(w, d->step[h], 2, &lost, bytes);
		KV_EACH (part, 2) {
			d->coef[column][0][h][part] = _mm512_shuffle_epi32(bytes[part], 0x00);
			d->coef[column][1][h][part] = _mm512_shuffle_epi32(bytes[part], 0x55);
			d->coef[column][2][h][part] = _mm512_shuffle_epi32(bytes[part], 0xaa);
			d->coef[column][3][h][part] = _mm512_shuffle_epi32(bytes[part], 0xff);
		}
	}
	d->bias[h] = vf_sum(vf_fma(lost, vf_set(127.5f), d->biases[h]));
}

/* ---- products --------------------------------------------------------------- */

KV_FN void dense_four_rows(const uint8_t *const row[4], size_t at, __m512i ret[4])
{
	__m512i x[4], low[2], high[2];

	KV_EACH (i, 4)
		x[i] = dense_held(_mm512_loadu_si512(row[i] + at));
	KV_EACH (i, 2) {
		low[i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
		high[i] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
	}
	ret[0] = _mm512_unpacklo_epi64(low[0], low[1]);
	ret[1] = _mm512_unpackhi_epi64(low[0], low[1]);
	ret[2] = _mm512_unpacklo_epi64(high[0], high[1]);
	ret[3] = _mm512_unpackhi_epi64(high[0], high[1]);
}

/* Each vector's four lanes added up: those of vector i in lane i. */
KV_FN __m512i dense_add_lanes(__m512i a, __m512i b, __m512i c, __m512i d)
{
	__m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44),
				       _mm512_shuffle_i32x4(a, b, 0xee));
	__m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(c, d, 0x44),
					_mm512_shuffle_i32x4(c, d, 0xee));

	return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88),
				_mm512_shuffle_i32x4(low, high, 0xdd));
}

/* Rows [at, at + 8), beyond n the last one again: of heads 2 i and 2 i + 1 in ret[i]. */
KV_FN void dense_products(const struct dense_dot *d, uint32_t at, unsigned heads, bool whole,
			  bool asks, __m512i ret[2])
{
	dense_ints sum[DENSE_HEADS][2][2];
	const uint8_t *row[2][4];
	__m512i all[DENSE_HEADS][2];

	KV_EACH (i, 8) {
		uint32_t from = whole ? at + i : MIN(at + i, d->n - 1);

		row[i / 4][i % 4] = d->rows.upper + from * d->rows.stride;
	}
	KV_EACH (i, heads * 4)
		sum[i / 4][i / 2 % 2][i % 2] = (dense_ints){ 0 };
	for (uint32_t column = 0; column < d->columns; column++) {
		__m512i x[2][4];

		KV_EACH (g, 2)
			dense_four_rows(row[g], column * 64, x[g]);
		KV_EACH (k, 4) {
			if (asks)
				ahead_ask(&d->ahead, row[0][0] + (column * 4 + k) * d->share,
					  d->share);
			KV_EACH (i, heads * 2) {
				__m512i c = dense_held(d->coef[column][k][i / 2][i % 2]);

				KV_EACH (g, 2)
					sum[i / 2][i % 2][g] =
						dense_add(sum[i / 2][i % 2][g], x[g][k], c);
			}
		}
	}
	KV_EACH (i, heads * 2)
		all[i / 2][i % 2] = (__m512i)((sum[i / 2][0][i % 2] << 8) + sum[i / 2][1][i % 2]);
	if (heads == 1)
		all[1][0] = all[1][1] = _mm512_setzero_si512();
	ret[0] = dense_add_lanes(all[0][0], all[0][1], all[1][0], all[1][1]);
	if (heads == 4)
		ret[1] = dense_add_lanes(all[2][0], all[2][1], all[3][0], all[3][1]);
}

KV_FN void dense_store(__m256i sum, float step, float bias, uint32_t n, float *p)
{
	__m256 x = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(step),
				   _mm256_set1_ps(bias));
	float all[DENSE_DOT_ROWS];

	if (n >= DENSE_DOT_ROWS) {
		_mm256_storeu_ps(p, x);
		return;
	}
	_mm256_storeu_ps(all, x);
	memcpy(p, all, n * sizeof(*p));
}

KV_FN void dense_dot_rows(const struct dense_dot *d, uint32_t at, unsigned heads, bool whole,
			  bool asks, float *p, size_t p_stride)
{
	__m512i sums[2];

	dense_products(d, at, heads, whole, asks, sums);
	KV_EACH (h, heads) {
		__m256i sum = h % 2 ? _mm512_extracti64x4_epi64(sums[h / 2], 1)
				    : _mm512_castsi512_si256(sums[h / 2]);

		dense_store(sum, d->step[h].step, d->bias[h], whole ? DENSE_DOT_ROWS : d->n - at,
			    p + h * p_stride + at);
	}
}

KV_FN void dense_dot_heads(const struct dense_dot *d, unsigned heads, bool asks, float *p,
			   size_t p_stride)
{
	uint32_t at = 0;

	for (; at + DENSE_DOT_ROWS <= d->n; at += DENSE_DOT_ROWS)
		dense_dot_rows(d, at, heads, true, asks, p, p_stride);
	if (at < d->n)
		dense_dot_rows(d, at, heads, false, asks, p, p_stride);
}

/* Heads [h, h + heads) of one tile. */
KV_FN void dense_dot_some(struct dense_dot *d, const struct dense_channels *x,
			  const struct kv_block *b, uint32_t row, const float *q, size_t q_stride,
			  unsigned heads, bool asks, float *p, size_t p_stride)
{
	bool rounds[DENSE_HEADS];

	for (uint32_t h = 0; h < heads; h++)
		rounds[h] = dense_measure(d, x, q + h * q_stride, h);
	for (uint32_t h = 0; h < heads; h++)
		dense_fold(d, x, q + h * q_stride, h);
	dense_dot_heads(d, heads, asks, p, p_stride);
	for (uint32_t h = 0; h < heads; h++)
		if (!rounds[h])
			stage_k_dot(b, row, d->n, q + h * q_stride, q_stride, 1, p + h * p_stride,
				    p_stride, 0);
}

static void dense_dot_tile(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			   size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	struct dense_channels x;
	struct dense_dot d;
	uint32_t h = 0;

	d.rows = fmt_k_rows(b, row);
	d.n = n;
	d.columns = DIV_UP(b->dim, 64);
	d.share = DENSE_DOT_ROWS / 4 * d.rows.stride / d.columns;
	d.ahead = ahead_k(b);
	for (uint32_t i = 0; i < heads; i++) /* their lines went while the last tile was read */
		for (uint32_t j = 0; j < n; j += VL)
			__builtin_prefetch(p + i * p_stride + j, 1);
	dense_channel_params(b, row / b->tile_rows, &x);
	for (; h + 4 <= heads; h += 4)
		dense_dot_some(&d, &x, b, row, q + h * q_stride, q_stride, 4, h == 0,
			       p + h * p_stride, p_stride);
	if (heads & 2) {
		dense_dot_some(&d, &x, b, row, q + h * q_stride, q_stride, 2, h == 0,
			       p + h * p_stride, p_stride);
		h += 2;
	}
	if (heads & 1)
		dense_dot_some(&d, &x, b, row, q + h * q_stride, q_stride, 1, h == 0,
			       p + h * p_stride, p_stride);
}

#if FMT_LEVELS > 1
KV_FN bool dense_is_finite(const float *q, uint32_t dim)
{
	__m512i top = _mm512_setzero_si512();

	for (uint32_t c = 0; c < dim; c += VL)
		top = dense_larger(top, vf_load(q + c));
	return _mm512_reduce_max_epu32(top) < 0x7f800000;
}

/* Every channel of the scoring plane. */
static void dense_scan(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
		       size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	uint16_t channel[KV_MAX_DIM];

	for (uint32_t c = 0; c < b->dim; c++)
		channel[c] = (uint16_t)c;
	FMT_SCORE_DIMS(b, row, n, q, q_stride, channel, b->dim, heads, p, p_stride);
	for (uint32_t h = 0; h < heads; h++)
		if (!dense_is_finite(q + h * q_stride, b->dim))
			stage_k_dot(b, row, n, q + h * q_stride, q_stride, 1, p + h * p_stride,
				    p_stride, 1);
}
#endif

static void dense_k_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
#if FMT_LEVELS > 1
	if (level) {
		dense_scan(b, row, n, q, q_stride, heads, p, p_stride);
		return;
	}
#endif
	while (n) {
		uint32_t m = MIN(n, b->tile_rows - row % b->tile_rows);

		dense_dot_tile(b, row, m, q, q_stride, heads, p, p_stride);
		row += m;
		n -= m;
		p += m;
	}
}

#define FMT_K_DOT dense_k_dot
