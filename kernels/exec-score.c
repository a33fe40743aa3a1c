/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Approximate scores: SparQ's lines 1-5 and 7 (arXiv 2312.04985), or the
 * exact product with every row.
 *
 * A block of scores is used up while it is in the cache: what stays of it is,
 * for each head, its sum of exponentials relative to a reference, and for each
 * group of rows the largest number that ranks them (exec-rank.c).
 *
 * One channel set for all queries and heads of a KV head, so that a channel is
 * read once. The temperature is folded into the coefficients: tau is
 * sqrt(cover) / scale, which is the paper's sqrt(d cover) at the default scale.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

/* By channel, whatever their order in memory is: a table does not change what is chosen. */
static void choose_channels(struct state *s)
{
	const struct kv_channels *t = s->map.channels;
	uint32_t dim = s->map.space->k_dim, index[KV_MAX_DIM];
	float total[KV_MAX_DIM] = { 0 };

	for (uint32_t h = 0; h < s->heads; h++)
		for (uint32_t c = 0; c < dim; c++)
			total[t ? t->k[c] : c] += fabsf(s->q[(size_t)h * dim + c]);
	s->map.space->ops->topk(total, dim, s->r, -INFINITY, index, s->topk);
	kv_channels_find(t, dim, index, s->r, s->channel);
}

/* The chosen channels' part of |q|. 1 where there is nothing to divide: a zero query, or one
 * whose chosen channels are all zero, has equal scores at any temperature. */
static float cover(const struct state *s, const float *q)
{
	uint32_t dim = s->map.space->k_dim;
	double chosen = 0, all = 0;

	for (uint32_t c = 0; c < dim; c++)
		all += (double)fabsf(q[c]);
	for (uint32_t j = 0; j < s->r; j++)
		chosen += (double)fabsf(q[s->channel[j]]);
	return chosen > 0 && chosen <= all && isfinite(all) ? (float)(chosen / all) : 1;
}

void exec_score_prepare(struct state *s)
{
	uint32_t dim = s->map.space->k_dim;

	if (!s->r)
		return;
	choose_channels(s);
	s->likely = -INFINITY;
	for (uint32_t h = 0; h < s->heads; h++) {
		const float *q = s->q + (size_t)h * dim; /* times scale */
		float heat = 1 / sqrtf(cover(s, q));

		for (uint32_t j = 0; j < s->r; j++)
			s->coef[(size_t)h * s->r + j] = q[s->channel[j]] * heat;
	}
}

/* ---- shares ---------------------------------------------------------------- */

static void score_piece(struct state *s, const struct kv_piece *p, float *a, size_t stride)
{
	const struct kv_ops *ops = s->map.space->ops;
	uint32_t dim = s->map.space->k_dim;

	if (s->r)
		kv_piece_score(ops, p, s->coef, s->r, s->channel, s->r, s->heads, a, stride);
	else
		kv_piece_dot(ops, p, s->q, dim, s->heads, a, stride, 0);
}

/* The walk over r runs at once is what limits, so a block is told which comes next, even where
 * that belongs to another share: most likely the same thread goes on with it. */
void exec_score_next(const struct state *s, struct kv_piece *p)
{
	uint32_t row = p->first + p->n;
	struct kv_piece next = { 0 };

	if (row >= s->visible)
		return;
	kv_map_find(&s->map, row, s->visible, &next);
	if (next.kk == p->kk && next.k.tiles == p->k.tiles && next.k.tile_rows == p->k.tile_rows)
		p->k.next = next.k.base;
}

void exec_score_rows(struct state *s, uint32_t row, uint32_t end, bool onward, float *a,
		     size_t stride)
{
	struct kv_piece p = { 0 };
	uint32_t first = row;

	for (; row < end; row += p.n) {
		kv_map_find(&s->map, row, end, &p);
		if (onward)
			exec_score_next(s, &p);
		score_piece(s, &p, a + (row - first), stride);
	}
	for (uint32_t h = 0; h < s->heads; h++) { /* rows that a query may not see */
		uint32_t limit = MAX(exec_limit(s, h / s->group), first);

		for (uint32_t i = limit; i < end; i++)
			a[h * stride + (i - first)] = -INFINITY;
	}
}

/* A head's lse over the block. Where it sees nothing: -inf, from which the next block's scores are
 * too far; where a score is +inf: 0, which says so as well as any other. */
static void refer(const struct state *s, const struct scored *x)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		float max, sum;

		s->map.space->ops->max_expsum(x->a + h * x->stride, x->n, &max, &sum);
		x->ref[h] = max == INFINITY ? 0 : max + logf(sum);
	}
}

bool exec_score_too_low(const struct state *s, const struct scored *x)
{
	for (uint32_t h = 0; h < s->heads; h++)
		if (!(x->sum[h] < REF_TOO_LOW))
			return true;
	return false;
}

static void softmax(const struct state *s, const struct scored *x)
{
	s->map.space->ops->softmax_sum(x->a, x->stride, s->heads, x->ref, x->n, x->sum, x->c);
}

/* Scores and their softmax in one go, for what most blocks are: an extent that all queries see. */
static bool score_whole(struct state *s, const struct scored *x)
{
	struct kv_piece p = { 0 };
	uint32_t end = x->first + x->n;

	kv_map_find(&s->map, x->first, end, &p);
	if (!s->r || p.n < x->n || p.n_outliers || x->n % KV_TILE_ROWS || p.at % KV_TILE_ROWS ||
	    !p.kk->k_score_softmax || exec_limit(s, 0) < end)
		return false;
	exec_score_next(s, &p);
	p.kk->k_score_softmax(&p.k, p.at, p.n, s->coef, s->r, s->channel, s->r, s->heads, x->a,
			      x->stride, x->ref, x->sum, x->c);
	return true;
}

/* A reference for the first block of a share, from its first rows, where its scores are used up
 * before there is another. */
static void sample(struct state *s, const struct scored *x)
{
	struct scored y = *x;

	y.n = MIN(x->n, KV_TILE_ROWS);
	exec_score_rows(s, y.first, y.first + y.n, true, y.a, y.stride);
	refer(s, &y);
	for (uint32_t h = 0; h < s->heads; h++)
		y.ref[h] += logf((float)x->n / (float)y.n);
}

/* Of those of the blocks before that have the last one's reference, what their mean sum says. The
 * nearer references are to the lse of all rows, the closer are the bounds (exec-rank.c). */
static float settle(const struct state *s, uint32_t block, uint32_t blocks, uint32_t head)
{
	float ref = s->block_ref[(size_t)(block - 1) * s->heads + head], sum = 0;
	uint32_t n = 0;

	while (n < blocks && s->block_ref[(size_t)(block - 1 - n) * s->heads + head] == ref)
		sum += s->block_sum[(size_t)(block - 1 - n++) * s->heads + head];
	sum /= (float)n;
	return sum > FLT_MIN && sum < REF_TOO_LOW ? ref + logf(sum) : ref;
}

/* The reference of the block before does where that is near enough; it is looked at again after the
 * first block of a share, the second, the fourth, and so on. */
static void begin_block(struct state *s, const struct scored *x, uint32_t first)
{
	uint32_t n = x->block - first;

	if (x->block <= first) {
		if (s->whole)
			sample(s, x);
		return;
	}
	if (n & (n - 1))
		memcpy(x->ref, x->ref - s->heads, s->heads * sizeof(*x->ref));
	else
		for (uint32_t h = 0; h < s->heads; h++)
			x->ref[h] = settle(s, x->block, MAX(n / 2, 1u), h);
}

static void score_block(struct state *s, const struct scored *x, bool before)
{
	if (!before || !score_whole(s, x)) {
		exec_score_rows(s, x->first, x->first + x->n, true, x->a, x->stride);
		if (!before)
			refer(s, x);
		softmax(s, x);
	}
	if (before && exec_score_too_low(s, x)) {
		refer(s, x);
		softmax(s, x);
	}
}

void exec_score_share(struct state *s, uint32_t share)
{
	uint32_t first = exec_share_block(s, share), last = exec_share_block(s, share + 1);
	uint32_t body = MAX(first, s->head_blocks);
	float local[BUFFER_LOCAL]; /* no other core had it in its cache */
	float *buffer = s->buffer_floats <= BUFFER_LOCAL
				? local
				: s->buffer + (size_t)share * s->buffer_floats;
	struct rank_share rank = exec_rank_begin(s, share);

	for (uint32_t b = first; b < last; b++) {
		uint32_t row = exec_block_row(s, b), end = exec_block_row(s, b + 1);
		struct scored x = {
			.c = buffer,
			.a = s->keeps ? s->a + row : buffer + BLOCK_STRIDE,
			.stride = s->keeps ? s->a_stride : BLOCK_STRIDE,
			.ref = s->block_ref + (size_t)b * s->heads,
			.sum = s->block_sum + (size_t)b * s->heads,
			.block = b,
			.first = row,
			.n = end - row,
		};

		begin_block(s, &x, body);
		exec_rank_refer(s, &x, &rank);
		if (exec_rank_whole(s, &x, &rank))
			continue;
		score_block(s, &x, b > body);
		exec_rank_block(s, &x, &rank);
	}
	exec_rank_end(s, share, &rank);
}

/* ---- after the shares ------------------------------------------------------ */

/* A head's lse over all its blocks. References change seldom. */
static float sum_head(const struct state *s, uint32_t head)
{
	float top = -INFINITY, ref = 0;
	double all = 0, factor = 0;

	for (uint32_t b = 0; b < s->blocks; b++)
		if (s->block_sum[(size_t)b * s->heads + head] > 0)
			top = MAX(top, s->block_ref[(size_t)b * s->heads + head]);
	if (top == -INFINITY)
		return top;
	for (uint32_t b = 0; b < s->blocks; b++) {
		size_t at = (size_t)b * s->heads + head;

		if (b == 0 || s->block_ref[at] != ref)
			factor = exp((double)(s->block_ref[at] - top));
		ref = s->block_ref[at];
		all += factor * (double)s->block_sum[at];
	}
	return (float)((double)top + log(all));
}

void exec_score_reduce(struct state *s)
{
	for (uint32_t h = 0; h < s->heads; h++)
		s->score_lse[h] = sum_head(s, h);
}
