/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8: an unsigned byte an element, x = code * scale + min. A group is a
 * channel over the 128 rows of its tile (K) or a row over its channels (V).
 *
 * min is binary16 rounded down and scale = (max - min) / 255 rounded up, so that
 * nothing is clamped: an error is at most half a step, range / 510, and what
 * rounding the parameters adds to the step (2^-10 of it, and min's rounding).
 * Two-sided codes with a min, not symmetric ones: channels of K after RoPE have
 * offsets much larger than their range.
 *
 *   K   KE  [128 T][R(dim)]     codes, row by row; R(n) is n rounded up to 16
 *       KP  [dim][T] {scale, min}
 *       KC  [dim][128 T]        codes by channel, with KV_NEED_K_CHANNELS
 *   V   VE  [128 T][R(dim)]
 *       VP  [128 T] {scale, min}
 *
 * 2 dim + 4 dim / 128 + 4 bytes a row (264 for dim 128), and dim more for KC.
 */
#include "kernels/codec.h"
#include "kernels/stage/write.h"

#define FMT int8
#define FMT_LEVELS 1
#define FMT_PLAIN 0
#define FMT_GROUP 0
#define FMT_GATHERS 1
#define FMT_RUN_BITS 8
#define FMT_K_MAX_REL (1.01f / 510)
#define FMT_V_MAX_REL (1.01f / 510)
#define FMT_SCORE_REL (1.01f / 510)

#define TILE KV_TILE_ROWS

KV_FN size_t fmt_k_stride(uint32_t dim)
{
	return ALIGN_UP(dim, 16);
}

KV_FN size_t fmt_v_stride(uint32_t dim)
{
	return fmt_k_stride(dim);
}

/* KP and VP begin where the codes end. */
KV_FN size_t pairs_at(const struct kv_block *b)
{
	return (size_t)b->tiles * TILE * fmt_k_stride(b->dim);
}

KV_FN size_t kc_at(const struct kv_block *b)
{
	return kv_align_line(pairs_at(b) + (size_t)b->dim * b->tiles * sizeof(struct kv_pair));
}

static size_t fmt_k_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	struct kv_block b = { NULL, dim, (uint16_t)tiles, TILE, needs, NULL };

	return kc_at(&b) + (needs & KV_NEED_K_CHANNELS ? (size_t)dim * tiles * TILE : 0);
}

static size_t fmt_v_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	struct kv_block b = { NULL, dim, (uint16_t)tiles, TILE, 0, NULL };

	return pairs_at(&b) + (size_t)tiles * TILE * sizeof(struct kv_pair);
}

static unsigned fmt_k_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	unsigned n = 0;

	ret[n++] = (struct kv_plane){ 1, TILE * fmt_k_stride(dim) };
	ret[n++] = (struct kv_plane){ dim, sizeof(struct kv_pair) };
	if (needs & KV_NEED_K_CHANNELS)
		ret[n++] = (struct kv_plane){ dim, TILE };
	return n;
}

static unsigned fmt_v_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	ret[0] = (struct kv_plane){ 1, TILE * fmt_v_stride(dim) };
	ret[1] = (struct kv_plane){ 1, TILE * sizeof(struct kv_pair) };
	return 2;
}

KV_FN struct kv_pair *k_pair(const struct kv_block *b, uint32_t tile, uint32_t channel)
{
	return (struct kv_pair *)((uint8_t *)b->base + pairs_at(b)) + channel * b->tiles + tile;
}

#define k_row_pair k_pair

/* Channel by channel, the parameters of a tile are on many lines. */
KV_FN uint32_t fmt_pairs_of_line(const struct kv_block *b)
{
	uint32_t pairs = KV_LINE / sizeof(struct kv_pair);

	return MAX(1u, pairs / b->tiles);
}

KV_FN struct kv_pair *v_pair(const struct kv_block *b, uint32_t row)
{
	return (struct kv_pair *)((uint8_t *)b->base + pairs_at(b)) + row;
}

/* ---- writing ---------------------------------------------------------------- */

/* The least binary16 that is not below x, for x within its range. */
static inline uint16_t f16_up(float x)
{
	uint16_t h = kv_to_f16(x);

	if (kv_from_f16(h) >= x)
		return h;
	return h & 0x8000 ? h - 1 : h + 1;
}

static inline struct kv_pair fmt_pair(float min, float max)
{
	uint16_t low = f16_up(-kv_finite_f16(min)) ^ 0x8000;
	float step = (max - kv_from_f16(low)) / 255;

	if (!(step > 0))
		return (struct kv_pair){ 0, low };
	return (struct kv_pair){ f16_up(kv_finite_f16(step)), low };
}

KV_FN vf fmt_code(vf x, vf scale, vf min)
{
	vf steps = vf_div(vf_sub(x, min), scale);

	return vf_rint(vf_min(vf_max(steps, vf_set(0)), vf_set(255)));
}

/* KC of a tile from its codes. */
static void encode_runs(const struct kv_block *b, unsigned slot, const uint8_t *ke)
{
	size_t stride = fmt_k_stride(b->dim), run = (size_t)b->tiles * TILE;
	write_bytes x[16];

	for (uint32_t c = 0; c < b->dim; c += 16)
		for (uint32_t at = 0; at < TILE; at += 16) {
			uint8_t *to = (uint8_t *)b->base + kc_at(b) + c * run + slot * TILE + at;

			KV_EACH (i, 16)
				x[i] = write_load(ke + (at + i) * stride + c);
			write_turn(x);
			KV_EACH (i, 16)
				memcpy(to + i * run, &x[i], sizeof(x[i]));
		}
}

static void fmt_k_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	size_t stride = fmt_k_stride(b->dim);
	uint8_t *ke = (uint8_t *)b->base + slot * TILE * stride;
	struct kv_pair pair[VL];

	for (uint32_t c = 0; c < b->dim; c += VL) {
		write_columns(x + c, b->dim, TILE, ke + c, stride, pair);
		for (uint32_t j = 0; j < VL; j++)
			*k_pair(b, slot, c + j) = pair[j];
	}
	if (b->needs & KV_NEED_K_CHANNELS)
		encode_runs(b, slot, ke);
}

static void fmt_v_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	size_t stride = fmt_v_stride(b->dim);

	for (uint32_t i = slot * TILE; i < (slot + 1) * TILE; i++, x += b->dim)
		*v_pair(b, i) = write_row(x, b->dim, (uint8_t *)b->base + i * stride);
}

/* ---- reading ---------------------------------------------------------------- */

KV_FN bool fmt_runs(const struct kv_block *b)
{
	return b->needs & KV_NEED_K_CHANNELS;
}

KV_FN size_t fmt_run_bytes(const struct kv_block *b)
{
	return (size_t)b->tiles * TILE;
}

KV_FN const uint8_t *fmt_run(const struct kv_block *b, uint32_t channel)
{
	return (const uint8_t *)b->base + kc_at(b) + channel * fmt_run_bytes(b);
}

KV_FN vf fmt_run_load(const uint8_t *run, uint32_t row)
{
	return vf_load_u8(run + row);
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

	return (struct kv_rows){ (const uint8_t *)b->base + row * stride, NULL, stride };
}

KV_FN struct kv_rows fmt_v_rows(const struct kv_block *b, uint32_t row)
{
	return fmt_k_rows(b, row);
}

KV_FN vf fmt_k_load(const struct kv_rows *rows, uint32_t at, uint32_t c)
{
	return vf_load_u8(rows->upper + at * rows->stride + c);
}

KV_FN vf fmt_v_load(const struct kv_rows *rows, uint32_t at, uint32_t c, unsigned level)
{
	return fmt_k_load(rows, at, c);
}

KV_FN vf fmt_gather(const struct kv_block *b, uint32_t row, uint32_t channel)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	return vf_gather_u8(rows.upper, rows.stride, channel);
}

KV_FN void fmt_k_params(const struct kv_block *b, uint32_t tile, uint32_t c, vf *scale, vf *min)
{
	vf_gather_pair(k_pair(b, tile, c), b->tiles * sizeof(struct kv_pair), scale, min);
}

KV_FN void fmt_v_params(const struct kv_block *b, uint32_t row, unsigned level, float *scale,
			float *min)
{
	const struct kv_pair *pair = v_pair(b, row);

	*scale = vf_from_f16(pair->scale);
	*min = vf_from_f16(pair->min);
}

/* Pairs as they are stored, to scales and mins. */
KV_FN void fmt_v_steps(unsigned level, vf *scale, vf *min)
{
}

#if KV_ISA_IS(avx512)
#include "kernels/fast/dense-axpy-avx512.h"
#include "kernels/fast/dense-dot-avx512.h"
#elif KV_ISA_IS(avx2)
#include "kernels/fast/dense-axpy-avx2.h"
#elif KV_ISA_IS(dotprod)
#include "kernels/fast/dense-axpy-dotprod.h"
#include "kernels/fast/dense-dot-dotprod.h"
#endif
#include "kernels/stamp.h"
