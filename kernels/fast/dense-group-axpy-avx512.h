/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_axpy over rows of nibbles in groups of 64 channels with VNNI.
 *
 * As dense-axpy-avx512.h has it, but weights (p * scale) are a group's own: of
 * 128 channels, 64 bytes a row, those of the first group multiply the lower half
 * of a vector, those of the second the upper one. Bytes are multiplied as they
 * are: with the product of their low nibbles, the odd channels, alone that of
 * the even ones is (raw - low) / 16, exactly.
 */
#pragma once

#include "kernels/fast/dense-avx512.h"
#include "kernels/stage/ahead.h"
#include "kernels/stage/group.h"

#define GROUP_BLOCK 64u /* rows */
#define GROUP_FEW 16u   /* rows: below that rounding weights takes longer than it saves */

struct group_axpy { /* up to four heads */
	const struct kv_block *b;
	const float *p; /* of the block at hand */
	size_t p_stride;
	float *y;
	size_t y_stride;
	uint32_t heads, groups, columns; /* of two groups each */
	uint32_t row, n;                 /* the block */
	struct ahead ahead;
	size_t share; /* bytes asked for at each step of four rows */
	const uint8_t *next;
	vf step[DENSE_HEADS]; /* of both groups of a column */
	vf bias[DENSE_HEADS][MAX_GROUPS];
	vf sum[DENSE_HEADS][MAX_GROUPS][4];
	/* Of a column. */
	_Alignas(64) int8_t weight[2][2][DENSE_HEADS][GROUP_BLOCK];
};

/* ---- weights ---------------------------------------------------------------- */

struct group_weights {
	vf w[DENSE_HEADS][GROUP_BLOCK / VL], bias[DENSE_HEADS];
	__m512i top[DENSE_HEADS];
	struct dense_steps steps;
};

/* Those of one group, as they are; none, if the row has no such group. */
KV_FN __mmask16 group_measure(const struct group_axpy *a, uint32_t g, struct group_weights *ret)
{
	for (uint32_t h = 0; h < DENSE_HEADS; h++) {
		ret->top[h] = _mm512_setzero_si512();
		ret->bias[h] = vf_set(0);
	}
	KV_EACH (i, GROUP_BLOCK / VL) {
		uint32_t left = a->n > i * VL && g < a->groups ? a->n - i * VL : 0;
		__mmask16 mask = (__mmask16)(left >= VL ? 0xffff : (1u << left) - 1);
		const struct kv_pair *pair =
			fmt_group_pair(a->b, a->row + i * VL, MIN(g, a->groups - 1));
		vf scale, middle;

		dense_apart(_mm512_maskz_loadu_epi32(mask, pair), &scale, &middle);
		middle = vf_fma(scale, vf_set(7.5f), middle);
		for (uint32_t h = 0; h < a->heads; h++) {
			vf p = _mm512_maskz_loadu_ps(mask, a->p + h * a->p_stride + i * VL);

			ret->w[h][i] = vf_mul(p, scale);
			ret->bias[h] = vf_fma(p, middle, ret->bias[h]);
			ret->top[h] = dense_larger(ret->top[h], ret->w[h][i]);
		}
	}
	return dense_steps(ret->top, DENSE_TWO, &ret->steps);
}

/* Group `two` of a column. Heads that are bad count for nothing. */
KV_FN void group_weigh(struct group_axpy *a, uint32_t column, unsigned two, __mmask16 bad,
		       struct group_weights *x)
{
	const uint32_t g = 2 * column + two;
	vf per = _mm512_maskz_mov_ps((__mmask16)~bad, x->steps.per);
	vf steps = _mm512_maskz_mov_ps((__mmask16)~bad, x->steps.step);

	for (uint32_t h = 0; h < a->heads; h++) {
		__m512i sum = _mm512_setzero_si512(), bytes[2];
		vf step = dense_of_head(steps, h), bias;

		dense_round(x->w[h], dense_of_head(per, h), 2, &sum, bytes);
		KV_EACH (part, 2)
			_mm512_store_si512(a->weight[two][part][h], dense_in_order_of(bytes[part]));
		a->step[h] = two ? _mm512_mask_mov_ps(a->step[h], 0xff00, step) : step;
		bias = dense_from_middle(x->bias[h], sum, step, 7.5f);
		if (g < a->groups && !(bad >> 4 * h & 1))
			a->bias[h][g] = vf_add(a->bias[h][g], bias);
	}
}

/* ---- sums ------------------------------------------------------------------- */

KV_FN __m512i group_four(const int8_t *first, const int8_t *second)
{
	int32_t four;

	memcpy(&four, second, sizeof(four));
	return _mm512_mask_set1_epi32(dense_four(first), 0xff00, four);
}

/* Four rows of a half of the bytes: what they are, and their low nibbles. */
KV_FN void group_add_four(const uint8_t *rows, size_t stride, const int8_t *weight, bool half,
			  unsigned heads, dense_ints sum[2][2][4])
{
	const int8_t *second = weight + 2 * DENSE_HEADS * GROUP_BLOCK;
	const size_t part = DENSE_HEADS * GROUP_BLOCK;
	__m512i x[4];

	dense_weave_half(rows, stride, half, x);
	KV_EACH (i, 2)
		x[2 + i] = _mm512_and_si512(x[i], _mm512_set1_epi8(15));
	KV_EACH (i, heads * 2) {
		const size_t at = i / 2 * GROUP_BLOCK + i % 2 * part;
		__m512i c = group_four(weight + at, second + at);

		KV_EACH (v, 4)
			sum[i / 2][i % 2][v] = dense_add(sum[i / 2][i % 2][v], x[v], c);
	}
}

/* Half of a column's bytes, of heads [h, h + heads). */
KV_FN void group_pass(struct group_axpy *a, const uint8_t *rows, uint32_t column, bool half,
		      uint32_t h, unsigned heads)
{
	const size_t stride = fmt_v_stride(a->b->dim), share = a->share;
	const int8_t *weight = a->weight[0][0][h];
	const uint8_t *next = a->next;
	dense_ints sum[2][2][4];

	KV_EACH (i, heads * 8)
		sum[i / 8][i / 4 % 2][i % 4] = (dense_ints){ 0 };
	for (uint32_t i = DIV_UP(a->n, 4); i; i--) {
		for (size_t j = 0; j < share; j += KV_LINE)
			__builtin_prefetch(next + j, 0, 2);
		group_add_four(rows, stride, weight, half, heads, sum);
		next += share;
		rows += 4 * stride;
		weight += 4;
	}
	a->next = next;
	KV_EACH (i, heads) {
		vf *to = a->sum[h + i][2 * column + half];

		KV_EACH (q, 2) {
			dense_ints raw = sum[i][1][q] + (sum[i][0][q] << 8);
			dense_ints low = sum[i][1][2 + q] + (sum[i][0][2 + q] << 8);
			vf even = _mm512_cvtepi32_ps((__m512i)((raw - low) >> 4));
			vf odd = _mm512_cvtepi32_ps((__m512i)low);

			to[2 * q] = vf_fma(even, a->step[h + i], to[2 * q]);
			to[2 * q + 1] = vf_fma(odd, a->step[h + i], to[2 * q + 1]);
		}
	}
}

#define GROUP_PASS(name, half, heads)                                                              \
	static __attribute__((noinline)) void group_pass_##name(struct group_axpy *a,              \
								const uint8_t *rows,               \
								uint32_t column, uint32_t h)       \
	{                                                                                          \
		group_pass(a, rows, column, half, h, heads);                                       \
	}
GROUP_PASS(2_low, false, 2)
GROUP_PASS(2_high, true, 2)
GROUP_PASS(1_low, false, 1)
GROUP_PASS(1_high, true, 1)

static void group_passes(struct group_axpy *a, const uint8_t *rows, uint32_t column)
{
	uint32_t h = 0;

	for (; h + 2 <= a->heads; h += 2) {
		group_pass_2_low(a, rows, column, h);
		group_pass_2_high(a, rows, column, h);
	}
	if (h < a->heads) {
		group_pass_1_low(a, rows, column, h);
		group_pass_1_high(a, rows, column, h);
	}
}

/* Rows of which one or more steps would be beyond the block are copied. */
static const uint8_t *group_block_rows(const struct group_axpy *a, uint8_t *copy)
{
	const size_t stride = fmt_v_stride(a->b->dim);
	const uint8_t *rows = fmt_v_rows(a->b, a->row).upper;

	if (a->n % 4 == 0)
		return rows;
	memcpy(copy, rows, a->n * stride);
	memset(copy + a->n * stride, 0, 3 * stride + KV_LINE);
	return copy;
}

static void group_add_block(struct group_axpy *a)
{
	_Alignas(KV_LINE) uint8_t copy[(GROUP_BLOCK + 3) * KV_MAX_DIM / 2 + KV_LINE];
	const uint8_t *rows = group_block_rows(a, copy);
	struct group_weights x[2];
	__mmask16 exactly = 0;

	a->next = ahead_of_step(&a->ahead, fmt_v_rows(a->b, a->row).upper);
	for (uint32_t g = 0; g < a->groups; g++)
		exactly |= group_measure(a, g, &x[g & 1]);
	for (uint32_t column = 0; column < a->columns; column++) {
		for (unsigned two = 0; two < 2; two++) {
			if (a->groups != 2)
				group_measure(a, 2 * column + two, &x[two]);
			group_weigh(a, column, two, exactly, &x[two]);
		}
		group_passes(a, rows + (size_t)column * 64, column);
	}
	for (uint32_t h = 0; h < a->heads && exactly; h++)
		if (exactly >> 4 * h & 1)
			group_v_axpy(a->b, a->row, a->n, a->p + h * a->p_stride, a->p_stride, 1,
				     a->y + h * a->y_stride, a->y_stride, 0);
}

/* ---- results ---------------------------------------------------------------- */

/* Even and odd channels of a half in their order: ret[L] has 16 from 32 L on. */
KV_FN void group_in_order(const vf sum[4], vf ret[4])
{
	__m512i x[4];

	KV_EACH (q, 2) {
		x[2 * q] = _mm512_castps_si512(_mm512_unpacklo_ps(sum[2 * q], sum[2 * q + 1]));
		x[2 * q + 1] = _mm512_castps_si512(_mm512_unpackhi_ps(sum[2 * q], sum[2 * q + 1]));
	}
	dense_lanes(x, x);
	KV_EACH (i, 4)
		ret[i] = _mm512_castsi512_ps(x[i]);
}

static void group_finish(const struct group_axpy *a, uint32_t h)
{
	float *y = a->y + h * a->y_stride, bias[MAX_GROUPS];

	for (uint32_t g = 0; g < a->groups; g++)
		bias[g] = vf_sum(a->bias[h][g]);
	for (uint32_t i = 0; i < 2 * a->columns; i++) {
		uint32_t first = i / 2 * 128 + i % 2 * 16;
		vf lane[4];

		group_in_order(a->sum[h][i], lane);
		for (uint32_t c = first, j = 0; j < 4 && c < a->b->dim; c += 32, j++) {
			vf x = vf_add(lane[j], vf_set(bias[c / FMT_GROUP]));

			vf_store(y + c, vf_add(vf_load(y + c), x));
		}
	}
}

static void group_axpy_some(struct group_axpy *a, uint32_t row, uint32_t n, const float *p)
{
	for (uint32_t h = 0; h < a->heads; h++)
		for (uint32_t g = 0; g < 2 * a->columns; g++) {
			a->bias[h][g] = vf_set(0);
			KV_EACH (i, 4)
				a->sum[h][g][i] = vf_set(0);
		}
	for (uint32_t i = 0; i < n; i += GROUP_BLOCK) {
		a->row = row + i;
		a->n = MIN(n - i, GROUP_BLOCK);
		a->p = p + i;
		group_add_block(a);
	}
	for (uint32_t h = 0; h < a->heads; h++)
		group_finish(a, h);
}

static void dense_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	const size_t stride = fmt_v_stride(b->dim);
	struct group_axpy a; /* mostly sums: not cleared */

	if (n < GROUP_FEW) {
		group_v_axpy(b, row, n, p, p_stride, heads, y, y_stride, level);
		return;
	}
	a.b = b;
	a.p_stride = p_stride;
	a.y_stride = y_stride;
	a.groups = DIV_UP(b->dim, (uint32_t)FMT_GROUP);
	a.columns = DIV_UP(a.groups, 2u);
	a.ahead = ahead_v(b);
	for (uint32_t h = 0; h < heads; h += DENSE_HEADS) {
		a.heads = MIN(heads - h, DENSE_HEADS);
		a.y = y + h * y_stride;
		a.share =
			ALIGN_UP(DIV_UP(4 * stride, 2 * a.columns * DIV_UP(a.heads, 2u)), KV_LINE);
		group_axpy_some(&a, row, n, p + h * p_stride);
	}
}

#define FMT_V_AXPY dense_v_axpy
