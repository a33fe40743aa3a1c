/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_dot over rows of byte codes with VNNI.
 *
 * A tile's coefficients of a head (q * scale) become two signed bytes each
 * (dense-avx512.h). Of 16 rows, 64 channels each, four rounds of interleaving
 * make vectors that have four channels of all of them, a row in an element. So a
 * step is an integer product of four channels of 16 rows with coefficients that
 * a load puts into all elements, and its sums are those of the rows: nothing is
 * left to be added up across a vector, which would be waited for.
 *
 * A tile's coefficients are made before the products of the tile before it, for
 * the same reason.
 *
 * Loads are of 64 bytes whatever the dimension: coefficients beyond it are 0,
 * and behind the last row of a block lie its parameters.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/dot.h"

#define DENSE_DOT_ROWS 16u

struct dense_channels { /* parameters of a tile, zeros beyond the dimension */
	vf scale[KV_MAX_DIM / VL], min[KV_MAX_DIM / VL];
	uint32_t dim;
};

struct dense_dot { /* up to four heads, in rows of one tile */
	uint32_t row, n, head, heads;
	uint32_t columns; /* of 64 channels */
	__mmask16 bad;    /* heads that cannot be rounded, four bits each */
	float step[DENSE_HEADS], bias[DENSE_HEADS];
	/* Of 64 channels, high and low bytes, as dense_at says. */
	_Alignas(64) int8_t coef[KV_MAX_DIM / 64][DENSE_HEADS][2][64];
	/* While they are made. */
	struct dense_channels channels;
	__m512i top[DENSE_HEADS];
	vf biases[DENSE_HEADS];
	struct dense_steps steps;
};

struct dense_call {
	const struct kv_block *b;
	const float *q;
	size_t q_stride;
	uint32_t row, n, heads;
	float *p; /* of `row` */
	size_t p_stride;
	struct ahead ahead;
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

/* With the min at the middle of the codes. */
KV_FN void dense_channel_params(const struct kv_block *b, uint32_t tile, struct dense_channels *ret)
{
	uint32_t i = 0;

	ret->dim = b->dim;
	for (; i * VL < b->dim; i++) {
		/* Where a row's pairs are those of a scan: tile by tile they would be a line each.
		 */
		if (FMT_LEVELS == 1 && b->tiles == 8) {
			__m512i x = dense_pairs_of_8(k_pair(b, 0, i * VL), tile);

			dense_apart(x, &ret->scale[i], &ret->min[i]);
		} else {
			fmt_k_params(b, tile, i * VL, &ret->scale[i], &ret->min[i]);
		}
		ret->min[i] = vf_fma(ret->scale[i], vf_set(127.5f), ret->min[i]);
	}
	for (; i % 4; i++)
		ret->scale[i] = ret->min[i] = vf_set(0);
}

/* The pairs of the next block: as much of them as a tile is of a block. */
KV_FN void dense_ask_pairs(const struct kv_block *b, uint32_t tile)
{
	const struct kv_block next = ahead_next(b);
	const struct kv_pair *first = k_row_pair(&next, 0, 0) + (size_t)tile * b->dim;

	for (uint32_t i = 0; i < b->dim && b->next; i += KV_LINE / sizeof(*first))
		__builtin_prefetch(first + i, 0, 2);
}

/* What head h's coefficients are rounded by, and the bias of codes from their middle. */
KV_FN void dense_measure(struct dense_dot *d, const float *q, unsigned h)
{
	const struct dense_channels *x = &d->channels;
	__m512i top = _mm512_setzero_si512();
	vf bias = vf_set(0);

	for (uint32_t i = 0; i * VL < x->dim; i++) {
		vf from = vf_load(q + i * VL);

		top = dense_larger(top, vf_mul(from, x->scale[i]));
		bias = vf_fma(from, x->min[i], bias);
	}
	d->top[h] = top;
	d->biases[h] = bias;
}

KV_FN void dense_fold(struct dense_dot *d, const float *q, unsigned h)
{
	const struct dense_channels *x = &d->channels;
	vf per = dense_of_head(d->steps.per, h), step = dense_of_head(d->steps.step, h);
	__m512i sum = _mm512_setzero_si512();

	for (uint32_t column = 0; column < d->columns; column++) {
		__m512i bytes[2];
		vf w[4];

		KV_EACH (i, 4) {
			uint32_t c = column * 64 + i * VL;

			w[i] = vf_mul(c < x->dim ? vf_load(q + c) : vf_set(0), x->scale[c / VL]);
		}
		dense_round(w, per, 2, &sum, bytes);
		KV_EACH (part, 2)
			_mm512_store_si512(d->coef[column][h][part], bytes[part]);
	}
	d->biases[h] = dense_from_middle(d->biases[h], sum, step, 127.5f);
}

/* What the sums of rows are multiplied by, and what is added to them. */
KV_FN void dense_fold_ends(struct dense_dot *d)
{
	const __m512i head = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	vf all = vf_quarters(d->biases[0], d->biases[1], d->biases[2], d->biases[3]);

	all = vf_add(all, _mm512_permute_ps(all, 0x4e));
	all = vf_add(all, _mm512_permute_ps(all, 0xb1));
	_mm_storeu_ps(d->step, _mm512_castps512_ps128(_mm512_permutexvar_ps(head, d->steps.step)));
	_mm_storeu_ps(d->bias, _mm512_castps512_ps128(_mm512_permutexvar_ps(head, all)));
}

KV_FN void dense_fold_begin(const struct dense_call *a, struct dense_dot *d)
{
	const float *p = a->p + d->head * a->p_stride + (d->row - a->row);

	for (uint32_t h = 0; h < d->heads; h++) /* their lines went while the last tile was read */
		for (uint32_t i = 0; i < d->n; i += VL)
			__builtin_prefetch(p + h * a->p_stride + i, 1);
	if (d->head == 0)
		dense_ask_pairs(a->b, d->row / a->b->tile_rows);
	dense_channel_params(a->b, d->row / a->b->tile_rows, &d->channels);
	for (uint32_t h = d->heads; h < DENSE_HEADS; h++) {
		d->top[h] = _mm512_setzero_si512();
		d->biases[h] = vf_set(0);
	}
}

/* Coefficients are made in parts, which what they wait for is hidden between. */
enum { DENSE_BEGIN, DENSE_MEASURE, DENSE_STEPS = 3, DENSE_FOLD, DENSE_ENDS = 6, DENSE_PARTS };

static void dense_fold_part(const struct dense_call *a, struct dense_dot *d, unsigned part)
{
	const float *q = a->q + d->head * a->q_stride;

	if (part == DENSE_BEGIN)
		dense_fold_begin(a, d);
	else if (part < DENSE_STEPS)
		for (unsigned h = 2 * (part - DENSE_MEASURE), n = 0; n < 2 && h < d->heads;
		     n++, h++)
			dense_measure(d, q + h * a->q_stride, h);
	else if (part == DENSE_STEPS)
		d->bad = dense_steps(d->top, DENSE_TWO, &d->steps);
	else if (part < DENSE_ENDS)
		for (unsigned h = 2 * (part - DENSE_FOLD), n = 0; n < 2 && h < d->heads; n++, h++)
			dense_fold(d, q + h * a->q_stride, h);
	else
		dense_fold_ends(d);
}

/* ---- products --------------------------------------------------------------- */

/* Of 16 channels that vector k of four rows has: those of lane L are 16 L + 4 k and three more. */
KV_FN void dense_four_rows(const uint8_t *row, size_t stride, __m512i ret[4])
{
	__m512i x[4], low[2], high[2];

	KV_EACH (i, 4)
		x[i] = dense_held(_mm512_loadu_si512(row + i * stride));
	KV_EACH (i, 2) {
		low[i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
		high[i] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
	}
	ret[0] = _mm512_unpacklo_epi64(low[0], low[1]);
	ret[1] = _mm512_unpackhi_epi64(low[0], low[1]);
	ret[2] = _mm512_unpacklo_epi64(high[0], high[1]);
	ret[3] = _mm512_unpackhi_epi64(high[0], high[1]);
}

/* A quarter of 16 rows of up to 64 bytes: four lines at most. */
KV_FN void dense_ask_lines(const uint8_t *at)
{
	KV_EACH (i, 4)
		__builtin_prefetch(at + i * KV_LINE, 0, 2);
}

/* Four channels from `at` on of 16 rows. */
KV_FN void dense_step_heads(const int8_t (*coef)[2][64], uint32_t at, __m512i codes, unsigned heads,
			    dense_ints sum[DENSE_HEADS][2])
{
	KV_EACH (i, heads * 2) {
		int32_t four;

		memcpy(&four, &coef[i / 2][i % 2][at], sizeof(four));
		sum[i / 2][i % 2] = dense_add(sum[i / 2][i % 2], codes, _mm512_set1_epi32(four));
	}
}

/* 16 rows: high and low sums of each head. */
KV_FN void dense_products(const struct dense_dot *d, const uint8_t *rows, size_t stride,
			  unsigned heads, const uint8_t *next, size_t share,
			  dense_ints sum[DENSE_HEADS][2])
{
	KV_EACH (i, heads * 2)
		sum[i / 2][i % 2] = (dense_ints){ 0 };
	for (uint32_t column = 0; column < d->columns; column++, rows += 64) {
		__m512i x[4][4], y[4];

		KV_EACH (g, 4) {
			dense_four_rows(rows + g * 4 * stride, stride, y);
			KV_EACH (k, 4)
				x[k][g] = y[k];
		}
		KV_EACH (k, 4) {
			dense_ask_lines(next);
			next += share;
			dense_lanes(x[k], y);
			KV_EACH (lane, 4)
				dense_step_heads(d->coef[column], dense_at(4 * lane + k), y[lane],
						 heads, sum);
		}
	}
}

/* Rows [0, n), n a multiple of 16. Those of the next block are asked for once. */
KV_FN void dense_dot_rows(const struct dense_call *a, const struct dense_dot *d,
			  const uint8_t *rows, uint32_t n, unsigned heads, float *p,
			  size_t p_stride)
{
	const size_t stride = fmt_k_stride(a->b->dim), step = DENSE_DOT_ROWS * stride;
	const size_t share = d->head ? 0 : step / 4 / d->columns;

	for (uint32_t at = 0; at < n; at += DENSE_DOT_ROWS, rows += step) {
		const uint8_t *next = d->head ? rows : ahead_of_step(&a->ahead, rows);
		dense_ints sum[DENSE_HEADS][2];

		dense_products(d, rows, stride, heads, next, share, sum);
		KV_EACH (h, heads) {
			vf x = _mm512_cvtepi32_ps((__m512i)((sum[h][0] << 8) + sum[h][1]));

			vf_store(p + h * p_stride + at,
				 vf_fma(x, vf_set(d->step[h]), vf_set(d->bias[h])));
		}
	}
}

/* Functions of their own: the compiler then finds a register for each sum. */
#define DENSE_DOT_OF(heads)                                                                        \
	static __attribute__((noinline)) void dense_dot_##heads(const struct dense_call *a,        \
								const struct dense_dot *d,         \
								const uint8_t *rows, uint32_t n,   \
								float *p, size_t p_stride)         \
	{                                                                                          \
		dense_dot_rows(a, d, rows, n, heads, p, p_stride);                                 \
	}
DENSE_DOT_OF(1)
DENSE_DOT_OF(2)
DENSE_DOT_OF(4)

static void dense_dot_heads(const struct dense_call *a, const struct dense_dot *d,
			    const uint8_t *rows, uint32_t n, float *p, size_t p_stride)
{
	if (d->heads == 4)
		dense_dot_4(a, d, rows, n, p, p_stride);
	else if (d->heads == 2)
		dense_dot_2(a, d, rows, n, p, p_stride);
	else
		dense_dot_1(a, d, rows, n, p, p_stride);
}

/* Fewer than 16 rows, as the first of 16. */
static void dense_dot_few(const struct dense_call *a, const struct dense_dot *d,
			  const uint8_t *rows, uint32_t n, float *p)
{
	const size_t stride = fmt_k_stride(a->b->dim);
	_Alignas(KV_LINE) uint8_t copy[DENSE_DOT_ROWS * KV_MAX_DIM + KV_LINE];
	float all[DENSE_HEADS][DENSE_DOT_ROWS];

	memset(copy, 0, sizeof(copy));
	memcpy(copy, rows, n * stride);
	dense_dot_heads(a, d, copy, DENSE_DOT_ROWS, all[0], DENSE_DOT_ROWS);
	for (uint32_t h = 0; h < d->heads; h++)
		memcpy(p + h * a->p_stride, all[h], n * sizeof(*p));
}

/* ---- tiles ------------------------------------------------------------------ */

/* What is computed next: other heads of the tile, or the next one. n = 0: nothing. */
static void dense_dot_after(const struct dense_call *a, const struct dense_dot *last,
			    struct dense_dot *ret)
{
	const uint32_t tile_rows = a->b->tile_rows, end = a->row + a->n;
	uint32_t head = last->head + last->heads, row = last->row, left;

	if (head == a->heads) {
		head = 0;
		row += last->n;
	}
	left = a->heads - head;
	ret->row = row;
	ret->n = MIN(end - row, tile_rows - row % tile_rows);
	ret->head = head;
	ret->heads = left >= 4 ? 4 : left >= 2 ? 2 : 1;
	ret->columns = DIV_UP(a->b->dim, 64);
}

static void dense_dot_exactly(const struct dense_call *a, const struct dense_dot *d, float *p)
{
	const float *q = a->q + d->head * a->q_stride;

	for (uint32_t h = 0; h < d->heads; h++)
		if (d->bad >> 4 * h & 1)
			stage_k_dot(a->b, d->row, d->n, q + h * a->q_stride, a->q_stride, 1,
				    p + h * a->p_stride, a->p_stride, 0);
}

/* One tile, and meanwhile the coefficients of the next. */
static void dense_dot_tile(const struct dense_call *a, const struct dense_dot *d,
			   struct dense_dot *next)
{
	float *p = a->p + d->head * a->p_stride + (d->row - a->row);
	const uint8_t *rows = fmt_k_rows(a->b, d->row).upper;
	const size_t stride = fmt_k_stride(a->b->dim);
	unsigned part = next->n ? 0 : DENSE_PARTS;
	uint32_t at = 0;

	for (; at + DENSE_DOT_ROWS <= d->n; at += DENSE_DOT_ROWS) {
		dense_dot_heads(a, d, rows + at * stride, DENSE_DOT_ROWS, p + at, a->p_stride);
		if (part < DENSE_PARTS)
			dense_fold_part(a, next, part++);
	}
	if (at < d->n)
		dense_dot_few(a, d, rows + at * stride, d->n - at, p + at);
	while (part < DENSE_PARTS)
		dense_fold_part(a, next, part++);
	if (d->bad)
		dense_dot_exactly(a, d, p);
}

static void dense_dot(const struct dense_call *a)
{
	struct dense_dot d[2];
	unsigned now = 0;

	d[1].row = a->row;
	d[1].n = d[1].head = d[1].heads = 0;
	dense_dot_after(a, &d[1], &d[0]);
	for (unsigned part = 0; part < DENSE_PARTS && d[0].n; part++)
		dense_fold_part(a, &d[0], part);
	for (; d[now].n; now = !now) {
		dense_dot_after(a, &d[now], &d[!now]);
		dense_dot_tile(a, &d[now], &d[!now]);
	}
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
	dense_dot(&(struct dense_call){ .b = b,
					.q = q,
					.q_stride = q_stride,
					.row = row,
					.n = n,
					.heads = heads,
					.p = p,
					.p_stride = p_stride,
					.ahead = ahead_k(b) });
}

#define FMT_K_DOT dense_k_dot
