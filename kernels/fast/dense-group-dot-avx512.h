/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_dot over rows of nibbles in groups of 64 channels with VNNI.
 *
 * A row's scale and min are its own, so a query is rounded once a call, to two
 * signed bytes a channel, with a step for each of its groups (dense-avx512.h).
 * Of 16 rows a group's 32 bytes are interleaved until four bytes of all of them
 * are a vector, a row in an element: its high nibbles are even channels, its low
 * ones the odd channels after them. A group's sum of a row is exact, and what
 * the row makes of it is
 *
 *   scale (step sum - 7.5 step sum of the rounded) + (min + 7.5 scale) sum of q
 *
 * Loads are of 32 bytes: where a last group is shorter the numbers behind it,
 * the next row or the block's parameters, meet zeros.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/group.h"

#define GROUP_DOT_ROWS 16u

struct group_dot { /* up to four heads */
	const struct kv_block *b;
	struct ahead ahead;
	uint32_t groups;
	bool asks;
	__mmask16 bad; /* heads that cannot be rounded, four bits each */
	float step[MAX_GROUPS][DENSE_HEADS], base[MAX_GROUPS][DENSE_HEADS];
	float sum[MAX_GROUPS][DENSE_HEADS];
	/* High and low bytes, as dense_at says: of 32 channels four times four even ones, then as
	 * many odd ones. */
	_Alignas(64) int8_t coef[MAX_GROUPS][DENSE_HEADS][2][64];
};

/* ---- queries ---------------------------------------------------------------- */

/* 64 channels from c on, zeros beyond the row, even and odd ones of 32 apart. */
KV_FN void group_query(const float *q, uint32_t dim, uint32_t c, vf ret[4])
{
	const __m512i even =
		_mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
	const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
	vf x[4];

	KV_EACH (i, 4)
		x[i] = c + i * VL < dim ? vf_load(q + c + i * VL) : vf_set(0);
	KV_EACH (i, 2) {
		ret[2 * i] = _mm512_permutex2var_ps(x[2 * i], even, x[2 * i + 1]);
		ret[2 * i + 1] = _mm512_permutex2var_ps(x[2 * i], odd, x[2 * i + 1]);
	}
}

static void group_fold(struct group_dot *d, const float *q, size_t q_stride, uint32_t heads,
		       uint32_t g)
{
	__m512i top[DENSE_HEADS], bytes[2];
	vf x[DENSE_HEADS][4];
	struct dense_steps steps;

	for (uint32_t h = 0; h < DENSE_HEADS; h++) {
		top[h] = _mm512_setzero_si512();
		if (h >= heads)
			continue;
		group_query(q + h * q_stride, d->b->dim, g * FMT_GROUP, x[h]);
		KV_EACH (i, 4)
			top[h] = dense_larger(top[h], x[h][i]);
	}
	d->bad |= dense_steps(top, DENSE_TWO, &steps);
	for (uint32_t h = 0; h < heads; h++) {
		__m512i sum = _mm512_setzero_si512();
		vf step = dense_of_head(steps.step, h);

		dense_round(x[h], dense_of_head(steps.per, h), 2, &sum, bytes);
		KV_EACH (part, 2)
			_mm512_store_si512(d->coef[g][h][part], bytes[part]);
		d->step[g][h] = _mm512_cvtss_f32(step);
		d->base[g][h] = vf_sum(dense_from_middle(vf_set(0), sum, step, 7.5f));
		d->sum[g][h] = vf_sum(vf_add(vf_add(x[h][0], x[h][1]), vf_add(x[h][2], x[h][3])));
	}
}

/* ---- products --------------------------------------------------------------- */

/* Of 16 rows bytes 4 i to 4 i + 3 of a group in ret[i], a row in an element. */
KV_FN void group_sixteen(const uint8_t *rows, size_t stride, __m512i ret[8])
{
	const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
	const __m512i then = _mm512_add_epi64(first, _mm512_set1_epi64(2));
	__m512i z[2][4];

	KV_EACH (s, 2) {
		__m512i x[4], low[2], high[2];

		KV_EACH (i, 4) {
			const uint8_t *a = rows + (4 * s + i) * stride, *b = a + 8 * stride;
			__m256i y = _mm256_loadu_si256((const __m256i *)(const void *)a);

			x[i] = _mm512_inserti64x4(_mm512_castsi256_si512(y),
						  _mm256_loadu_si256((const void *)b), 1);
		}
		KV_EACH (i, 2) {
			low[i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
			high[i] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
		}
		z[s][0] = _mm512_unpacklo_epi64(low[0], low[1]);
		z[s][1] = _mm512_unpackhi_epi64(low[0], low[1]);
		z[s][2] = _mm512_unpacklo_epi64(high[0], high[1]);
		z[s][3] = _mm512_unpackhi_epi64(high[0], high[1]);
	}
	KV_EACH (k, 4) {
		ret[k] = _mm512_permutex2var_epi64(z[0][k], first, z[1][k]);
		ret[4 + k] = _mm512_permutex2var_epi64(z[0][k], then, z[1][k]);
	}
}

/* Four channels of 16 rows. */
KV_FN void group_step(const int8_t (*coef)[2][64], uint32_t fours, __m512i codes, unsigned heads,
		      dense_ints sum[DENSE_HEADS][2])
{
	KV_EACH (i, heads * 2)
		sum[i / 2][i % 2] = dense_add(sum[i / 2][i % 2], codes,
					      dense_four(&coef[i / 2][i % 2][dense_at(fours)]));
}

/* 16 rows of group g. */
KV_FN void group_products(const struct group_dot *d, const uint8_t *rows, size_t stride, uint32_t g,
			  unsigned heads, const uint8_t *next, dense_ints sum[DENSE_HEADS][2])
{
	const __m512i low = dense_held(_mm512_set1_epi8(15));
	__m512i x[8];

	group_sixteen(rows, stride, x);
	KV_EACH (i, heads * 2)
		sum[i / 2][i % 2] = (dense_ints){ 0 };
	KV_EACH (i, 8) {
		__m512i even = _mm512_and_si512(_mm512_srli_epi16(x[i], 4), low);

		__builtin_prefetch(next + i * KV_LINE, 0, 2);
		group_step(d->coef[g], i / 4 * 8 + i % 4, even, heads, sum);
		group_step(d->coef[g], i / 4 * 8 + 4 + i % 4, _mm512_and_si512(x[i], low), heads,
			   sum);
	}
}

struct group_sixteen {               /* rows */
	const uint8_t *codes, *next; /* and what is asked for meanwhile */
	const struct kv_pair *pair;
	size_t pair_stride; /* from group to group */
};

/* The pairs of 16 rows some lines from here. */
KV_FN void group_ask_pairs(const struct kv_block *b, uint32_t row, uint32_t g)
{
	const struct kv_block next = ahead_next(b);
	const uint32_t rows = kv_block_rows(b);

	row += 8 * GROUP_DOT_ROWS;
	__builtin_prefetch(row < rows ? fmt_group_pair(b, row, g)
				      : fmt_group_pair(&next, row - rows, g),
			   0, 2);
}

KV_FN void group_dot_rows(const struct group_dot *d, const struct group_sixteen *r, unsigned heads,
			  vf p[DENSE_HEADS])
{
	const size_t stride = fmt_k_stride(d->b->dim);

	KV_EACH (h, heads)
		p[h] = vf_set(0);
	for (uint32_t g = 0; g < d->groups; g++) {
		dense_ints sum[DENSE_HEADS][2];
		vf scale, middle;

		group_products(d, r->codes + g * GROUP_BYTES, stride, g, heads,
			       r->next + g * (8 * KV_LINE), sum);
		dense_apart(_mm512_loadu_si512(r->pair + g * r->pair_stride), &scale, &middle);
		middle = vf_fma(scale, vf_set(7.5f), middle);
		KV_EACH (h, heads) {
			vf x = _mm512_cvtepi32_ps((__m512i)((sum[h][0] << 8) + sum[h][1]));

			x = vf_fma(x, vf_set(d->step[g][h]), vf_set(d->base[g][h]));
			p[h] = vf_fma(x, scale, vf_fma(middle, vf_set(d->sum[g][h]), p[h]));
		}
	}
}

/* Fewer than 16 rows, as the first of 16. */
KV_FN void group_dot_rest(const struct group_dot *d, struct group_sixteen r, uint32_t n,
			  unsigned heads, float *p, size_t p_stride)
{
	const size_t stride = fmt_k_stride(d->b->dim);
	struct kv_pair pair[MAX_GROUPS][GROUP_DOT_ROWS];
	uint8_t codes[GROUP_DOT_ROWS * KV_MAX_DIM / 2 + KV_LINE];
	vf x[DENSE_HEADS];

	memset(codes, 0, sizeof(codes));
	memset(pair, 0, sizeof(pair));
	memcpy(codes, r.codes, n * stride);
	for (uint32_t g = 0; g < d->groups; g++)
		memcpy(pair[g], r.pair + g * r.pair_stride, n * sizeof(**pair));
	group_dot_rows(d, &(struct group_sixteen){ codes, r.codes, pair[0], GROUP_DOT_ROWS }, heads,
		       x);
	KV_EACH (h, heads)
		_mm512_mask_storeu_ps(p + h * p_stride, (__mmask16)((1u << n) - 1), x[h]);
}

KV_FN void group_dot_some(const struct group_dot *d, uint32_t row, uint32_t n, unsigned heads,
			  float *p, size_t p_stride)
{
	const size_t step = GROUP_DOT_ROWS * fmt_k_stride(d->b->dim);
	struct group_sixteen r = { .codes = fmt_k_rows(d->b, row).upper,
				   .pair = fmt_group_pair(d->b, row, 0),
				   .pair_stride = kv_block_rows(d->b) };
	uint32_t i = 0;

	for (; i + GROUP_DOT_ROWS <= n; i += GROUP_DOT_ROWS) {
		vf x[DENSE_HEADS];

		r.next = d->asks ? ahead_of_step(&d->ahead, r.codes) : r.codes;
		for (uint32_t g = 0; g < d->groups && d->asks; g++)
			group_ask_pairs(d->b, row + i, g);
		group_dot_rows(d, &r, heads, x);
		KV_EACH (h, heads)
			vf_store(p + h * p_stride + i, x[h]);
		r.codes += step;
		r.pair += GROUP_DOT_ROWS;
	}
	if (i < n)
		group_dot_rest(d, r, n - i, heads, p + i, p_stride);
}

#define GROUP_DOT_OF(heads)                                                                        \
	static __attribute__((noinline)) void group_dot_##heads(const struct group_dot *d,         \
								uint32_t row, uint32_t n,          \
								float *p, size_t p_stride)         \
	{                                                                                          \
		group_dot_some(d, row, n, heads, p, p_stride);                                     \
	}
GROUP_DOT_OF(1)
GROUP_DOT_OF(4)

static void group_dot_few(struct group_dot *d, uint32_t row, uint32_t n, const float *q,
			  size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	d->bad = 0;
	for (uint32_t g = 0; g < d->groups; g++)
		group_fold(d, q, q_stride, heads, g);
	if (heads == 4)
		group_dot_4(d, row, n, p, p_stride);
	else
		group_dot_1(d, row, n, p, p_stride);
	for (uint32_t h = 0; h < heads && d->bad; h++)
		if (d->bad >> 4 * h & 1)
			group_k_dot(d->b, row, n, q + h * q_stride, q_stride, 1, p + h * p_stride,
				    p_stride, 0);
}

static void dense_k_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
	struct group_dot d;

	d.b = b;
	d.ahead = ahead_k(b);
	d.groups = DIV_UP(b->dim, (uint32_t)FMT_GROUP);
	for (uint32_t h = 0, some; h < heads; h += some) {
		some = heads - h >= 4 ? 4 : 1;
		d.asks = h == 0;
		group_dot_few(&d, row, n, q + h * q_stride, q_stride, some, p + h * p_stride,
			      p_stride);
	}
}

#define FMT_K_DOT dense_k_dot
