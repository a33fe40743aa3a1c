/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hier4: hierarchical 4-bit codes (QuantSpec), upper and lower nibble in planes
 * of their own, so that scoring and drafts read half of what is exact.
 *
 * A group (K: a channel over the 128 rows of its tile; V: a row over its
 * channels) has min and s4 = (max - min) / 15, both binary16, rounded before
 * use. U = round(clamp((x - min) / s4, 0, 15)), and of the rest in sixteenths
 * L = round(clamp((x - U s4 - min) / (s4 / 16), -8, 7)), halves to even, stored
 * as L + 8. So an 8-bit code is 16 U + (L + 8):
 *
 *   level 0   x = code s4 / 16 + (min - s4 / 2)     error at most s4 / 16
 *   level 1   x = U s4 + min                        error at most s4 / 2
 *
 * A block of T tiles; a nibble pair has the even element in its low half, along
 * the direction in which the plane is contiguous; R(n) is n rounded up to 16:
 *
 *   K   KU  [dim][T][64]            U, channel by channel: a run of 64 T bytes
 *       KE  [128 T][R(dim)]         codes, row by row
 *       KP  [dim][T] {s4, min}      channel by channel too: a scan reads runs
 *       KT  [T][dim] {s4, min}      again, tile by tile: a row is read with all of its tile's
 *   V   VU  [128 T][R(dim / 2)]     U, row by row
 *       VL  [128 T][R(dim / 2)]     L + 8
 *       VP  [128 T] {s4, min}
 *
 * 2.5 dim + 8 dim / 128 + 4 bytes a row: 332 for dim 128.
 */
#include "kernels/codec.h"
#include "kernels/stage/write.h"

#define FMT hier4
#define FMT_LEVELS 2
#define FMT_PLAIN 0
#define FMT_GROUP 0
#define FMT_GATHERS 0
#define FMT_RUN_BITS 4
#define FMT_K_MAX_REL (1.01f / 240)
#define FMT_V_MAX_REL (1.01f / 240)
#define FMT_SCORE_REL (1.01f / 30)

#define TILE KV_TILE_ROWS
#define RUN (TILE / 2) /* bytes of a channel in one tile */

KV_FN size_t fmt_k_stride(uint32_t dim)
{
	return ALIGN_UP(dim, 16);
}

KV_FN size_t fmt_v_stride(uint32_t dim)
{
	return ALIGN_UP(dim / 2, 16);
}

/* Planes of a block: where each begins. */
KV_FN size_t ke_at(const struct kv_block *b)
{
	return (size_t)b->dim * b->tiles * RUN;
}

KV_FN size_t kp_at(const struct kv_block *b)
{
	return ke_at(b) + (size_t)b->tiles * TILE * fmt_k_stride(b->dim);
}

KV_FN size_t kt_at(const struct kv_block *b)
{
	return kp_at(b) + (size_t)b->dim * b->tiles * sizeof(struct kv_pair);
}

KV_FN size_t vp_at(const struct kv_block *b)
{
	return 2 * (size_t)b->tiles * TILE * fmt_v_stride(b->dim);
}

static size_t fmt_k_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	struct kv_block b = { NULL, dim, (uint16_t)tiles, TILE, 0, NULL };

	return kv_align_line(kt_at(&b) + (size_t)dim * tiles * sizeof(struct kv_pair));
}

static size_t fmt_v_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	struct kv_block b = { NULL, dim, (uint16_t)tiles, TILE, 0, NULL };

	return vp_at(&b) + (size_t)tiles * TILE * sizeof(struct kv_pair);
}

static unsigned fmt_k_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	ret[0] = (struct kv_plane){ dim, RUN };
	ret[1] = (struct kv_plane){ 1, TILE * fmt_k_stride(dim) };
	ret[2] = (struct kv_plane){ dim, sizeof(struct kv_pair) };
	ret[3] = (struct kv_plane){ 1, dim * sizeof(struct kv_pair) };
	return 4;
}

static unsigned fmt_v_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	ret[0] = ret[1] = (struct kv_plane){ 1, TILE * fmt_v_stride(dim) };
	ret[2] = (struct kv_plane){ 1, TILE * sizeof(struct kv_pair) };
	return 3;
}

KV_FN struct kv_pair *k_pair(const struct kv_block *b, uint32_t tile, uint32_t channel)
{
	return (struct kv_pair *)((uint8_t *)b->base + kp_at(b)) + channel * b->tiles + tile;
}

KV_FN struct kv_pair *k_row_pair(const struct kv_block *b, uint32_t tile, uint32_t channel)
{
	return (struct kv_pair *)((uint8_t *)b->base + kt_at(b)) + tile * b->dim + channel;
}

KV_FN uint32_t fmt_pairs_of_line(const struct kv_block *b)
{
	return KV_LINE / sizeof(struct kv_pair);
}

KV_FN struct kv_pair *v_pair(const struct kv_block *b, uint32_t row)
{
	return (struct kv_pair *)((uint8_t *)b->base + vp_at(b)) + row;
}

/* ---- writing ---------------------------------------------------------------- */

static inline struct kv_pair fmt_pair(float min, float max)
{
	return (struct kv_pair){ kv_to_f16(kv_finite_f16((max - min) / 15)),
				 kv_to_f16(kv_finite_f16(min)) };
}

KV_FN vf fmt_code(vf x, vf scale, vf min)
{
	vf steps = vf_div(vf_sub(x, min), scale);
	vf u = vf_rint(vf_min(vf_max(steps, vf_set(0)), vf_set(15)));
	/* An infinite scale times U = 0 is no number, and no rest: the second of max is taken. */
	vf rest = vf_sub(x, vf_add(vf_mul(u, vf_min(scale, vf_set(65504))), min));
	vf l = vf_mul(vf_div(rest, scale), vf_set(16));

	l = vf_rint(vf_min(vf_max(l, vf_set(-8)), vf_set(7)));
	return vf_fma(u, vf_set(16), vf_add(l, vf_set(8)));
}

/* KU of a tile from its codes: 16 channels of 32 rows make 16 bytes of 16 runs. */
static void encode_runs(const struct kv_block *b, unsigned slot, const uint8_t *ke)
{
	size_t stride = fmt_k_stride(b->dim), run = (size_t)b->tiles * RUN;
	write_bytes x[16];

	for (uint32_t c = 0; c < b->dim; c += 16)
		for (uint32_t at = 0; at < RUN; at += 16) {
			uint8_t *to = (uint8_t *)b->base + c * run + slot * RUN + at;
			const uint8_t *from = ke + 2 * at * stride + c;

			KV_EACH(i, 16)
				x[i] = write_load(from + 2 * i * stride) >> 4 |
				       (write_load(from + (2 * i + 1) * stride) & 0xf0);
			write_turn(x);
			KV_EACH(i, 16)
				memcpy(to + i * run, &x[i], sizeof(x[i]));
		}
}

static void fmt_k_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	size_t stride = fmt_k_stride(b->dim);
	uint8_t *ke = (uint8_t *)b->base + ke_at(b) + slot * TILE * stride;
	struct kv_pair pair[VL];

	for (uint32_t c = 0; c < b->dim; c += VL) {
		write_columns(x + c, b->dim, TILE, ke + c, stride, pair);
		for (uint32_t j = 0; j < VL; j++)
			*k_row_pair(b, slot, c + j) = *k_pair(b, slot, c + j) = pair[j];
	}
	encode_runs(b, slot, ke);
}

static void fmt_v_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	size_t stride = fmt_v_stride(b->dim), lower = vp_at(b) / 2;
	uint8_t codes[KV_MAX_DIM];

	for (uint32_t i = 0; i < TILE; i++) {
		uint8_t *u = (uint8_t *)b->base + (slot * TILE + i) * stride;

		*v_pair(b, slot * TILE + i) = write_row(x + (size_t)i * b->dim, b->dim, codes);
		write_nibbles(codes, b->dim, u, u + lower);
	}
}

/* ---- reading ---------------------------------------------------------------- */

KV_FN bool fmt_runs(const struct kv_block *b)
{
	return true;
}

KV_FN size_t fmt_run_bytes(const struct kv_block *b)
{
	return (size_t)b->tiles * RUN;
}

KV_FN const uint8_t *fmt_run(const struct kv_block *b, uint32_t channel)
{
	return (const uint8_t *)b->base + channel * fmt_run_bytes(b);
}

KV_FN vf fmt_run_load(const uint8_t *run, uint32_t row)
{
	return vf_load_u4(run, row);
}

KV_FN void fmt_run_params(const struct kv_block *b, uint32_t tile, uint32_t channel, float *scale,
			  float *min)
{
	const struct kv_pair *pair = k_pair(b, tile, channel);

	*scale = vf_from_f16(pair->scale);
	*min = vf_from_f16(pair->min);
}

KV_FN struct kv_rows fmt_k_rows(const struct kv_block *b, uint32_t row)
{
	size_t stride = fmt_k_stride(b->dim);

	return (struct kv_rows){ (const uint8_t *)b->base + ke_at(b) + row * stride, NULL, stride };
}

KV_FN vf fmt_k_load(const struct kv_rows *rows, uint32_t at, uint32_t c)
{
	return vf_load_u8(rows->upper + at * rows->stride + c);
}

KV_FN void fmt_k_params(const struct kv_block *b, uint32_t tile, uint32_t c, vf *scale, vf *min)
{
	vf s4;

	vf_gather_pair(k_row_pair(b, tile, c), sizeof(struct kv_pair), &s4, min);
	*scale = vf_mul(s4, vf_set(1.0f / 16));
	*min = vf_fma(s4, vf_set(-0.5f), *min);
}

KV_FN struct kv_rows fmt_v_rows(const struct kv_block *b, uint32_t row)
{
	size_t stride = fmt_v_stride(b->dim);
	const uint8_t *upper = (const uint8_t *)b->base + row * stride;

	return (struct kv_rows){ upper, upper + vp_at(b) / 2, stride };
}

KV_FN vf fmt_v_load(const struct kv_rows *rows, uint32_t at, uint32_t c, unsigned level)
{
	size_t row = at * rows->stride;

	return level ? vf_load_u4(rows->upper + row, c)
		     : vf_load_u44(rows->upper + row, rows->lower + row, c);
}

KV_FN void fmt_v_params(const struct kv_block *b, uint32_t row, unsigned level, float *scale,
			float *min)
{
	const struct kv_pair *pair = v_pair(b, row);
	float s4 = vf_from_f16(pair->scale);

	*min = vf_from_f16(pair->min) - (level ? 0 : s4 / 2);
	*scale = level ? s4 : s4 / 16;
}

/* Pairs as they are stored, to scales and mins. */
KV_FN void fmt_v_steps(unsigned level, vf *scale, vf *min)
{
	if (level)
		return;
	*min = vf_fma(*scale, vf_set(-0.5f), *min);
	*scale = vf_mul(*scale, vf_set(1.0f / 16));
}

#if KV_ISA_IS(avx512)
#include "kernels/fast/rank-hier4-avx512.h"

#include "kernels/fast/dense-axpy-avx512.h"
#include "kernels/fast/dense-dot-avx512.h"
#elif KV_ISA_IS(avx2)
#include "kernels/fast/dense-axpy-avx2.h"
#include "kernels/fast/scan-hier4-avx2.h"
#elif KV_ISA_IS(dotprod)
#include "kernels/fast/scan-hier4-dotprod.h"

#include "kernels/fast/dense-axpy-dotprod.h"
#include "kernels/fast/dense-dot-dotprod.h"
#endif
#include "kernels/stamp.h"
