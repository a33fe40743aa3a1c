/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the GPU's kernels are given: one block of memory that the host fills
 * (batch.h) and every kernel of a batch gets the address of. Read by host and
 * device code.
 *
 * Rows are addressed by unit: the sinks, up to two tiles of one extent that follow each other, or
 * a chunk of the tail. A warp scores a unit; a share of an attention is a few of them. So no kernel
 * searches for a row: an entry of a selection is unit * KV_CUDA_UNIT_ROWS + row in the unit.
 */
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define KV_CUDA_FN static __host__ __device__ inline
#else
#define KV_CUDA_FN static inline
#endif

#define KV_CUDA_THREADS 128u /* of every block */
#define KV_CUDA_WARPS 4u
#define KV_CUDA_UNIT_ROWS 256u
#define KV_CUDA_GROUP_ROWS 64u /* whose best stand for them in a selection */
#define KV_CUDA_UNIT_GROUPS (KV_CUDA_UNIT_ROWS / KV_CUDA_GROUP_ROWS)
#define KV_CUDA_HEADS 16u       /* that one block attends for: four a warp */
#define KV_CUDA_SCORE_HEADS 64u /* whose coefficients a block has at once */
#define KV_CUDA_MAX_SHARES 512u
#define KV_CUDA_RUNS 6u            /* each of one kind of rows */
#define KV_CUDA_SHARED (96u << 10) /* bytes of shared memory that a block may have */
#define KV_CUDA_NONE UINT32_MAX

enum kv_cuda_format {
	KV_CUDA_F32,
	KV_CUDA_F16,
	KV_CUDA_BF16,
	KV_CUDA_INT8,
	KV_CUDA_INT4,
	KV_CUDA_HIER4,
	KV_CUDA_FORMATS
};

enum kv_cuda_mean { KV_CUDA_MEAN_OFF, KV_CUDA_MEAN_ALL, KV_CUDA_MEAN_REST }; /* as kv_mean */

/* K or V of a format. Plane i of a block of T tiles begins at T * plane[i] (kv_plane in table.h).
 */
struct kv_cuda_half {
	uint32_t format;
	uint32_t stride; /* bytes of a row where rows follow each other */
	uint32_t plane[4];
};

struct kv_cuda_space {
	uint32_t heads, kv_heads, group, dim;
	float scale;
	uint32_t channels; /* K by channel, for scores, is plane so many; NONE: there is none */
	struct kv_cuda_half k, v, sent;
};

/* One KV head's part of a page. */
struct kv_cuda_layout {
	uint32_t tiles, v, sums, outliers, bytes, rsv; /* as kv_layout has them */
};

struct kv_cuda_block { /* a page: an extent, or rows as sent */
	uint32_t
		address; /* the first of as many as the item's pages have parts; of one, if whole */
	uint16_t layout;
	uint8_t sent, parted;
	uint32_t correction; /* the first of [kv_heads][dim] doubles, or NONE */
};

struct kv_cuda_unit {
	uint32_t first_row, block;
	uint32_t at;       /* place of its first row in the block */
	uint16_t rows;     /* that count */
	uint16_t from, to; /* without scores: those that are attended to */
	uint16_t rsv;
};

struct kv_cuda_table { /* kv_channels of a KV head */
	uint32_t some, n_outliers;
	uint8_t k[256], v[256];
};

struct kv_cuda_run {
	uint32_t first, n;
	uint32_t sent; /* all of them are rows as sent, or none is */
	uint32_t at;   /* place of the first in the list of such rows */
};

/* A tile to be made of the oldest rows of a tail: an item that sees the rows up to its end, with
 * first_limit at its first row; visible, view's rows and what of it is not said here are not used.
 */
struct kv_cuda_flush_to {
	uint32_t block, slot; /* of the extent that gets it, which need not be in a unit */
};

struct kv_cuda_item {
	uint32_t space, n_q, heads; /* heads of a KV head: n_q * group */
	uint32_t sums;              /* n_q if the sum of the selected V is wanted, else 0 */
	uint32_t level;
	uint32_t rows, visible, first_limit, full; /* of the view; to the last query */
	uint32_t parts;                            /* of pages that are parted */
	uint32_t q;     /* the first of [n_q][heads of the space][dim] floats */
	uint32_t table; /* of KV head 0, or NONE */
	uint32_t units, n_units;
	uint32_t counters; /* [kv_heads][kv_cuda_counters()] */
	/* attention */
	uint32_t by_list;             /* over a list of rows that the scores made */
	uint32_t shares, share_units; /* or stages of the list */
	/* scores */
	uint32_t r, k, rank_first, rank_end;
	uint32_t exact;         /* by all channels, as attention reads them; r is the dimension */
	uint32_t softmax, mean; /* rank by the sum of softmax; enum kv_mean */
	uint32_t score_parts, part_units;
	uint32_t choose_parts; /* blocks of a launch for the choice; 0: it is the scores' last's */
	uint32_t n_runs, fixed, fixed_sent; /* rows chosen anyway, in runs; so many as sent */
	struct kv_cuda_run run[KV_CUDA_RUNS];
	uint64_t partial, state;             /* of KV head 0, from the scratch's beginning */
	uint64_t partial_bytes, state_bytes; /* from KV head to KV head */
	uint64_t output, output_bytes;
	struct kv_cuda_flush_to flush; /* of a flush: else not used */
};

struct kv_cuda_params {
	uint64_t scratch, output; /* device addresses */
	uint32_t n_items, rsv;
	/* from the beginning of this, bytes */
	uint32_t spaces, items, layouts, blocks, addresses, units, tables, q, corrections, counters;
};

/* Blocks that a share's heads, and the sums beside them, take. */
KV_CUDA_FN uint32_t kv_cuda_head_blocks(const struct kv_cuda_item *x)
{
	return (x->heads + x->sums + KV_CUDA_HEADS - 1) / KV_CUDA_HEADS;
}

/* Who was there: of the scores, of the choice, and of each block of heads of the attention. */
enum { KV_CUDA_COUNT_SCORES, KV_CUDA_COUNT_CHOICE, KV_CUDA_COUNT_ATTEND };
KV_CUDA_FN uint32_t kv_cuda_counters(const struct kv_cuda_item *x)
{
	return KV_CUDA_COUNT_ATTEND + kv_cuda_head_blocks(x);
}

/* What a KV head's output begins with; lse[heads] and y[heads][dim] follow at their places. */
struct kv_cuda_said {
	double alpha_sum;
	float alpha_min;
	uint32_t n_selected;
	uint32_t sealed, tiles; /* of the selected rows; different tiles that hold them */
	uint32_t outliers;      /* of the channels that were scored */
	uint32_t rsv;
};
KV_CUDA_FN uint32_t kv_cuda_lse_at(void)
{
	return sizeof(struct kv_cuda_said);
}
KV_CUDA_FN uint32_t kv_cuda_y_at(uint32_t heads)
{
	return (kv_cuda_lse_at() + heads * (uint32_t)sizeof(float) + 63) / 64 * 64;
}

/* ---- shared memory of an attention -------------------------------------------------- */

/* Lanes that have 8 channels of a row each; what is left of 32 takes other rows. */
KV_CUDA_FN uint32_t kv_cuda_lanes(uint32_t dim)
{
	return dim <= 64 ? 8 : dim <= 128 ? 16 : 32;
}

struct kv_cuda_row {   /* of a stage */
	uint64_t base; /* of its block, this KV head's part; device address */
	uint32_t v, outliers, tiles;
	uint32_t at;  /* place in the block */
	uint32_t row; /* number; NONE: nothing is there */
	uint32_t rsv;
};

struct kv_cuda_stage {
	uint32_t rows, n; /* rows of one; stages in flight and at work */
	uint32_t k_pitch, v_pitch;
	uint32_t v_at, k_pairs, v_pairs, bytes;         /* in a stage */
	uint32_t q_at, rows_at, p_at, stages_at, total; /* in shared memory */
};

KV_CUDA_FN uint32_t kv_cuda_most(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

KV_CUDA_FN struct kv_cuda_stage kv_cuda_stage_of(const struct kv_cuda_space *s, uint32_t by_list,
						 uint32_t budget)
{
	struct kv_cuda_stage x;
	uint32_t v = s->v.format == KV_CUDA_HIER4 ? 2 * s->v.stride : s->v.stride;
	uint32_t room;

	x.rows = 512 / kv_cuda_lanes(s->dim);
	x.k_pitch = kv_cuda_most(s->k.stride, s->sent.stride);
	x.v_pitch = kv_cuda_most(v, s->sent.stride);
	x.v_at = x.rows * x.k_pitch;
	x.v_pairs = x.v_at + x.rows * x.v_pitch; /* up to four pairs a row */
	x.k_pairs = x.v_pairs + x.rows * 16;     /* so for K, or a pair a channel */
	x.bytes = x.k_pairs + kv_cuda_most(x.rows * 16, (by_list ? x.rows : 1) * s->dim * 4);
	x.q_at = 0;
	x.p_at = KV_CUDA_HEADS * s->dim * 4;
	x.rows_at = x.p_at + KV_CUDA_WARPS * 64 * 4;
	room = budget - x.rows_at - 3 * x.rows * (uint32_t)sizeof(struct kv_cuda_row);
	x.n = room / x.bytes < 3 ? 2 : 3;
	x.stages_at = x.rows_at + (x.n + 1) * x.rows * (uint32_t)sizeof(struct kv_cuda_row);
	x.total = x.stages_at + x.n * x.bytes;
	return x;
}

/* ---- shared memory of the scores ---------------------------------------------------- */

struct kv_cuda_scoring { /* bytes from the beginning */
	uint32_t coef, place, chosen, total, codes, code_bytes, more, bytes;
};

/* coef[heads][r], of at most SCORE_HEADS, place[r], total[dim]; of each warp, of both tiles of its
 * unit, rounded coefficients in fours of channels and heads. */
KV_CUDA_FN struct kv_cuda_scoring kv_cuda_scoring_of(uint32_t heads, uint32_t r, uint32_t dim)
{
	struct kv_cuda_scoring s;
	uint32_t quads = (r + 3) / 4;

	heads = heads < KV_CUDA_SCORE_HEADS ? heads : KV_CUDA_SCORE_HEADS;
	s.coef = 0;
	s.place = s.coef + (heads * r * 4 + 15) / 16 * 16;
	s.chosen = s.place + (r * 4 + 15) / 16 * 16;
	s.total = s.chosen + 64;
	s.codes = s.total + dim * 4;
	s.code_bytes = 2 * (quads * 16 + 16); /* of a warp: of four heads at a time */
	s.more = s.codes + KV_CUDA_WARPS * s.code_bytes;
	s.bytes = s.more + 2048;
	return s;
}

KV_CUDA_FN uint32_t kv_cuda_score_shared(const struct kv_cuda_item *x, uint32_t dim)
{
	return kv_cuda_scoring_of(x->heads, x->r, dim).bytes;
}

/* ---- scratch of one KV head whose rows are scored -------------------------------------- */

struct kv_cuda_state {
	/* bytes from its beginning */
	uint64_t ref;   /* float [units][heads][2]: largest score, sum of exp(score - that) */
	uint64_t top;   /* float [groups][heads]: largest score of a ranked row */
	uint64_t best;  /* float [groups][heads]: scores of one with a high rank */
	uint64_t rank;  /* float [groups]: the largest sum of scores, where those rank */
	uint64_t fixed; /* float [heads][fixed]: scores of the rows chosen anyway */
	uint64_t alpha; /* float [heads] */
	uint64_t lse;   /* float [heads]: of the scores */
	uint64_t bound; /* int32_t [2]: the key that k rows reach for sure; near units */
	uint64_t upper; /* int32_t [groups]: keys of bounds */
	uint64_t lower;
	uint64_t
		near_at; /* uint32_t [units]: unit * 16 + groups of it that may have a chosen row */
	uint64_t found;  /* uint32_t [units]: rows of a near unit that are candidates, ... */
	uint64_t start;  /* ... and how many there are before it */
	uint64_t scores; /* float [units][heads][256]: of near units */
	uint64_t key[2]; /* int32_t [units][256]: of candidates, by unit and then packed */
	uint64_t row[2]; /* uint32_t [units][256]: near unit * 256 + row in it */
	uint64_t chosen; /* uint32_t [k]: the same of those that were */
	uint64_t list[2]; /* uint32_t: selected rows: of tiles, as sent */
	uint64_t n;       /* uint32_t [2]: lengths of both lists */
	uint64_t tiles;   /* uint32_t: a bit a tile */
	uint64_t below;   /* uint32_t [n_q]: selected rows that a query sees */
	uint64_t sum;     /* double [n_q][dim]: of V, of all rows that a query sees */
	uint64_t bytes;
};

KV_CUDA_FN uint64_t kv_cuda_take(uint64_t *used, uint64_t n)
{
	uint64_t at = *used;

	*used += (n + 63) / 64 * 64;
	return at;
}

KV_CUDA_FN struct kv_cuda_state kv_cuda_state_of(const struct kv_cuda_item *x, uint32_t dim)
{
	uint64_t units = x->n_units, groups = units * KV_CUDA_UNIT_GROUPS, used = 0;
	uint64_t most = (uint64_t)x->k + x->fixed, rows = units * KV_CUDA_UNIT_ROWS;
	struct kv_cuda_state s;

	s.ref = kv_cuda_take(&used, units * x->heads * 8);
	s.top = kv_cuda_take(&used, groups * x->heads * 4);
	s.best = kv_cuda_take(&used, groups * x->heads * 4);
	s.rank = kv_cuda_take(&used, groups * 4);
	s.fixed = kv_cuda_take(&used, (uint64_t)x->heads * x->fixed * 4);
	s.alpha = kv_cuda_take(&used, x->heads * 4);
	s.lse = kv_cuda_take(&used, x->heads * 4);
	s.bound = kv_cuda_take(&used, 8);
	s.upper = kv_cuda_take(&used, groups * 4);
	s.lower = kv_cuda_take(&used, groups * 4);
	s.near_at = kv_cuda_take(&used, units * 4);
	s.found = kv_cuda_take(&used, units * 4);
	s.start = kv_cuda_take(&used, units * 4);
	s.scores = kv_cuda_take(&used, rows * x->heads * 4);
	s.key[0] = kv_cuda_take(&used, rows * 4);
	s.key[1] = kv_cuda_take(&used, rows * 4);
	s.row[0] = kv_cuda_take(&used, rows * 4);
	s.row[1] = kv_cuda_take(&used, rows * 4);
	s.chosen = kv_cuda_take(&used, x->k * 4);
	s.list[0] = kv_cuda_take(&used, most * 4);
	s.list[1] = kv_cuda_take(&used, most * 4);
	s.n = kv_cuda_take(&used, 8);
	s.tiles = kv_cuda_take(&used, (units * 2 / 32 + 1) * 4);
	s.below = kv_cuda_take(&used, x->n_q * 4);
	s.sum = kv_cuda_take(&used, (uint64_t)x->n_q * dim * 8);
	s.bytes = used;
	return s;
}
