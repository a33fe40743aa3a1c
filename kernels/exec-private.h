/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of one KV head's execution, at the start of its scratch.
 *
 * What the shares do depends on the plan:
 *
 *   SCORE   a row range: scores of all heads, their maximum and sum of exponentials
 *   ATTEND  a range of the selected rows, by all queries or a block of them: a range has one
 *           part (y, lse), of which a block writes its rows
 *
 * Ranges are cut by sizes alone, and finish() merges them in ascending order:
 * who ran which share leaves no trace in the result. "Head" counts queries as
 * well here: head i * group + g is query i of the group's head g.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "kernels/map.h"
#include "kernels/table.h"

#define SCORE_ROWS KV_SHARE_ROWS /* of a share: about 260 KiB of a 4-bit plane at r = 32 */
#define SCORE_BLOCK 1024u /* rows that are scored and used up at once; divides SCORE_ROWS */
#define BLOCK_STRIDE (SCORE_BLOCK + 16u) /* of their scores; no power of two */
#define BUFFER_LOCAL (9u * BLOCK_STRIDE) /* a block's scores on the stack: up to 8 heads, 37 KiB */
#define BLOCK_GROUPS (SCORE_BLOCK / KV_GROUP_ROWS)
#define REF_TOO_LOW 64.0f /* a sum from here up: another reference, or bounds get wide */
#define ASIDE_GROUPS 3u /* that a share has room for, times its blocks */
#define SHARE_BLOCKS (SCORE_ROWS / SCORE_BLOCK)
#define SHARE_ASIDE (ASIDE_GROUPS * SHARE_BLOCKS)
#define KEEP_SCORES 65536u /* of all heads: up to here they stay in a core's cache */
#define ATTEND_ROWS 4096u /* of a share, unless a layer has twice as many shares as these ... */
#define ATTEND_SHARES 64u
#define ATTEND_MOST 16384u /* ... up to here: first rows are waited for. Or parts were over */
#define PARTS_BYTES ((uint64_t)32 << 20)
#define FEW_HEADS 8u  /* more of them are lanes of vectors, their rows widened ... */
#define MANY_HEADS 128u /* ... once for so many */
#define BLOCK_ROWS 1024u  /* whose logits are held at once: an extent of 8 tiles */
#define P_STRIDE (BLOCK_ROWS + 16u) /* of a head; no power of two */
#define BLOCK_PIECES 64u  /* of a scattered choice: the prefetch distance */
#define WIDE_ROWS 64u     /* of a scattered choice, widened to f32 side by side */

enum kv_exec_mode { KV_EXEC_SCORE, KV_EXEC_ATTEND };

struct run { /* rows [first, first + n) */
	uint32_t first, n;
};
struct weights { /* of the heads in one block of scores: exp(ref - lse) */
	float least, most;
};
struct near { /* ranked rows of a group, and their scores */
	uint32_t first, n;
	const float *a; /* [heads][stride] */
	size_t stride;
};
struct run_list {
	struct run *run;
	uint32_t n;    /* runs */
	uint32_t rows; /* in all of them */
};

struct part {       /* a running softmax over some rows, normalised at the end */
	float *y;   /* [heads + sums][v_dim]; the sums: of the V that each query selected */
	float *lse; /* [heads]: the running maximum until then */
	float *sum; /* [heads] */
};

struct work {                      /* of one thread, while it attends */
	float *p;                  /* logits, then weights: [heads + sums][P_STRIDE] */
	struct kv_piece *piece[2]; /* [BLOCK_PIECES] each: the block at hand, and the next */
	float *k, *v;              /* [WIDE_ROWS][dim]; NULL: no choice is scattered */
};

struct state {
	struct kv_map map;
	const struct kv_query *query;
	enum kv_exec_mode mode;
	uint32_t visible; /* to the last query: rows from here on are nobody's */
	uint32_t n_q, group, heads;
	uint32_t sums; /* n_q if the sum of the selected V is wanted, else 0 */
	uint32_t shares;
	bool many; /* more than FEW_HEADS, as lanes */
	/* ATTEND: shares are ranges of the list times blocks of queries */
	uint32_t range_rows, ranges, block_q, blocks_q;
	float *q; /* [heads][k_dim], times scale; not where lanes take them */
	/* SCORE: of the plan's one score operation */
	uint32_t r; /* channels; 0: all of them, exactly */
	uint16_t *channel;             /* their places (channels.h), ascending */
	float *coef;                   /* [heads][r] */
	uint32_t rank_first, rank_end; /* rows that its one topk ranks ... */
	uint32_t rank_k;               /* ... and how many it takes */
	uint32_t low_end, high_first;  /* rows below and from here on may be chosen unranked */
	bool softmax;                  /* by the sum of the heads' softmax; else of their scores */
	bool keeps;                    /* all scores stay in a */
	bool whole;                    /* the format has k_score_rank, and blocks may take it */
	float *a;                      /* [heads][a_stride]: all scores, or those made again */
	size_t a_stride;
	float *low, *high; /* scores of the rows chosen unranked: [heads][stride] */
	size_t low_stride, high_stride;
	float *aside; /* [shares][SHARE_ASIDE][heads][KV_GROUP_ROWS]: of groups that are likely */
	uint16_t *aside_group; /* [shares][SHARE_ASIDE]: which of the share's, ascending */
	uint32_t *aside_n;     /* [shares]: how many */
	_Atomic float likely;  /* what a share has learned, as a score; -inf: nothing */
	/* The sinks are a block of their own, the body is cut where extents begin, then comes the
	 * tail. */
	uint32_t blocks, head_blocks, body_blocks, body_end;
	float *buffer; /* [shares][buffer_floats]: what ranks a block, and its scores, if large */
	size_t buffer_floats;
	float *block_ref, *block_sum; /* [blocks][heads]: sum of exp(score - ref) */
	float *group_max;             /* [blocks][BLOCK_GROUPS]: of what ranks their rows */
	float *score_lse, *sum;       /* [heads] */
	struct weights *weights;      /* [blocks] */
	struct near *near;            /* groups that may have a chosen row, ascending */
	uint32_t n_near;
	float *c;        /* what topk ranks: bounds of groups, then the rows of near */
	uint32_t *index; /* what it returns */
	void *topk;      /* its scratch */
	float *gathered; /* scores of chosen rows */
	struct run_list sel[KV_PLAN_OPS]; /* by operation */
	struct part *part;                /* [ranges], or one; the first becomes the result */
	struct work *work;                /* [shares], or one; none where heads are lanes */
	float *alpha;      /* [heads] */
	bool mean;         /* the plan has a mean ... */
	uint32_t sum_from; /* ... whose sum read the rows from here on */
};

/* The first row of block b of the scores; b = blocks: the end of the last. */
static inline uint32_t exec_block_row(const struct state *s, uint32_t b)
{
	uint32_t body = b - s->head_blocks;

	if (b < s->head_blocks)
		return 0;
	if (b == s->blocks)
		return s->visible;
	if (body < s->body_blocks)
		return s->map.view->n_sinks + body * SCORE_BLOCK;
	return s->body_end + (body - s->body_blocks) * SCORE_BLOCK;
}

/* The first block of a share; share = shares: the end of the last. Only the first has more than
 * SHARE_BLOCKS, and the last. */
static inline uint32_t exec_share_block(const struct state *s, uint32_t share)
{
	if (share == s->shares)
		return s->blocks;
	return share ? s->head_blocks + share * SHARE_BLOCKS : 0;
}

static inline uint32_t exec_limit(const struct state *s, uint32_t query)
{
	uint64_t limit = (uint64_t)s->query->first_limit + query;

	if (s->query->full || limit > s->map.view->rows)
		return s->map.view->rows;
	return (uint32_t)limit;
}

/* exec.c */
const struct run_list *exec_attended(const struct kv_exec *e); /* what its one attention reads */
void exec_scale_head(const struct state *s, uint32_t head, float *ret_q);
/* exec-layout.c */
uint64_t exec_lay_out(struct state *s, const struct kv_plan *p, char *base);
/* exec-score.c */
struct scored { /* a block */
	float *a, *c; /* scores, [heads][stride]; what ranks the rows, [n] */
	size_t stride;
	float *ref, *sum; /* [heads] */
	uint32_t block, first, n; /* its rows */
};
void exec_score_prepare(struct state *s); /* channels and coefficients */
void exec_score_share(struct state *s, uint32_t share);
void exec_score_reduce(struct state *s);
/* Scores of rows [row, end), a[0] of `row`; `onward`: the rows that follow come next. */
void exec_score_rows(struct state *s, uint32_t row, uint32_t end, bool onward, float *a,
		     size_t stride);
/* Names what comes after the piece, to be asked for meanwhile. */
void exec_score_next(const struct state *s, struct kv_piece *p);
bool exec_score_too_low(const struct state *s, const struct scored *x);
/* exec-rank.c */
/* Of a share, whose blocks come one after the other: what it puts aside, and what it takes for
 * likely, relative to references with this mean. */
struct rank_share {
	struct kv_rank to;
	float centre;
};
struct rank_share exec_rank_begin(const struct state *s, uint32_t share);
void exec_rank_refer(const struct state *s, const struct scored *x, struct rank_share *rank);
/* Scores, their sums and their ranks in one go; false: it takes the calls one by one. */
bool exec_rank_whole(const struct state *s, const struct scored *x, struct rank_share *rank);
void exec_rank_block(const struct state *s, const struct scored *x, struct rank_share *rank);
void exec_rank_end(struct state *s, uint32_t share, const struct rank_share *rank);
/* Appends the k best of the ranked rows. */
void exec_rank(struct state *s, uint32_t k, struct run_list *ret);
/* What part of the approximate mass, over all rows a head sees, the chosen ones hold. */
void exec_score_alpha(struct state *s, const struct run_list *rows);
/* exec-select.c */
struct ranked { /* what a topk ranks, and the newest rows that it takes unseen */
	uint32_t first, end, k, recent;
};
struct ranked exec_select_ranked(const struct state *s, const struct kv_op *op);
struct edges { /* first and newest rows that a window takes */
	uint32_t first, recent;
};
struct edges exec_select_edges(const struct state *s, const struct kv_op *op);
/* Appends rows at or after the last run's start; runs that touch become one. */
void exec_append(struct run_list *to, uint32_t first, uint32_t n);
uint32_t exec_select_bound(const struct state *s, const struct kv_plan *p, unsigned op);
void exec_select(struct state *s, const struct kv_plan *p, unsigned op);
uint32_t exec_select_below(const struct run_list *rows, uint32_t limit); /* how many rows */
/* exec-attend.c */
struct attend { /* rows in places [skip, skip + n) of the list, by queries [q, q + n_q) */
	const struct run_list *rows;
	uint32_t skip, n;
	uint32_t q, n_q;
	bool sums;
};
void exec_attend(struct state *s, const struct attend *what, struct part *part, struct work *work);
/* exec-prompt.c */
/* The same, of heads that are lanes. */
void exec_attend_many(const struct state *s, const struct attend *what, struct part *part);
/* Into shares; at most so many rows are attended. */
void exec_attend_cut(struct state *s, uint64_t rows);
struct places { /* of the list */
	uint32_t begin, end;
};
struct places exec_attend_places(const struct state *s, const struct run_list *rows,
				 uint32_t share);
void exec_attend_share(struct state *s, const struct run_list *rows, uint32_t share);
void exec_attend_merge(struct state *s);
/* exec-mean.c */
void exec_mean(struct state *s, const struct run_list *rows, enum kv_mean how);
/* exec-bytes.c */
void exec_bytes(const struct state *s, const struct run_list *rows, struct kv_result *ret);
