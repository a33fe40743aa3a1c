/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a row of the kernel table of the codec that was defined above it: the
 * last line of every format file.
 */
#include "kernels/stage/axpy.h"
#include "kernels/stage/bytes.h"
#include "kernels/stage/dot.h"
#include "kernels/stage/group.h"
#include "kernels/stage/read.h"
#include "kernels/stage/scan.h"

/* A format may bring faster ones for some ISA: kernels/fast/. */
#ifndef FMT_SCORE_DIMS
#define FMT_SCORE_DIMS stage_k_score_dims
#endif
#ifndef FMT_SCORE_SOFTMAX
#define FMT_SCORE_SOFTMAX NULL
#endif
#ifndef FMT_SCORE_RANK
#define FMT_SCORE_RANK NULL
#endif
#if FMT_GROUP && !defined(FMT_K_DOT)
#define FMT_K_DOT group_k_dot
#define FMT_V_AXPY group_v_axpy
#endif
#ifndef FMT_K_DOT
#define FMT_K_DOT stage_k_dot
#endif
#ifndef FMT_V_AXPY
#define FMT_V_AXPY stage_v_axpy
#endif

extern const struct kv_kernels KV_PASTE3(kv_kernels_, FMT, KV_ISA);
const struct kv_kernels KV_PASTE3(kv_kernels_, FMT, KV_ISA) = {
	.format = KV_STRING(FMT),
	.isa = KV_STRING(KV_ISA),
	.levels = FMT_LEVELS,
	.plain = FMT_PLAIN,
	.group = FMT_GROUP,
	.k_max_rel = FMT_K_MAX_REL,
	.v_max_rel = FMT_V_MAX_REL,
	.score_max_rel = FMT_SCORE_REL,
	.k_bytes = fmt_k_bytes,
	.v_bytes = fmt_v_bytes,
	.k_planes = fmt_k_planes,
	.v_planes = fmt_v_planes,
	.k_write = fmt_k_encode,
	.v_write = fmt_v_encode,
	.k_score_dims = FMT_SCORE_DIMS,
	.k_score_softmax = FMT_SCORE_SOFTMAX,
	.k_score_rank = FMT_SCORE_RANK,
	.k_dot = FMT_K_DOT,
	.v_axpy = FMT_V_AXPY,
	.k_read = stage_k_read,
	.v_read = stage_v_read,
	.k_prefetch = stage_k_prefetch,
	.v_prefetch = stage_v_prefetch,
	.bytes_score = stage_bytes_score,
	.bytes_k = stage_bytes_k,
	.bytes_v = stage_bytes_v,
};
