/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_score_dims over hier4 in integers, with SDOT of ARM.
 *
 * A tile's coefficients (coef * s4) of a head are rounded to int8 with one scale
 * for all channels. The rounding is largest / 254 a channel; nibbles are taken
 * from their middle (7.5), so a channel adds at most largest * 7.5 / 254 to the
 * error of its score, less than a sixteenth of what the nibble itself may cost.
 *
 * Two rounds of byte interleaving put four channels of a row side by side, as
 * SDOT multiplies them; nibbles are signed bytes as well. Coefficients of four
 * heads for the same four channels lie in one vector, an element a head. A step
 * is 16 rows of four heads, 16 sums: they fit the registers with what they are
 * made of.
 */
#pragma once

#include "kernels/codec.h"

#define SDOT_TILES 4u /* folded at once: a vector holds one channel's scales */
#define SDOT_HEADS 4u
#define SDOT_ROWS 16u /* of a step: eight bytes of a run */
#define SDOT_MIDDLE 7.5f

struct sdot_fold { /* of up to SDOT_TILES tiles */
	float bias[SDOT_HEADS][SDOT_TILES], scale[SDOT_HEADS][SDOT_TILES];
	float s4[KV_MAX_DIM][SDOT_TILES];
	int32_t coef[KV_MAX_DIM / 4][SDOT_TILES][SDOT_HEADS]; /* four int8: four channels */
};

struct sdot_scan {
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

/* ---- coefficients ------------------------------------------------------------ */

/* Scale and min of one channel in four tiles. What lies behind the block's tiles is in the block,
 * and not used. */
KV_FN void sdot_pairs(const struct kv_block *b, uint32_t tile, uint32_t channel, vf *ret_scale,
		      vf *ret_min)
{
	uint16x4x2_t x = vld2_u16((const uint16_t *)(const void *)k_pair(b, tile, channel));

	*ret_scale = vf_from_halves(x.val[0]);
	*ret_min = vf_from_halves(x.val[1]);
}

/* The largest coefficient and the bias, by tile. */
KV_FN void sdot_measure(const struct sdot_scan *s, uint32_t tile, uint32_t head, unsigned heads,
			struct sdot_fold *f)
{
	vf bias[SDOT_HEADS], top[SDOT_HEADS];

	KV_EACH (h, heads)
		bias[h] = top[h] = vf_set(0);
	for (uint32_t j = 0; j < s->r; j++) {
		vf scale, min;

		sdot_pairs(s->b, tile, s->channel[j], &scale, &min);
		vf_store(f->s4[j], scale);
		KV_EACH (h, heads) {
			vf c = vf_set(s->coef[(head + h) * s->coef_stride + j]);

			top[h] = vf_max(vabsq_f32(vf_mul(c, scale)), top[h]);
			bias[h] = vf_fma(c, min, bias[h]);
		}
	}
	KV_EACH (h, heads) {
		vf_store(f->bias[h], bias[h]);
		vf_store(f->scale[h], vf_mul(top[h], vf_set(1.0f / 127)));
	}
}

struct sdot_round { /* of one head */
	const float *coef;
	vf step, per, lost;
};

/* One channel's byte `at` of the four that are packed; what rounding loses is added up. */
KV_FN int32x4_t sdot_byte(struct sdot_round *x, const struct sdot_scan *s,
			  const struct sdot_fold *f, uint32_t j)
{
	vf w = j < s->r ? vf_mul(vf_set(x->coef[j]), vf_load(f->s4[j])) : vf_set(0);
	int32x4_t i = vcvtnq_s32_f32(vf_mul(w, x->per));

	x->lost = vf_add(x->lost, vfmsq_f32(w, vcvtq_f32_s32(i), x->step));
	return i;
}

/* Rounds the coefficients; what that loses at a nibble's middle goes into the bias. */
KV_FN void sdot_round(const struct sdot_scan *s, uint32_t head, unsigned heads, struct sdot_fold *f)
{
	struct sdot_round x[SDOT_HEADS];

	KV_EACH (h, heads) {
		vf step = vf_load(f->scale[h]), zero = vf_set(0);
		uint32x4_t some = vcgtq_f32(step, zero); /* not all coefficients 0 */

		x[h] = (struct sdot_round){
			.coef = s->coef + (head + h) * s->coef_stride,
			.step = step,
			.per = vbslq_f32(some, vf_div(vf_set(1), step), zero),
			.lost = zero,
		};
	}
	for (uint32_t j = 0; j < s->r; j += 4) {
		int32x4x4_t packed = { { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0),
					 vdupq_n_s32(0) } };

		KV_EACH (h, heads) {
			int32x4_t p = sdot_byte(&x[h], s, f, j);

			p = vsliq_n_s32(p, sdot_byte(&x[h], s, f, j + 1), 8);
			p = vsliq_n_s32(p, sdot_byte(&x[h], s, f, j + 2), 16);
			packed.val[h] = vsliq_n_s32(p, sdot_byte(&x[h], s, f, j + 3), 24);
		}
		vst4q_s32(f->coef[j / 4][0], packed);
	}
	KV_EACH (h, heads)
		vf_store(f->bias[h], vf_fma(x[h].lost, vf_set(SDOT_MIDDLE), vf_load(f->bias[h])));
}

/* ---- products ---------------------------------------------------------------- */

/* Dwords of four channels: of 8 bytes each, in order. */
KV_FN void sdot_four(const uint8_t *const run[4], size_t at, uint8x16_t ret[2])
{
	uint8x16_t x[4], y[2];

	KV_EACH (i, 4)
		x[i] = vcombine_u8(vld1_u8(run[i] + at), vdup_n_u8(0));
	y[0] = vzip1q_u8(x[0], x[1]);
	y[1] = vzip1q_u8(x[2], x[3]);
	ret[0] = vreinterpretq_u8_u16(
		vzip1q_u16(vreinterpretq_u16_u8(y[0]), vreinterpretq_u16_u8(y[1])));
	ret[1] = vreinterpretq_u8_u16(
		vzip2q_u16(vreinterpretq_u16_u8(y[0]), vreinterpretq_u16_u8(y[1])));
}

/* The element of the coefficients is a constant of the instruction. */
KV_FN void sdot_heads(int8x16_t x, int8x16_t coef, unsigned heads, int32x4_t sum[SDOT_HEADS][4],
		      unsigned i)
{
	sum[0][i] = vdotq_laneq_s32(sum[0][i], x, coef, 0);
	if (heads > 1)
		sum[1][i] = vdotq_laneq_s32(sum[1][i], x, coef, 1);
	if (heads > 2) {
		sum[2][i] = vdotq_laneq_s32(sum[2][i], x, coef, 2);
		sum[3][i] = vdotq_laneq_s32(sum[3][i], x, coef, 3);
	}
}

/* 16 rows: of their bytes the even rows in sum[h][0, 2], the odd ones in [1, 3]. */
KV_FN void sdot_unit(const struct sdot_scan *s, const struct sdot_fold *f, size_t at, uint32_t lane,
		     unsigned heads, int32x4_t sum[SDOT_HEADS][4])
{
	const int32_t *four = f->coef[0][lane];
	const uint8x16_t low = vdupq_n_u8(15);

	KV_EACH (i, heads * 4)
		sum[i / 4][i % 4] = vdupq_n_s32(0);
	for (uint32_t j = 0; j < s->r; j += 4, four += SDOT_TILES * SDOT_HEADS) {
		int8x16_t coef = vreinterpretq_s8_s32(vld1q_s32(four));
		uint8x16_t x[2];

		sdot_four(&s->run[j], at, x);
		KV_EACH (i, 2) {
			int8x16_t even = vreinterpretq_s8_u8(vandq_u8(x[i], low));
			int8x16_t odd = vreinterpretq_s8_u8(vshrq_n_u8(x[i], 4));

			sdot_heads(even, coef, heads, sum, 2 * i);
			sdot_heads(odd, coef, heads, sum, 2 * i + 1);
		}
	}
}

KV_FN void sdot_store(const int32x4_t sum[4], float scale, float bias, float *ret)
{
	vf m = vf_set(scale), b = vf_set(bias);

	KV_EACH (i, 2) {
		int32x4_t even = sum[2 * i], odd = sum[2 * i + 1];

		vf_store(ret + 8 * i, vf_fma(vcvtq_f32_s32(vzip1q_s32(even, odd)), m, b));
		vf_store(ret + 8 * i + 4, vf_fma(vcvtq_f32_s32(vzip2q_s32(even, odd)), m, b));
	}
}

/* Some of the next block's runs, whole, at each step of a tile: all of them in the end. */
KV_FN void sdot_prefetch(const struct sdot_scan *s, uint32_t step)
{
	uint32_t steps = s->b->tiles * TILE / SDOT_ROWS, end = (step + 1) * s->r / steps;

	for (uint32_t j = step * s->r / steps; j < end; j++) {
		const uint8_t *pair = (const uint8_t *)k_pair(s->b, 0, s->channel[j]);

		__builtin_prefetch(pair + s->ahead, 0, 2);
		for (uint32_t i = 0; i < s->b->tiles; i++)
			__builtin_prefetch(s->run[j] + s->ahead + i * RUN, 0, 2);
	}
}

/* The rows of one tile that were asked for, of `heads` <= SDOT_HEADS heads; `lane`: its place in
 * the fold. */
KV_FN void sdot_tile(const struct sdot_scan *s, const struct sdot_fold *f, uint32_t tile,
		     uint32_t lane, uint32_t head, unsigned heads)
{
	uint32_t row = tile * TILE, from = MAX(row, s->first), to = MIN(row + TILE, s->end);
	bool inside = from == row && to == row + TILE;
	float edge[SDOT_HEADS][TILE];

	for (uint32_t at = 0; at < TILE; at += SDOT_ROWS) {
		int32x4_t sum[SDOT_HEADS][4];

		if (s->ahead)
			sdot_prefetch(s, (row + at) / SDOT_ROWS);
		sdot_unit(s, f, (row + at) / 2, lane, heads, sum);
		KV_EACH (h, heads)
			sdot_store(sum[h], f->scale[h][lane], f->bias[h][lane],
				   inside ? s->a + (head + h) * s->a_stride + (row - s->first) + at
					  : edge[h] + at);
	}
	for (unsigned h = 0; h < heads && !inside; h++)
		memcpy(s->a + (head + h) * s->a_stride + (from - s->first), edge[h] + (from - row),
		       (to - from) * sizeof(float));
}

KV_FN void sdot_some(const struct sdot_scan *s, uint32_t head, unsigned heads)
{
	struct sdot_fold f;
	uint32_t first = s->first / TILE, end = DIV_UP(s->end, TILE);

	for (uint32_t group = first / SDOT_TILES * SDOT_TILES; group < end; group += SDOT_TILES) {
		sdot_measure(s, group, head, heads, &f);
		sdot_round(s, head, heads, &f);
		for (uint32_t tile = MAX(group, first); tile < MIN(group + SDOT_TILES, end); tile++)
			sdot_tile(s, &f, tile, tile - group, head, heads);
	}
}

static void sdot_score_dims(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			    size_t coef_stride, const uint16_t *channel, uint32_t r, uint32_t heads,
			    float *a, size_t a_stride)
{
	struct sdot_scan s; /* mostly room for more channels: not cleared */
	uint32_t h = 0;

	if (n == 0)
		return;
	s.b = b;
	s.coef = coef;
	s.coef_stride = coef_stride;
	s.channel = channel;
	s.r = r;
	s.a = a;
	s.a_stride = a_stride;
	s.first = row;
	s.end = row + n;
	s.ahead = b->next ? (const char *)b->next - (const char *)b->base : 0;
	for (uint32_t j = 0; j < ALIGN_UP(r, 4); j++)
		s.run[j] = fmt_run(b, channel[MIN(j, r - 1)]);
	for (; h + 4 <= heads; h += 4) {
		sdot_some(&s, h, 4);
		s.ahead = 0; /* has been asked for */
	}
	if (heads & 2) {
		sdot_some(&s, h, 2);
		h += 2;
	}
	if (heads & 1)
		sdot_some(&s, h, 1);
}

#define FMT_SCORE_DIMS sdot_score_dims
