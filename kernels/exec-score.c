/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Approximate scores: SparQ's lines 1-5 and 7 (arXiv 2312.04985), or the
 * exact product with every row.
 *
 * One channel set for all queries and heads of a KV head, so that a channel is
 * read once. The temperature is folded into the coefficients: tau is
 * sqrt(cover) / scale, which is the paper's sqrt(d cover) at the default scale.
 */
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
	s->map.space->ops->topk(total, dim, s->r, index, s->topk);
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
	for (uint32_t h = 0; h < s->heads; h++) {
		const float *q = s->q + (size_t)h * dim; /* times scale */
		float heat = 1 / sqrtf(cover(s, q));

		for (uint32_t j = 0; j < s->r; j++)
			s->coef[(size_t)h * s->r + j] = q[s->channel[j]] * heat;
	}
}

/* ---- shares ---------------------------------------------------------------- */

static void score_piece(struct state *s, const struct kv_piece *p)
{
	const struct kv_ops *ops = s->map.space->ops;
	float *a = s->a + p->first;
	uint32_t dim = s->map.space->k_dim;

	if (s->r)
		kv_piece_score(ops, p, s->coef, s->r, s->channel, s->r, s->heads, a, s->a_stride);
	else
		kv_piece_dot(ops, p, s->q, dim, s->heads, a, s->a_stride, 0);
}

/* The walk over r runs at once is what limits, so a block is told which comes next, even where
 * that belongs to another share: most likely the same thread goes on with it. */
static void name_next(const struct state *s, struct kv_piece *p)
{
	uint32_t row = p->first + p->n;
	struct kv_piece next = { 0 };

	if (row >= s->visible)
		return;
	kv_map_find(&s->map, row, s->visible, &next);
	if (next.kk == p->kk && next.k.tiles == p->k.tiles && next.k.tile_rows == p->k.tile_rows)
		p->k.next = next.k.base;
}

static void score_rows(struct state *s, uint32_t row, uint32_t end)
{
	struct kv_piece p = { 0 };

	for (; row < end; row += p.n) {
		kv_map_find(&s->map, row, end, &p);
		name_next(s, &p);
		score_piece(s, &p);
	}
}

/* Rows that a query may not see have no weight. */
static void sum_block(struct state *s, uint32_t block, uint32_t row, uint32_t end)
{
	const struct kv_ops *ops = s->map.space->ops;

	for (uint32_t h = 0; h < s->heads; h++) {
		uint32_t limit = exec_limit(s, h / s->group);
		uint32_t n = limit > row ? MIN(limit, end) - row : 0;
		float *a = s->a + h * s->a_stride + row;
		size_t at = (size_t)h * s->blocks + block;

		if (!s->exps) {
			ops->max_expsum(a, n, &s->block_max[at], &s->block_sum[at]);
			continue;
		}
		ops->exps(a, n, &s->block_max[at], &s->block_sum[at]);
		memset(a + n, 0, (end - row - n) * sizeof(*a));
	}
}

void exec_score_share(struct state *s, uint32_t share)
{
	const uint32_t each = SCORE_ROWS / SCORE_BLOCK;
	uint32_t last = share + 1 < s->shares ? (share + 1) * each : s->blocks;

	for (uint32_t b = share * each; b < last; b++) {
		uint32_t row = exec_block_row(s, b), end = exec_block_row(s, b + 1);

		score_rows(s, row, end);
		sum_block(s, b, row, end);
	}
}

/* ---- after the shares ------------------------------------------------------ */

/* A head's lse over all its blocks, and what each block weighs: exp(maximum - lse). */
static void weigh_blocks(struct state *s, uint32_t head)
{
	const struct kv_ops *ops = s->map.space->ops;
	const float *max = s->block_max + (size_t)head * s->blocks;
	const float *sum = s->block_sum + (size_t)head * s->blocks;
	float *w = s->gathered, top, unused;
	double all = 0;

	ops->max_expsum(max, s->blocks, &top, &unused);
	ops->add_softmax(max, s->blocks, top > -INFINITY ? top : 0, true, w);
	for (uint32_t b = 0; b < s->blocks; b++)
		all += (double)w[b] * (double)sum[b];
	s->score_lse[head] = (float)((double)top + log(all));
	for (uint32_t b = 0; b < s->blocks && s->exps; b++)
		s->weight[(size_t)b * s->heads + head] = all > 0 ? (float)((double)w[b] / all) : 0;
}

void exec_score_reduce(struct state *s)
{
	for (uint32_t h = 0; h < s->heads; h++)
		weigh_blocks(s, h);
}

/* Gathers a head's scores of the rows below a limit. */
static uint32_t gather(const struct run_list *rows, uint32_t limit, const float *a, float *ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < rows->n && rows->run[i].first < limit; i++) {
		const struct run *x = &rows->run[i];
		uint32_t end = MIN(x->first + x->n, limit);

		for (uint32_t row = x->first; row < end; row++)
			ret[n++] = a[row];
	}
	return n;
}

static float alpha_of_scores(struct state *s, const struct run_list *rows, uint32_t head)
{
	uint32_t limit = exec_limit(s, head / s->group);
	uint32_t n = gather(rows, limit, s->a + head * s->a_stride, s->gathered);
	float max, sum;

	s->map.space->ops->max_expsum(s->gathered, n, &max, &sum);
	return n ? sum * expf(max - s->score_lse[head]) : 0;
}

static float alpha_of_exps(const struct state *s, const struct run_list *rows, uint32_t head)
{
	const float *a = s->a + head * s->a_stride;
	double sum = 0;

	for (uint32_t i = 0; i < rows->n; i++) {
		uint32_t end = rows->run[i].first + rows->run[i].n;

		for (uint32_t row = rows->run[i].first; row < end; row++)
			sum += (double)(a[row] *
					s->weight[(size_t)exec_block_of(s, row) * s->heads + head]);
	}
	return (float)sum;
}

/* What part of the approximate mass, over all rows a head sees, the chosen ones hold. */
void exec_score_alpha(struct state *s, const struct run_list *rows)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		uint32_t limit = exec_limit(s, h / s->group);
		float alpha = 1;

		if (exec_select_below(rows, limit) < limit)
			alpha = s->exps ? alpha_of_exps(s, rows, h) : alpha_of_scores(s, rows, h);
		s->alpha[h] = alpha > 1 ? 1 : alpha; /* rounding */
	}
}
