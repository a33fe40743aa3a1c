/* SPDX-License-Identifier: Apache-2.0 */
/* What the stages read, by plane: padding counted, cache lines not. */
#pragma once

#include "kernels/codec.h"

/* Parameters are pairs of two bytes each: by channel and tile, or by row (and group). */
KV_FN uint64_t bytes_by_row(uint32_t dim, uint64_t rows)
{
#if FMT_GROUP
	return rows * DIV_UP(dim, FMT_GROUP) * 4;
#else
	return FMT_PLAIN ? 0 : rows * 4;
#endif
}

KV_FN uint64_t bytes_of_k(uint32_t dim, uint64_t rows, uint64_t tiles, uint32_t channels)
{
	return FMT_GROUP ? bytes_by_row(dim, rows) : FMT_PLAIN ? 0 : tiles * channels * 4;
}

static void stage_bytes_score(uint32_t dim, uint64_t rows, uint64_t tiles, uint32_t r,
			      uint64_t ret_planes[])
{
	ret_planes[KV_PLANE_SCORE] += rows * r * FMT_RUN_BITS / 8;
	ret_planes[KV_PLANE_PARAMETERS] += bytes_of_k(dim, rows, tiles, r);
}

static void stage_bytes_k(uint32_t dim, uint64_t rows, uint64_t tiles, unsigned level,
			  uint64_t ret_planes[])
{
	if (FMT_LEVELS > 1 && level) {
		stage_bytes_score(dim, rows, tiles, dim, ret_planes);
		return;
	}
	ret_planes[KV_PLANE_K] += rows * fmt_k_stride(dim);
	ret_planes[KV_PLANE_PARAMETERS] += bytes_of_k(dim, rows, tiles, dim);
}

static void stage_bytes_v(uint32_t dim, uint64_t rows, uint64_t tiles, unsigned level,
			  uint64_t ret_planes[])
{
	ret_planes[KV_PLANE_V_UPPER] += rows * fmt_v_stride(dim);
	if (FMT_LEVELS > 1 && !level)
		ret_planes[KV_PLANE_V_LOWER] += rows * fmt_v_stride(dim);
	ret_planes[KV_PLANE_PARAMETERS] += bytes_by_row(dim, rows);
}
