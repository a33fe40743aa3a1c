/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_axpy over rows of byte codes, or of nibbles in two planes, with VNNI.
 *
 * Rows are taken in blocks. A block's weights (p * scale) of a head become two
 * signed bytes each (dense-avx512.h), one where level 1 is read. Two rounds of
 * byte interleaving put four rows of a channel side by side, so that a step is
 * an integer product of four rows with 16 channels; a pass over the block's rows
 * has 16 sums in registers: 32 channels of four heads, or 64 of two. Sums of a
 * block are exact; they are added up in f32, in the order in which interleaving
 * leaves the channels, and come back to theirs at the end.
 *
 * Where level 1 is read bytes of two nibbles are multiplied as they are: with the
 * product of the low ones alone that of the high ones is (raw - low) / 16, exactly.
 *
 * Loads are of 64 bytes whatever the dimension: what lies behind a row is the
 * next one, or the block's parameters, and its sums are dropped.
 */
#pragma once

#include "kernels/fast/dense-weigh-avx512.h"

#define DENSE_FEW 16u /* rows: below that rounding weights takes longer than it saves */

/* ---- codes ------------------------------------------------------------------ */

/* Of two nibbles in a byte the even channel comes before the odd one. */
KV_FN void dense_join(__m512i u, __m512i l, __m512i ret[2])
{
	const __m512i low = _mm512_set1_epi8(15); /* low ? lower : upper */

	ret[0] = _mm512_ternarylogic_epi64(low, l, _mm512_slli_epi16(u, 4), 0xca);
	ret[1] = _mm512_ternarylogic_epi64(low, _mm512_srli_epi16(l, 4), u, 0xca);
}

/* What a step of four rows multiplies: a group's vectors, or two of them; of level 1 the bytes as
 * they are, and their low nibbles. */
KV_FN void dense_vectors(const struct kv_rows *rows, bool half, unsigned two, unsigned vecs,
			 unsigned level, __m512i ret[4])
{
	__m512i u[2], l[2];

	if (FMT_LEVELS == 1) {
		KV_EACH (i, vecs / 2)
			dense_weave_half(rows->upper, rows->stride, i || two, ret + 2 * i);
		return;
	}
	dense_weave_half(rows->upper, rows->stride, half, u);
	if (level) {
		KV_EACH (i, 2) {
			ret[i] = u[i];
			ret[2 + i] = _mm512_and_si512(u[i], _mm512_set1_epi8(15));
		}
		return;
	}
	dense_weave_half(rows->lower, rows->stride, half, l);
	KV_EACH (i, vecs / 2)
		dense_join(u[i || two], l[i || two], ret + 2 * i);
}

/* ---- sums ------------------------------------------------------------------- */

/* Of each plane the next n bytes of what is used far behind this block. */
KV_FN void dense_ask(const uint8_t *next[2], size_t n, unsigned level)
{
	for (size_t i = 0; i < n; i += KV_LINE) {
		__builtin_prefetch(next[0] + i, 0, 2);
		if (FMT_LEVELS > 1 && !level)
			__builtin_prefetch(next[1] + i, 0, 2);
	}
	next[0] += n;
	next[1] += n;
}

KV_FN struct kv_rows dense_rows_at(struct kv_rows rows, size_t bytes)
{
	return (struct kv_rows){ rows.upper + bytes, FMT_LEVELS > 1 ? rows.lower + bytes : NULL,
				 rows.stride };
}

/* Those of the block after the next: they are all wanted at once, and at its beginning. */
KV_FN void dense_ask_params(const struct dense_axpy *a, uint32_t row)
{
	const struct kv_block next = ahead_next(a->b);
	const uint32_t rows = kv_block_rows(a->b);
	const struct kv_pair *first;

	row += 2 * DENSE_ROWS;
	first = row < rows ? v_pair(a->b, row) : v_pair(&next, row - rows);
	for (uint32_t i = 0; i < DENSE_ROWS; i += KV_LINE / sizeof(*first))
		__builtin_prefetch(first + i, 0, 2);
}

struct dense_sums {
	dense_ints high[16], low[16]; /* [heads][vecs] */
};

KV_FN void dense_add_four(const int8_t *weight, unsigned heads, unsigned vecs, unsigned level,
			  const __m512i x[4], struct dense_sums *s)
{
	KV_EACH (i, heads) {
		const int8_t *high = weight + i * DENSE_ROWS, *low = high + DENSE_SUMS * DENSE_ROWS;
		__m512i c = dense_four(low);

		KV_EACH (v, vecs)
			s->low[i * vecs + v] = dense_add(s->low[i * vecs + v], x[v], c);
		if (level)
			continue;
		c = dense_four(high);
		KV_EACH (v, vecs)
			s->high[i * vecs + v] = dense_add(s->high[i * vecs + v], x[v], c);
	}
}

/* Exact sums of a head, as the group's vectors are ordered. */
KV_FN void dense_take(const struct dense_sums *s, unsigned i, unsigned vecs, unsigned level,
		      dense_ints ret[4])
{
	KV_EACH (v, vecs)
		ret[v] = level ? s->low[i * vecs + v]
			       : s->low[i * vecs + v] + (s->high[i * vecs + v] << 8);
	if (level)
		KV_EACH (q, 2) {
			ret[2 * q] = s->low[i * 4 + 2 + q];
			ret[2 * q + 1] = (s->low[i * 4 + q] - ret[2 * q]) >> 4;
		}
}

/* Vectors [2 two, 2 two + vecs) of one group, of heads [h, h + heads). */
KV_FN void dense_pass(struct dense_axpy *a, const struct dense_block *d, uint32_t h, unsigned heads,
		      uint32_t group, bool half, unsigned two, unsigned vecs, unsigned level)
{
	const size_t at = (FMT_LEVELS == 1 ? group : group / 2) * 64, share = a->share;
	struct kv_rows rows = dense_rows_at(fmt_v_rows(a->b, d->row), at);
	const struct kv_rows rest = { d->rest[0] + at, d->rest[1] + at, rows.stride };
	const uint8_t *next[2] = { a->next[0], a->next[1] };
	const int8_t *weight = d->weight[0][h];
	struct dense_sums s;
	__m512i x[4];

	KV_EACH (i, heads * vecs)
		s.high[i] = s.low[i] = (dense_ints){ 0 };
	for (uint32_t i = d->n / 4; i; i--) {
		dense_ask(next, share, level);
		dense_vectors(&rows, half, two, vecs, level, x);
		dense_add_four(weight, heads, vecs, level, x, &s);
		rows = dense_rows_at(rows, 4 * rows.stride);
		weight += 4;
	}
	if (d->n % 4) {
		dense_vectors(&rest, half, two, vecs, level, x);
		dense_add_four(weight, heads, vecs, level, x, &s);
	}
	a->next[0] = next[0];
	a->next[1] = next[1];
	KV_EACH (i, heads) {
		vf *to = &a->sum[h + i][group][2 * two];
		dense_ints all[4];

		dense_take(&s, i, vecs, level, all);
		KV_EACH (v, vecs)
			to[v] = vf_fma(_mm512_cvtepi32_ps((__m512i)all[v]), d->step[h + i], to[v]);
	}
}

/* Functions of their own: the compiler then finds a register for each sum. */
#define DENSE_PASS(name, heads, half, two, vecs, level)                                            \
	static __attribute__((noinline)) void dense_pass_##name(struct dense_axpy *a,              \
								const struct dense_block *d,       \
								uint32_t h, uint32_t group)        \
	{                                                                                          \
		dense_pass(a, d, h, heads, group, half, two, vecs, level);                         \
	}
DENSE_PASS(4_low, 4, false, 0, 2, 0)
DENSE_PASS(4_low_on, 4, false, 1, 2, 0)
DENSE_PASS(2_low, 2, false, 0, 4, 0)
DENSE_PASS(1_low, 1, false, 0, 4, 0)
#if FMT_LEVELS > 1
DENSE_PASS(4_high, 4, true, 0, 2, 0)
DENSE_PASS(4_high_on, 4, true, 1, 2, 0)
DENSE_PASS(2_high, 2, true, 0, 4, 0)
DENSE_PASS(1_high, 1, true, 0, 4, 0)
DENSE_PASS(4_upper_low, 4, false, 0, 4, 1)
DENSE_PASS(4_upper_high, 4, true, 0, 4, 1)
DENSE_PASS(1_upper_low, 1, false, 0, 4, 1)
DENSE_PASS(1_upper_high, 1, true, 0, 4, 1)
#endif

typedef void dense_pass_fn(struct dense_axpy *, const struct dense_block *, uint32_t, uint32_t);

struct dense_walk { /* over a block; meanwhile weights of the next one are made */
	const struct dense_block *now;
	struct dense_block *next;
	unsigned passes, done, part, parts; /* passes over its rows; parts of those weights */
};

static void dense_weigh_until(struct dense_axpy *a, struct dense_walk *w, unsigned part)
{
	while (w->part < part)
		dense_weigh_part(a, w->next, w->part++);
}

/* Some heads from h on in all groups; of each first the vectors of its even number, or all. */
static void dense_passes(struct dense_axpy *a, struct dense_walk *w, uint32_t h,
			 dense_pass_fn *const pass[2][2])
{
	for (uint32_t g = 0; g < a->groups; g++)
		KV_EACH (i, 2) {
			dense_pass_fn *f = pass[FMT_LEVELS > 1 && g % 2][i];

			if (!f)
				continue;
			f(a, w->now, h, g);
			w->done++;
			dense_weigh_until(a, w, w->parts * w->done / w->passes);
		}
}

#if FMT_LEVELS > 1
static dense_pass_fn *const dense_of_4[2][2] = { { dense_pass_4_low, dense_pass_4_low_on },
						 { dense_pass_4_high, dense_pass_4_high_on } };
static dense_pass_fn *const dense_of_2[2][2] = { { dense_pass_2_low }, { dense_pass_2_high } };
static dense_pass_fn *const dense_of_1[2][2] = { { dense_pass_1_low }, { dense_pass_1_high } };
static dense_pass_fn *const dense_upper_of_4[2][2] = { { dense_pass_4_upper_low },
						       { dense_pass_4_upper_high } };
static dense_pass_fn *const dense_upper_of_1[2][2] = { { dense_pass_1_upper_low },
						       { dense_pass_1_upper_high } };
#else
static dense_pass_fn *const dense_of_4[2][2] = { { dense_pass_4_low, dense_pass_4_low_on } };
static dense_pass_fn *const dense_of_2[2][2] = { { dense_pass_2_low } };
static dense_pass_fn *const dense_of_1[2][2] = { { dense_pass_1_low } };
#endif

static void dense_add_block(struct dense_axpy *a, struct dense_walk *w)
{
	const struct kv_rows rows = fmt_v_rows(a->b, w->now->row);
	uint32_t h = 0;

	a->next[0] = ahead_of_step(&a->ahead[0], rows.upper);
	a->next[1] = ahead_of_step(&a->ahead[1], FMT_LEVELS > 1 ? rows.lower : rows.upper);
	dense_ask_params(a, w->now->row);
#if FMT_LEVELS > 1
	for (; a->level && h + 4 <= a->heads; h += 4)
		dense_passes(a, w, h, dense_upper_of_4);
	for (; a->level && h < a->heads; h++)
		dense_passes(a, w, h, dense_upper_of_1);
#endif
	for (; h + 4 <= a->heads; h += 4)
		dense_passes(a, w, h, dense_of_4);
	for (; h + 2 <= a->heads; h += 2)
		dense_passes(a, w, h, dense_of_2);
	if (h < a->heads)
		dense_passes(a, w, h, dense_of_1);
	dense_weigh_until(a, w, w->parts);
}

/* ---- results ---------------------------------------------------------------- */

/* A group's channels in their order: ret[L] has 16 of them. */
KV_FN void dense_in_order(const vf sum[4], vf ret[4])
{
	__m512i x[4];

	KV_EACH (q, 2) {
		vf even = sum[2 * q], odd = sum[2 * q + 1];

		x[2 * q] =
			_mm512_castps_si512(FMT_LEVELS == 1 ? even : _mm512_unpacklo_ps(even, odd));
		x[2 * q + 1] =
			_mm512_castps_si512(FMT_LEVELS == 1 ? odd : _mm512_unpackhi_ps(even, odd));
	}
	dense_lanes(x, x);
	KV_EACH (i, 4)
		ret[i] = _mm512_castsi512_ps(x[i]);
}

KV_FN void dense_finish(const struct dense_axpy *a, uint32_t h)
{
	float *y = a->y + h * a->y_stride;
	vf bias = vf_set(vf_sum(a->bias[h]));

	for (uint32_t g = 0; g < a->groups; g++) {
		/* Halves of 128 channels in nibbles: 16 of one, 16 of the other. */
		uint32_t step = FMT_LEVELS == 1 ? 16 : 32;
		uint32_t first = FMT_LEVELS == 1 ? g * 64 : g / 2 * 128 + g % 2 * 16;
		vf lane[4];

		dense_in_order(a->sum[h][g], lane);
		for (unsigned i = 0; i < 4 && first + i * step < a->dim; i++) {
			float *to = y + first + i * step;

			vf_store(to, vf_add(vf_load(to), vf_add(lane[i], bias)));
		}
	}
}

/* Up to DENSE_SUMS heads. */
static void dense_axpy_heads(struct dense_axpy *a)
{
	const unsigned parts = dense_parts(a);
	struct dense_block d[2];

	for (uint32_t h = 0; h < a->heads; h++) {
		a->bias[h] = vf_set(0);
		for (uint32_t g = 0; g < a->groups; g++)
			KV_EACH (i, 4)
				a->sum[h][g][i] = vf_set(0);
	}
	for (uint32_t i = 0; i < a->n + DENSE_ROWS; i += DENSE_ROWS) {
		unsigned odd = i / DENSE_ROWS % 2;
		struct dense_walk w = { &d[!odd], &d[odd], a->passes, 0, 0, 0 };

		if (i < a->n) {
			w.next->row = a->row + i;
			w.next->n = MIN(a->n - i, DENSE_ROWS);
			w.parts = parts;
		}
		if (i)
			dense_add_block(a, &w);
		else
			dense_weigh_until(a, &w, parts);
	}
	for (uint32_t h = 0; h < a->heads; h++)
		dense_finish(a, h);
}

/* Of the lower plane, if there is one. */
KV_FN struct ahead dense_ahead_lower(const struct kv_block *b)
{
	struct kv_block next = ahead_next(b);
	struct kv_rows first = fmt_v_rows(b, 0), then = fmt_v_rows(&next, 0);

	first.upper = first.lower;
	then.upper = then.lower;
	return ahead_of(b, first, then);
}

/* How often a block is walked over; as many lines a step as make a block in all of that. */
KV_FN void dense_count_passes(struct dense_axpy *a)
{
	uint32_t fours = a->heads / 4, rest = a->heads % 4;

	a->passes = a->groups * (a->level ? fours + rest : 2 * fours + rest / 2 + rest % 2);
	a->share = ALIGN_UP(DIV_UP(4 * fmt_v_stride(a->dim), a->passes), KV_LINE);
}

static void dense_v_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
			 size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	const uint32_t columns = DIV_UP((uint32_t)fmt_v_stride(b->dim), 64);
	struct dense_axpy a; /* mostly sums: not cleared */

	if (n < DENSE_FEW) {
		stage_v_axpy(b, row, n, p, p_stride, heads, y, y_stride, level);
		return;
	}
	a.b = b;
	a.row = row;
	a.n = n;
	a.dim = b->dim;
	a.groups = FMT_LEVELS == 1 ? columns : 2 * columns;
	a.level = FMT_LEVELS > 1 ? level : 0;
	a.ahead[0] = ahead_v(b);
	a.ahead[1] = dense_ahead_lower(b);
	a.p_stride = p_stride;
	a.y_stride = y_stride;
	for (uint32_t h = 0; h < heads; h += DENSE_SUMS) {
		a.heads = MIN(heads - h, DENSE_SUMS);
		a.p = p + h * p_stride;
		a.y = y + h * y_stride;
		dense_count_passes(&a);
		dense_axpy_heads(&a);
	}
}

#define FMT_V_AXPY dense_v_axpy
