/* SPDX-License-Identifier: Apache-2.0 */
/* Rows back to f32, and asking the memory for them. */
#pragma once

#include "kernels/codec.h"

#if FMT_GROUP
/* K and V are laid out alike: rows [row, row + n) of the block, of which `rows` are the codes. */
KV_FN void read_groups(const struct kv_block *b, const struct kv_rows *rows, uint32_t row,
		       uint32_t n, float *x)
{
	for (uint32_t i = 0; i < n; i++, x += b->dim)
		for (uint32_t from = 0; from < b->dim; from += FMT_GROUP) {
			const struct kv_pair *pair = fmt_group_pair(b, row + i, from / FMT_GROUP);
			vf scale = vf_set(vf_from_f16(pair->scale));
			vf min = vf_set(vf_from_f16(pair->min));
			uint32_t end = MIN(from + FMT_GROUP, b->dim);

			for (uint32_t c = from; c < end; c += VL)
				vf_store(x + c, vf_fma(fmt_k_load(rows, i, c), scale, min));
		}
}

static void stage_k_read(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	read_groups(b, &rows, row, n, x);
}

KV_FN void read_v(const struct kv_block *b, uint32_t row, uint32_t n, unsigned level, float *x)
{
	struct kv_rows rows = fmt_v_rows(b, row);

	read_groups(b, &rows, row, n, x);
}
#elif FMT_PLAIN
static void stage_k_read(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	for (uint32_t i = 0; i < n; i++, x += b->dim)
		for (uint32_t c = 0; c < b->dim; c += VL)
			vf_store(x + c, fmt_k_load(&rows, i, c));
}
#else
/* Rows of one tile: a channel's parameters, which lie apart, serve all of them. */
KV_FN void read_tile(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	for (uint32_t c = 0; c < b->dim; c += VL) {
		vf scale, min;

		fmt_k_params(b, row / b->tile_rows, c, &scale, &min);
		for (uint32_t i = 0; i < n; i++)
			vf_store(x + (size_t)i * b->dim + c,
				 vf_fma(fmt_k_load(&rows, i, c), scale, min));
	}
}

static void stage_k_read(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	while (n) {
		uint32_t m = MIN(n, (row / b->tile_rows + 1) * b->tile_rows - row);

		read_tile(b, row, m, x);
		row += m;
		n -= m;
		x += (size_t)m * b->dim;
	}
}
#endif

#if !FMT_GROUP
KV_FN void read_v(const struct kv_block *b, uint32_t row, uint32_t n, unsigned level, float *x)
{
	struct kv_rows rows = fmt_v_rows(b, row);

	for (uint32_t i = 0; i < n; i++) {
#if !FMT_PLAIN
		float scale, min;

		fmt_v_params(b, row + i, level, &scale, &min);
#endif
		for (uint32_t c = 0; c < b->dim; c += VL) {
			vf v = fmt_v_load(&rows, i, c, level);
#if !FMT_PLAIN
			v = vf_fma(v, vf_set(scale), vf_set(min));
#endif
			vf_store(x + (size_t)i * b->dim + c, v);
		}
	}
}

#endif

static void stage_v_read(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	read_v(b, row, n, 0, x);
}

KV_FN void prefetch_row(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += KV_LINE)
		__builtin_prefetch(p + i);
}

#if FMT_GROUP
KV_FN void prefetch_groups(const struct kv_block *b, uint32_t row)
{
	for (uint32_t c = 0; c < b->dim; c += FMT_GROUP)
		__builtin_prefetch(fmt_group_pair(b, row, c / FMT_GROUP));
}
#endif

static void stage_k_prefetch(const struct kv_block *b, uint32_t row)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	prefetch_row(rows.upper, rows.stride);
#if FMT_GROUP
	prefetch_groups(b, row);
#elif !FMT_PLAIN
	for (uint32_t c = 0; c < b->dim; c += fmt_pairs_of_line(b))
		__builtin_prefetch(k_row_pair(b, row / b->tile_rows, c));
#endif
}

static void stage_v_prefetch(const struct kv_block *b, uint32_t row)
{
	struct kv_rows rows = fmt_v_rows(b, row);

	prefetch_row(rows.upper, rows.stride);
	if (rows.lower)
		prefetch_row(rows.lower, rows.stride);
#if FMT_GROUP
	prefetch_groups(b, row);
#endif
}
