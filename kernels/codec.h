/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a format file includes: the vocabulary of the ISA it is compiled for,
 * and the contract of a codec. It defines the names below as KV_FN functions
 * and macros and includes stamp.h, which makes a row of the kernel table of
 * them. Stages never see bytes, codecs never see a stage.
 *
 *   FMT             the name, as a word
 *   FMT_LEVELS      2: the upper planes can be read alone (level 1); else 1
 *   FMT_PLAIN       1: numbers as they are; 0: x = scale * code + min
 *   FMT_GROUP       0: a group of K is a channel over a tile, one of V a row; n: of both, n
 *                   channels of a row, where what the last one lacks counts as zeros
 *   FMT_K_MAX_REL   error bound of an element, as part of its group's range
 *   FMT_V_MAX_REL
 *   FMT_SCORE_REL   the same of what k_score_dims reads
 *   FMT_GATHERS     1: where there are no runs, fmt_gather reads rows; 0: there are always runs
 *   FMT_RUN_BITS    bits of a code that k_score_dims reads
 *
 *   fmt_k_bytes, fmt_v_bytes(dim, tiles, tile_rows, needs)      a block, a multiple of 64
 *   fmt_k_planes, fmt_v_planes(dim, needs, ret)                 what it is made of
 *   fmt_k_stride, fmt_v_stride(dim)                             bytes of a row of a row-major plane
 *   fmt_k_encode, fmt_v_encode(block, slot, x)                  one tile
 *   fmt_k_rows, fmt_v_rows(block, row)                          where rows lie
 *   fmt_k_load(rows, at, c)                                     VL codes of row `at` from channel c
 *   fmt_v_load(rows, at, c, level)
 *   fmt_runs(block)                                             scoring reads runs, not rows
 *   fmt_run(block, channel), fmt_run_bytes(block)               one channel over the block
 *   fmt_run_load(run, row)                                      VL codes of it
 *   fmt_gather(block, row, channel)                             the same where there are no runs
 * and, with FMT_GROUP:
 *   fmt_group_pair(block, row, group)                           parameters of K or V, row by row
 * or, if not plain:
 *   k_pair(block, tile, channel)                                where a scan finds K's parameters
 *   k_row_pair(block, tile, channel), fmt_pairs_of_line(block)  where a row does; how many a line
 *   fmt_k_params(block, tile, c, &scale, &min)                  of VL channels
 *   fmt_run_params(block, tile, channel, &scale, &min)          of one, for codes of fmt_run_load
 *   fmt_v_params(block, row, level, &scale, &min)
 */
#pragma once

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/table.h"
#include "shm/base.h"

#define KV_STRING_(x) #x
#define KV_STRING(x) KV_STRING_(x)
#define KV_PASTE_(a, b) a##b
#define KV_PASTE(a, b) KV_PASTE_(a, b)
#define KV_PASTE3_(a, b, c) a##b##_##c
#define KV_PASTE3(a, b, c) KV_PASTE3_(a, b, c)

/* The build gives KV_ISA, a word (scalar, avx2, ...), and KV_VEC, its header. */
#include KV_VEC

/* #if KV_ISA_IS(avx512): for the fast path of one ISA, in kernels/fast/ */
#define KV_ISA_NUMBER_scalar 1
#define KV_ISA_NUMBER_avx2 2
#define KV_ISA_NUMBER_avx512 3
#define KV_ISA_NUMBER_neon 4
#define KV_ISA_NUMBER_dotprod 5
#define KV_ISA_IS(isa) (KV_PASTE(KV_ISA_NUMBER_, KV_ISA) == KV_ISA_NUMBER_##isa)

#define KV_FN static inline __attribute__((always_inline))
/* A loop whose length the compiler knows: arrays indexed by it become registers. */
#define KV_EACH(i, n) _Pragma("GCC unroll 16") for (unsigned i = 0; i < (n); i++)
#define KV_LINE 64

/* Rows of one plane, or of an upper and a lower plane of equal shape. */
struct kv_rows {
	const uint8_t *upper, *lower;
	size_t stride;
};

static inline uint32_t kv_block_rows(const struct kv_block *b)
{
	return (uint32_t)b->tiles * b->tile_rows;
}

static inline size_t kv_align_line(size_t n)
{
	return ALIGN_UP(n, KV_LINE);
}
