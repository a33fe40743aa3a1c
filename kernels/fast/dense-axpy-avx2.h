/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_axpy over codes in AVX2: rows of bytes, or of nibbles in two planes.
 *
 * Rows are taken in blocks. Nibbles become bytes once for all heads of a block,
 * so that what a step does to a code is to widen it for four heads. A strip of
 * channels then stays in registers over the block: 8 sums for 2 products a
 * cycle with a latency of 4, as many as the processor has.
 *
 * Nibbles are loaded 32 bytes at a time whatever the dimension: what lies behind
 * a row is the next one, or the block's parameters, and is not looked at.
 */
#pragma once

#include "kernels/stage/ahead.h"
#include "kernels/stage/axpy.h"

#define DENSE_ROWS 64u
#define DENSE_HEADS 4u /* at once */

struct dense_block {
	struct kv_rows rows;   /* as they lie */
	struct ahead ahead[2]; /* of the upper plane and the lower, or of the bytes */
	const uint8_t *code;   /* bytes of the same rows */
	size_t stride;
	uint32_t dim, n;
	float weight[DENSE_HEADS][DENSE_ROWS]; /* p * scale */
	float bias[DENSE_HEADS];
};

/* ---- codes ------------------------------------------------------------------ */

#if FMT_LEVELS > 1
/* 64 codes of one row, in order. */
KV_FN void dense_bytes(const uint8_t *upper, const uint8_t *lower, unsigned level, uint8_t *to)
{
	const __m256i half = _mm256_set1_epi8(15);
	__m256i u = _mm256_loadu_si256((const __m256i *)(const void *)upper), l, even, odd, x, y;

	if (level) {
		even = _mm256_and_si256(u, half);
		odd = _mm256_and_si256(_mm256_srli_epi16(u, 4), half);
	} else {
		l = _mm256_loadu_si256((const __m256i *)(const void *)lower);
		even = _mm256_or_si256(_mm256_and_si256(l, half),
				       _mm256_slli_epi16(_mm256_and_si256(u, half), 4));
		odd = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(l, 4), half),
				      _mm256_andnot_si256(half, u));
	}
	x = _mm256_unpacklo_epi8(even, odd);
	y = _mm256_unpackhi_epi8(even, odd);
	_mm256_storeu_si256((__m256i *)(void *)to, _mm256_permute2x128_si256(x, y, 0x20));
	_mm256_storeu_si256((__m256i *)(void *)(to + 32), _mm256_permute2x128_si256(x, y, 0x31));
}

KV_FN void dense_decode(const struct dense_block *d, unsigned level,
			uint8_t to[DENSE_ROWS][KV_MAX_DIM])
{
	for (uint32_t i = 0; i < d->n; i++) {
		const uint8_t *upper = d->rows.upper + i * d->rows.stride;
		const uint8_t *lower = d->rows.lower + i * d->rows.stride;

		ahead_ask(&d->ahead[0], upper, d->rows.stride);
		if (!level)
			ahead_ask(&d->ahead[1], lower, d->rows.stride);
		for (uint32_t at = 0; at < d->rows.stride; at += 32)
			dense_bytes(upper + at, lower + at, level, to[i] + 2 * at);
	}
}
#endif

/* ---- sums ------------------------------------------------------------------- */

/* Channels [c, c + vecs * VL). */
KV_FN void dense_strip(const struct dense_block *d, uint32_t c, unsigned vecs, unsigned heads,
		       bool ask, float *y, size_t y_stride)
{
	const uint8_t *code = d->code + c;
	vf acc[DENSE_HEADS][4];

	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			acc[h][v] =
				vf_add(vf_load(y + h * y_stride + c + v * VL), vf_set(d->bias[h]));
	for (uint32_t i = 0; i < d->n; i++, code += d->stride) {
		vf x[4];

		if (ask)
			ahead_ask(&d->ahead[0], code, d->stride);
		KV_EACH (v, vecs)
			x[v] = vf_load_u8(code + v * VL);
		KV_EACH (h, heads) {
			vf w = vf_set(d->weight[h][i]);

			KV_EACH (v, vecs)
				acc[h][v] = vf_fma(w, x[v], acc[h][v]);
		}
	}
	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			vf_store(y + h * y_stride + c + v * VL, acc[h][v]);
}

KV_FN void dense_strips(const struct dense_block *d, unsigned heads, bool ask, float *y,
			size_t y_stride)
{
	const unsigned vecs = heads == 4 ? 2 : 4;
	uint32_t c = 0;

	if (ask) {
		dense_strip(d, 0, vecs, heads, true, y, y_stride);
		c = vecs * VL;
	}
	for (; c + vecs * VL <= d->dim; c += vecs * VL)
		dense_strip(d, c, vecs, heads, false, y, y_stride);
	for (; c < d->dim; c += 2 * VL)
		dense_strip(d, c, 2, heads, false, y, y_stride);
}

/* ---- weights ---------------------------------------------------------------- */

struct dense_params { /* of a block's rows, zeros beyond them */
	vf scale[DENSE_ROWS / VL], min[DENSE_ROWS / VL];
};

KV_FN void dense_params(const struct kv_block *b, uint32_t row, uint32_t n, unsigned level,
			struct dense_params *ret)
{
	struct kv_pair pair[DENSE_ROWS];

	memcpy(pair, v_pair(b, row), n * sizeof(*pair));
	memset(pair + n, 0, (DENSE_ROWS - n) * sizeof(*pair));
	KV_EACH (i, DENSE_ROWS / VL) {
		vf_gather_pair(pair + i * VL, sizeof(*pair), &ret->scale[i], &ret->min[i]);
		fmt_v_steps(level, &ret->scale[i], &ret->min[i]);
	}
}

KV_FN void dense_weigh(struct dense_block *d, const struct dense_params *x, const float *from,
		       unsigned h)
{
	float p[DENSE_ROWS];
	vf bias = vf_set(0);

	memcpy(p, from, d->n * sizeof(*p));
	memset(p + d->n, 0, (DENSE_ROWS - d->n) * sizeof(*p));
	KV_EACH (i, DENSE_ROWS / VL) {
		vf weight = vf_load(p + i * VL);

		vf_store(&d->weight[h][i * VL], vf_mul(weight, x->scale[i]));
		bias = vf_fma(weight, x->min[i], bias);
	}
	d->bias[h] = vf_sum(bias);
}

/* Where the codes of a block lie, and how far the next one is. */
KV_FN void dense_planes(const struct kv_block *b, uint32_t row, struct dense_block *d)
{
	d->rows = fmt_v_rows(b, row);
	d->ahead[0] = d->ahead[1] = ahead_v(b);
	if (FMT_LEVELS > 1)
		d->ahead[1].end += d->rows.lower - d->rows.upper;
}

KV_FN void dense_block_add(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			   size_t p_stride, uint32_t heads, float *y, size_t y_stride,
			   unsigned level)
{
	struct dense_block d;
	struct dense_params params;
#if FMT_LEVELS > 1
	uint8_t code[DENSE_ROWS][KV_MAX_DIM];

	dense_planes(b, row, &d);
	d.dim = b->dim;
	d.n = n;
	dense_decode(&d, level, code);
	d.code = code[0];
	d.stride = KV_MAX_DIM;
#else
	dense_planes(b, row, &d);
	d.dim = b->dim;
	d.n = n;
	d.code = d.rows.upper;
	d.stride = d.rows.stride;
#endif
	dense_params(b, row, n, level, &params);
	for (uint32_t h = 0; h < heads;) {
		uint32_t some = heads - h >= 4 ? 4 : heads - h >= 2 ? 2 : 1;
		bool ask = FMT_LEVELS == 1 && h == 0;

		for (uint32_t i = 0; i < some; i++)
			dense_weigh(&d, &params, p + (h + i) * p_stride, i);
		if (some == 4)
			dense_strips(&d, 4, ask, y + h * y_stride, y_stride);
		else if (some == 2)
			dense_strips(&d, 2, ask, y + h * y_stride, y_stride);
		else
			dense_strips(&d, 1, ask, y + h * y_stride, y_stride);
		h += some;
	}
}

static void dense_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	for (uint32_t i = 0; i < n; i += DENSE_ROWS) {
		uint32_t m = MIN(n - i, DENSE_ROWS);

		if (FMT_LEVELS > 1 && level)
			dense_block_add(b, row + i, m, p + i, p_stride, heads, y, y_stride, 1);
		else
			dense_block_add(b, row + i, m, p + i, p_stride, heads, y, y_stride, 0);
	}
}

#define FMT_V_AXPY dense_v_axpy
