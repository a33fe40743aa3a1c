/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table: one row per (format, ISA), one pointer per stage, and one
 * row per ISA for the stages that read only floats.
 *
 * A row's K half and V half are used separately, so that K and V may have
 * different formats. stamp.h fills a row from a codec; registry.c (generated
 * lists) and cpu.c choose it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* K by component too, for score_dims over formats without a scoring plane */
#define KV_NEED_K_CHANNELS (1u << 0)

/* One half (K or V) of one KV head's block: an extent of tiles, or a chunk of plain rows. */
struct kv_block {
	void *base;         /* 64-byte aligned */
	uint32_t dim;
	uint16_t tiles;     /* slots: decides strides of channel-major planes */
	uint16_t tile_rows; /* KV_TILE_ROWS; chunks: 64 or 16, plain formats only */
	uint32_t needs;     /* KV_NEED_* the block was laid out with */
	const void *next;   /* base of the block, laid out alike, that the same stage gets after
			     * this one (k_score_dims with the same channels): asked for
			     * meanwhile. NULL: none */
};

/* A plane of a block of T tiles: `runs` runs, one after the other, and in each T times `bytes`,
 * tile by tile. So a tile is the same bytes in every block, at other places. */
struct kv_plane {
	uint32_t runs;
	size_t bytes;
};
#define KV_MAX_PLANES 4u /* of a half */

/* What k_score_rank makes of the scores of k_score_dims. A row's rank is the sum over the heads of
 * exp(score - ref). Exponentials: relative error at most KV_RANK_EXP_REL; those below 2^-126 count
 * as that, and any beyond 2^126 or that are no number make the sum of their head larger than
 * KV_REF_TOO_LOW or no number. */
struct kv_rank {
	const float *ref; /* [heads] */
	float *sum;       /* [heads]: of exp(score - ref) */
	float *max;       /* [n / KV_GROUP_ROWS]: the largest rank of each group of rows */
	/* The scores of groups whose largest reaches `likely`, in their order, as long as there is
	 * room. */
	float likely;
	uint32_t room, n;
	float *aside;    /* [room][heads][KV_GROUP_ROWS] */
	uint16_t *group; /* [room]: which */
};
#define KV_RANK_HEADS 16u
#define KV_RANK_EXP_REL 1e-4f

/* Rows are addressed by their place in the block: slot * tile_rows + row within the tile. A call
 * on [row, row + n) may span tiles. All float arrays are f32; `stride`s count floats. */
struct kv_kernels {
	const char *format, *isa;
	unsigned levels;     /* 2: has an upper plane that can be read alone (level 1) */
	bool plain;          /* rows of a dtype as they are: usable for chunks */
	unsigned group;      /* 0: K is quantised by channel over a tile, V by row; n: both by n
			      * channels of a row, the last group filled up with zeros */
	/* Largest error of an element, as part of its group's range. If codes, k_dot may round
	 * coefficients and v_axpy weights as well: by up to 2^-16 a channel (row) of the largest
	 * |q| * range of a head in a tile (|p| * range in 64 rows counted from the first). */
	float k_max_rel, v_max_rel;
	float score_max_rel;        /* the same of what k_score_dims and level 1 read. If codes,
				     * they may round more coarsely: by up to 1/16 of this of
				     * the largest |coef| * range of a head */

	size_t (*k_bytes)(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs);
	size_t (*v_bytes)(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs);

	/* The planes of such a block, tiles of KV_TILE_ROWS rows; they follow each other without a
	 * gap. How many there are. */
	unsigned (*k_planes)(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES]);
	unsigned (*v_planes)(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES]);

	/* Encodes one whole tile from x[tile_rows][dim]; nothing outside its slot is written. */
	void (*k_write)(const struct kv_block *b, unsigned slot, const float *x);
	void (*v_write)(const struct kv_block *b, unsigned slot, const float *x);

	/* a[h][i] = sum over j < r of coef[h][j] * K[row + i][channel[j]], from the scoring plane.
	 * channel ascending. coef_stride, a_stride in floats. */
	void (*k_score_dims)(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			     size_t coef_stride, const uint16_t *channel, uint32_t r,
			     uint32_t heads, float *a, size_t a_stride);

	void (*k_score_softmax)(const struct kv_block *b, uint32_t row, uint32_t n,
				const float *coef, size_t coef_stride, const uint16_t *channel,
				uint32_t r, uint32_t heads, float *a, size_t a_stride,
				const float *ref, float *ret_sum, float *ret_c);
	/* Scores that are used up at once (struct kv_rank): whole tiles, at most KV_RANK_HEADS.
	 * NULL: has none. */
	void (*k_score_rank)(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			     size_t coef_stride, const uint16_t *channel, uint32_t r,
			     uint32_t heads, struct kv_rank *rank);
	/* p[h][i] = q[h] . K[row + i] */
	void (*k_dot)(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
		      size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level);
	/* y[h] += sum over i of p[h][i] * V[row + i] */
	void (*v_axpy)(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
		       size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level);
	/* Decodes rows to f32 x[n][dim]. */
	void (*k_read)(const struct kv_block *b, uint32_t row, uint32_t n, float *x);
	void (*v_read)(const struct kv_block *b, uint32_t row, uint32_t n, float *x);
	/* Asks the memory for the lines of a row, far ahead of its use. */
	void (*k_prefetch)(const struct kv_block *b, uint32_t row);
	void (*v_prefetch)(const struct kv_block *b, uint32_t row);

	/* Bytes that the calls above read (sparq-formats(7): padding counts, lines do not), added
	 * to ret_planes[KV_PLANES]: `rows` rows out of `tiles` different tiles. */
	void (*bytes_score)(uint32_t dim, uint64_t rows, uint64_t tiles, uint32_t r,
			    uint64_t ret_planes[]);
	void (*bytes_k)(uint32_t dim, uint64_t rows, uint64_t tiles, unsigned level,
			uint64_t ret_planes[]);
	void (*bytes_v)(uint32_t dim, uint64_t rows, uint64_t tiles, unsigned level,
			uint64_t ret_planes[]);
};

/* Heads that attend to the same rows side by side. Sizes count heads in multiples of KV_LANES,
 * all on 64 bytes; the order within is the ISA's own. */
#define KV_LANES 32u
#define KV_LANES_ROWS 64u
struct kv_lanes {
	uint32_t heads, k_dim, v_dim;
	float *q, *y;     /* [heads][dim] */
	float *max, *sum; /* [heads] */
};

/* Stages that read floats, compiled once per ISA. */
struct kv_ops {
	const char *isa;
	/* Largest a[i] and sum of exp(a[i] - max); n = 0: -inf and 0. The fast exponential of the
	 * scores: relative error at most KV_FAST_EXP_REL. */
	void (*max_expsum)(const float *a, uint32_t n, float *ret_max, float *ret_sum);
	/* One pass over the scores of all heads: ret_sum[h] = sum of exp(a[h][i] - ref[h]), c[i] =
	 * the same summed over h. The fast exponential; NaN is 0. A sum beyond KV_REF_TOO_LOW, or
	 * that is no number, says that exponents were cut off. */
	void (*softmax_sum)(const float *a, size_t stride, uint32_t heads, const float *ref,
			    uint32_t n, float *ret_sum, float *c);
	/* The largest of each KV_GROUP_ROWS numbers, the last group may be shorter; -inf if there
	 * is none. */
	void (*maxima)(const float *c, uint32_t n, float *ret_max);
	/* c[i] += a[i]; `first`: c[i] = : the group rule "logits" */
	void (*add)(const float *a, uint32_t n, bool first, float *c);
	/* The k largest of c[0..n): their indices, ascending; ties to the lower index; NaN is never
	 * chosen before a number. How many (min(k, n)). `least`: that k of them are at least that
	 * is likely, and makes it faster; -inf: nothing is known. `tmp`: n / 64 + 2 k + 64
	 * words. */
	uint32_t (*topk)(const float *c, uint32_t n, uint32_t k, float least, uint32_t *ret_index,
			 void *tmp);
	/* One block of flash softmax for one query head: p[i] (logits in, accurate exponentials
	 * out), m and l its running maximum and sum, y its running row (dim floats), rescaled if m
	 * moves. */
	void (*softmax_block)(float *p, uint32_t n, float *m, float *l, float *y, uint32_t dim);
	/* (y, lse) <- merge of (y, lse) and (other, other_lse), normalised rows, natural lse. */
	void (*merge)(float *y, float *lse, const float *other, float other_lse, uint32_t dim);
	/* y = a * y + b * x */
	void (*blend)(float *y, float a, const float *x, float b, uint32_t dim);
	/* a[h][i] += sum over j < n of coef[h][j] * column[which[j] * stride + i], of binary16 and
	 * at most KV_MAX_OUTLIERS; n ascending, one row like another wherever it stands. */
	void (*add_columns)(const uint16_t *column, size_t stride, const uint16_t *which,
			    uint32_t n, const float *coef, size_t coef_stride, uint32_t heads,
			    uint32_t rows, float *a, size_t a_stride);
	/* sum[c] += x[i][c] in double precision, row by row; dim a multiple of 16. */
	void (*add_rows)(const float *x, uint32_t n, uint32_t dim, double *sum);
	/* Empty, and without queries. */
	void (*lanes_begin)(const struct kv_lanes *l);
	void (*lanes_query)(const struct kv_lanes *l, uint32_t head, const float *q);
	/* Flash softmax of all heads over n <= KV_LANES_ROWS rows, k[n][k_dim] and v[n][v_dim]; NaN
	 * weighs 0. below[h], ascending: how many of the rows head h sees, the others may hold
	 * anything; NULL: all see all. */
	void (*lanes_rows)(const struct kv_lanes *l, const float *k, const float *v, uint32_t n,
			   const uint32_t *below);
	/* y[heads][v_dim], normalised; lse: natural, -inf for nothing seen. */
	void (*lanes_end)(const struct kv_lanes *l, float *ret_y, float *ret_lse);
	void (*to_f32)(unsigned dtype, const void *from, float *to, size_t n);
	void (*from_f32)(unsigned dtype, const float *from, void *to, size_t n);
};
#define KV_FAST_EXP_REL 1e-5f
#define KV_REF_TOO_LOW 0x1p100f
#define KV_GROUP_ROWS 64u /* whose maximum stands for them in a selection */

/* By name and the ISA in use (cpu.h); NULL: no such format. */
const struct kv_kernels *kv_kernels_find(const char *format);
const struct kv_ops *kv_ops_find(void);
/* Every row built in, for tests and benchmarks, whatever the mask; NULL ends. */
const struct kv_kernels *kv_kernels_at(unsigned i);
const struct kv_ops *kv_ops_at(unsigned i);
