/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4: four bits an element, in groups of 64 channels of a row, as FlexGen
 * quantises (arXiv 2303.06865), K and V alike: a row is quantised by itself.
 *
 *   scale = (max - min) / 15    code = round(clamp((x - min) / scale, 0, 15))
 *   x = code scale + min
 *
 * Halves are rounded to even; scale and min are binary16, rounded before use. It
 * is the scale that is stored, not its inverse: that overflows where a range is
 * below 2.3e-4. The missing channels of a last group are zeros that take part in
 * min and max. An error is at most half a step, range / 30, and what rounding
 * the parameters adds: 2^-11 of the group's largest magnitude.
 *
 * A block of T tiles; a nibble pair has the even element in its HIGH half, the
 * other way round than hier4; R(n) is n rounded up to 16, G is dim / 64 rounded up:
 *
 *   K   KE  [128 T][R(dim / 2)]     codes, row by row
 *       KP  [G][128 T] {scale, min}
 *       KC  [dim][T][64]            codes by channel, with KV_NEED_K_CHANNELS
 *   V   VE  [128 T][R(dim / 2)]
 *       VP  [G][128 T] {scale, min}
 *
 * dim + 8 G bytes a row (144 for dim 128), and dim / 2 more for KC.
 */
#include "kernels/codec.h"
#include "kernels/stage/write.h"

#define FMT int4
#define FMT_LEVELS 1
#define FMT_PLAIN 0
#define FMT_GROUP 64
#define FMT_GATHERS 1
#define FMT_RUN_BITS 4
#define FMT_K_MAX_REL (1.01f / 30)
#define FMT_V_MAX_REL (1.01f / 30)
#define FMT_SCORE_REL (1.01f / 30)

#define TILE KV_TILE_ROWS
#define RUN (TILE / 2) /* bytes of a channel in one tile */

KV_FN size_t fmt_k_stride(uint32_t dim)
{
	return ALIGN_UP(dim / 2, 16);
}

KV_FN size_t fmt_v_stride(uint32_t dim)
{
	return fmt_k_stride(dim);
}

/* KP and VP begin where the codes end, KC behind KP. */
KV_FN size_t pairs_at(const struct kv_block *b)
{
	return (size_t)b->tiles * TILE * fmt_k_stride(b->dim);
}

KV_FN size_t kc_at(const struct kv_block *b)
{
	size_t groups = DIV_UP(b->dim, FMT_GROUP);

	return pairs_at(b) + groups * b->tiles * TILE * sizeof(struct kv_pair);
}

static size_t fmt_v_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	struct kv_block b = { NULL, dim, (uint16_t)tiles, TILE, 0, NULL };

	return kc_at(&b);
}

static size_t fmt_k_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	return fmt_v_bytes(dim, tiles, tile_rows, 0) +
	       (needs & KV_NEED_K_CHANNELS ? (size_t)dim * tiles * RUN : 0);
}

static unsigned fmt_v_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	ret[0] = (struct kv_plane){ 1, TILE * fmt_v_stride(dim) };
	ret[1] = (struct kv_plane){ DIV_UP(dim, FMT_GROUP), TILE * sizeof(struct kv_pair) };
	return 2;
}

static unsigned fmt_k_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	unsigned n = fmt_v_planes(dim, 0, ret);

	if (needs & KV_NEED_K_CHANNELS)
		ret[n++] = (struct kv_plane){ dim, RUN };
	return n;
}

KV_FN struct kv_pair *fmt_group_pair(const struct kv_block *b, uint32_t row, uint32_t group)
{
	return (struct kv_pair *)((uint8_t *)b->base + pairs_at(b)) + group * b->tiles * TILE + row;
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

	return vf_rint(vf_min(vf_max(steps, vf_set(0)), vf_set(15)));
}

/* A row: its pairs and codes[dim], a byte each. */
static void encode_row(const struct kv_block *b, uint32_t row, const float *x, uint8_t *ret_codes)
{
	for (uint32_t c = 0; c < b->dim; c += FMT_GROUP) {
		uint32_t n = MIN(b->dim - c, (uint32_t)FMT_GROUP);
		float padded[FMT_GROUP] = { 0 };

		memcpy(padded, x + c, n * sizeof(*x));
		*fmt_group_pair(b, row, c / FMT_GROUP) =
			write_row(padded, FMT_GROUP, ret_codes + c);
	}
}

static void encode(const struct kv_block *b, unsigned slot, const float *x, uint8_t *kc)
{
	uint8_t codes[2][ALIGN_UP(KV_MAX_DIM, FMT_GROUP)];
	size_t stride = fmt_k_stride(b->dim);

	for (uint32_t i = 0; i < TILE; i++) {
		uint8_t *to = (uint8_t *)b->base + (slot * TILE + i) * stride, *now = codes[i & 1];

		encode_row(b, slot * TILE + i, x + (size_t)i * b->dim, now);
		for (uint32_t c = 0; c < b->dim; c += 2)
			to[c / 2] = (uint8_t)(now[c] << 4) | now[c + 1];
		for (uint32_t c = 0; kc && i & 1 && c < b->dim; c++)
			kc[((size_t)c * b->tiles + slot) * RUN + i / 2] =
				(uint8_t)(codes[0][c] << 4) | codes[1][c];
	}
}

static void fmt_k_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	encode(b, slot, x, b->needs & KV_NEED_K_CHANNELS ? (uint8_t *)b->base + kc_at(b) : NULL);
}

static void fmt_v_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	encode(b, slot, x, NULL);
}

/* ---- reading ---------------------------------------------------------------- */

KV_FN bool fmt_runs(const struct kv_block *b)
{
	return b->needs & KV_NEED_K_CHANNELS;
}

KV_FN size_t fmt_run_bytes(const struct kv_block *b)
{
	return (size_t)b->tiles * RUN;
}

KV_FN const uint8_t *fmt_run(const struct kv_block *b, uint32_t channel)
{
	return (const uint8_t *)b->base + kc_at(b) + channel * fmt_run_bytes(b);
}

KV_FN vf fmt_run_load(const uint8_t *run, uint32_t row)
{
	return vf_load_u4_high(run, row);
}

KV_FN struct kv_rows fmt_k_rows(const struct kv_block *b, uint32_t row)
{
	size_t stride = fmt_k_stride(b->dim);

	return (struct kv_rows){ (const uint8_t *)b->base + row * stride, NULL, stride };
}

KV_FN struct kv_rows fmt_v_rows(const struct kv_block *b, uint32_t row)
{
	return fmt_k_rows(b, row);
}

KV_FN vf fmt_k_load(const struct kv_rows *rows, uint32_t at, uint32_t c)
{
	return vf_load_u4_high(rows->upper + at * rows->stride, c);
}

KV_FN vf fmt_v_load(const struct kv_rows *rows, uint32_t at, uint32_t c, unsigned level)
{
	return fmt_k_load(rows, at, c);
}

/* The byte is 16 high + low, and (low - 7.5) / 16 is less than a half: exact. */
KV_FN vf fmt_gather(const struct kv_block *b, uint32_t row, uint32_t channel)
{
	struct kv_rows rows = fmt_k_rows(b, row);
	vf byte = vf_gather_u8(rows.upper, rows.stride, channel / 2);
	vf high = vf_rint(vf_mul(vf_sub(byte, vf_set(7.5f)), vf_set(1.0f / 16)));

	return channel & 1 ? vf_fma(high, vf_set(-16), byte) : high;
}

#if KV_ISA_IS(avx512)
#include "kernels/fast/dense-group-axpy-avx512.h"
#include "kernels/fast/dense-group-dot-avx512.h"
#endif
#include "kernels/stamp.h"
