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

#include "kernels/exec-private.h"
#include "shm/base.h"

static void choose_channels(struct state *s)
{
	uint32_t dim = s->map.space->k_dim, index[KV_MAX_DIM];
	float total[KV_MAX_DIM] = { 0 };

	for (uint32_t h = 0; h < s->heads; h++)
		for (uint32_t c = 0; c < dim; c++)
			total[c] += fabsf(s->q[(size_t)h * dim + c]);
	s->map.space->ops->topk(total, dim, s->r, index, s->topk);
	for (uint32_t j = 0; j < s->r; j++)
		s->channel[j] = (uint16_t)index[j];
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
	float *a = s->a + p->first;
	uint32_t dim = s->map.space->k_dim;

	if (s->r)
		p->kk->k_score_dims(&p->k, p->at, p->n, s->coef, s->r, s->channel, s->r, s->heads,
				    a, s->a_stride);
	else
		p->kk->k_dot(&p->k, p->at, p->n, s->q, dim, s->heads, a, s->a_stride, 0);
}

/* An empty sum changes nothing; one that is not a number makes the whole one. */
static void add_sum(struct score_sum *to, float max, double sum)
{
	if (sum == 0)
		return;
	if (to->sum == 0 || !(max <= to->max)) {
		to->sum = sum + (to->sum == 0 ? 0 : to->sum * exp((double)to->max - (double)max));
		to->max = max;
	} else {
		to->sum += sum * exp((double)max - (double)to->max);
	}
}

static void sum_piece(struct state *s, const struct kv_piece *p, struct score_sum *ret)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		uint32_t limit = exec_limit(s, h / s->group);
		float max, sum;

		if (limit <= p->first)
			continue;
		s->map.space->ops->max_expsum(s->a + h * s->a_stride + p->first,
					      MIN(p->n, limit - p->first), &max, &sum);
		add_sum(&ret[h], max, (double)sum);
	}
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

void exec_score_share(struct state *s, uint32_t share)
{
	/* Cut where extents begin: the first share has the sinks beyond its rows. */
	uint32_t sinks = s->map.view->n_sinks, row = share ? sinks + share * SCORE_ROWS : 0;
	uint32_t end = share + 1 < s->shares ? sinks + (share + 1) * SCORE_ROWS : s->visible;
	struct score_sum *sum = s->score_sum + (size_t)share * s->heads;
	struct kv_piece p = { 0 };

	for (uint32_t h = 0; h < s->heads; h++)
		sum[h] = (struct score_sum){ 0, -INFINITY };
	for (; row < end; row += p.n) {
		kv_map_find(&s->map, row, end, &p);
		name_next(s, &p);
		score_piece(s, &p);
		sum_piece(s, &p, sum);
	}
}

/* ---- after the shares ------------------------------------------------------ */

void exec_score_reduce(struct state *s)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		struct score_sum all = { 0, -INFINITY };

		for (uint32_t i = 0; i < s->shares; i++) {
			const struct score_sum *x = &s->score_sum[(size_t)i * s->heads + h];

			add_sum(&all, x->max, x->sum);
		}
		s->score_lse[h] = (float)((double)all.max + log(all.sum));
	}
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

/* What part of the approximate mass, over all rows a head sees, the chosen ones hold. */
void exec_score_alpha(struct state *s, const struct run_list *rows)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		uint32_t limit = exec_limit(s, h / s->group), n;
		float max, sum, alpha;

		n = gather(rows, limit, s->a + h * s->a_stride, s->gathered);
		s->alpha[h] = 1;
		if (n == limit)
			continue;
		s->map.space->ops->max_expsum(s->gathered, n, &max, &sum);
		alpha = n ? sum * expf(max - s->score_lse[h]) : 0;
		s->alpha[h] = alpha > 1 ? 1 : alpha; /* rounding */
	}
}
