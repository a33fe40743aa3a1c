/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rows topk looks at, and their scores again.
 *
 * Rows are ranked by the sum over the heads of the softmax of their scores, or
 * by the sum of the scores. The softmax needs each head's sum over all rows,
 * which is known only when the scores have left the cache. So the blocks were
 * ranked by exponentials relative to references (exec-score.c), and of each
 * group of rows the largest stayed. What a group's rows truly are lies between
 * that number times the least and times the largest weight of a head, where
 * weight = exp(reference - lse): k groups have a row above the k-th largest lower
 * bound, and a group whose upper bound is below it has no row to choose. The
 * others, a few in a hundred, are ranked row by row. What most of them will be is
 * known while the scores are there: a share learns from block to block how large
 * a group's largest number must be, and puts the scores of such groups aside. The
 * rest is scored again, which gives the same bits.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "shm/base.h"

/* Of the fast exponential, twice, and of sums in another order. */
#define RANK_SLACK 1e-3f
/* A reference from here up costs an exponent more than that: all groups are looked at. */
#define RANK_REF 4096.0f

/* ---- while the scores are there -------------------------------------------- */

/* The sum of the scores of those heads that see the row. The last query sees all there is, so it
 * goes first: it leaves no row unset. */
static void add_scores(const struct state *s, const float *a, size_t stride, uint32_t first,
		       uint32_t n, float *c)
{
	bool fresh = true;

	for (uint32_t h = s->heads; h-- > 0; fresh = false) {
		uint32_t limit = MIN(exec_limit(s, h / s->group), first + n);

		if (limit > first)
			s->map.space->ops->add(a + h * stride, limit - first, fresh, c);
	}
}

static void copy_scores(const struct state *s, const struct scored *x, uint32_t row, uint32_t n,
			float *to, size_t stride)
{
	for (uint32_t h = 0; h < s->heads; h++)
		memcpy(to + h * stride, x->a + h * x->stride + (row - x->first), n * sizeof(*to));
}

/* Rows that are not ranked, or whose rank does not matter, may be chosen all the same. */
static void put_aside_others(const struct state *s, const struct scored *x)
{
	uint32_t end = x->first + x->n, high = MAX(s->high_first, x->first);

	if (x->first < s->low_end)
		copy_scores(s, x, x->first, MIN(end, s->low_end) - x->first, s->low + x->first,
			    s->low_stride);
	if (high < end)
		copy_scores(s, x, high, end - high, s->high + (high - s->high_first),
			    s->high_stride);
}

/* ---- likely groups --------------------------------------------------------- */

static uint32_t share_of(const struct state *s, uint32_t block)
{
	uint32_t body = block - MIN(block, s->head_blocks);

	return MIN(body / SHARE_BLOCKS, s->shares - 1);
}

struct rank_share exec_rank_begin(const struct state *s, uint32_t share)
{
	size_t at = (size_t)share * SHARE_ASIDE;
	struct kv_rank to = {
		.likely = INFINITY,
		.room = s->keeps ? 0 : SHARE_ASIDE,
		.aside = s->aside + at * s->heads * KV_GROUP_ROWS,
		.group = s->aside_group + at,
	};

	return (struct rank_share){ to, -INFINITY };
}

/* Which groups are put aside changes no result: scores that are made again are the same. So a share
 * may begin with what another has learned, whichever that is. */
void exec_rank_refer(const struct state *s, const struct scored *x, struct rank_share *rank)
{
	float centre = 0;

	for (uint32_t h = 0; h < s->heads && s->whole; h++)
		centre += x->ref[h] / (float)s->heads;
	if (!s->whole || centre == rank->centre)
		return;
	if (rank->to.likely < INFINITY)
		rank->to.likely *= expf(rank->centre - centre);
	else if (s->likely > -INFINITY)
		rank->to.likely = expf(s->likely - centre);
	rank->centre = centre;
}

void exec_rank_end(struct state *s, uint32_t share, const struct rank_share *rank)
{
	if (!s->keeps)
		s->aside_n[share] = rank->to.n;
	if (rank->to.likely > 0 && rank->to.likely < INFINITY)
		s->likely = logf(rank->to.likely) + rank->centre;
}

/* The n-th largest. */
static float nth_of(const float *max, uint32_t groups, uint32_t n)
{
	float least = INFINITY;

	for (; n; n--) {
		float next = -INFINITY;

		for (uint32_t g = 0; g < groups; g++)
			next = max[g] < least && max[g] > next ? max[g] : next;
		least = next;
	}
	return least;
}

/* Twice as many groups of a block as have a row to choose if those are spread evenly: too few are
 * scored again, which costs several times what writing one for nothing does. */
static float wanted(const struct state *s)
{
	return MIN(2.0f * (float)s->rank_k / (float)s->blocks, (float)ASIDE_GROUPS);
}

/* From a block that is used up, for the next. */
static void learn(const struct state *s, const float *max, struct kv_rank *rank)
{
	float likely = 0;

	for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
		likely += max[g] >= rank->likely;
	if (rank->likely < INFINITY)
		rank->likely *= MIN(MAX(1 + 0.03f * (likely - wanted(s)), 0.7f), 1.5f);
	else
		rank->likely = nth_of(max, BLOCK_GROUPS, (uint32_t)ceilf(wanted(s)));
}

/* Groups that were put aside since are the share's from here on: its block's, `row` rows in. */
static void number_groups(const struct state *s, const struct scored *x, uint32_t row,
			  uint32_t since, struct kv_rank *rank)
{
	uint32_t block = x->block - exec_share_block(s, share_of(s, x->block));

	for (uint32_t i = since; i < rank->n; i++)
		rank->group[i] += (uint16_t)(block * BLOCK_GROUPS + row / KV_GROUP_ROWS);
}

static float *maxima_of(const struct state *s, const struct scored *x)
{
	float *max = s->group_max + (size_t)x->block * BLOCK_GROUPS;

	for (uint32_t g = DIV_UP(x->n, KV_GROUP_ROWS); g < BLOCK_GROUPS; g++)
		max[g] = -INFINITY;
	return max;
}

static void put_aside(const struct state *s, const struct scored *x, const float *max,
		      struct kv_rank *rank)
{
	float likely = nth_of(max, BLOCK_GROUPS, (uint32_t)ceilf(wanted(s)));
	uint32_t before = rank->n;

	for (uint32_t g = 0; g * KV_GROUP_ROWS < x->n && rank->n < rank->room; g++) {
		uint32_t row = g * KV_GROUP_ROWS;
		size_t at = (size_t)rank->n * s->heads * KV_GROUP_ROWS;

		if (!(max[g] >= likely && max[g] > -INFINITY))
			continue;
		rank->group[rank->n++] = (uint16_t)g;
		copy_scores(s, x, x->first + row, MIN(x->n - row, KV_GROUP_ROWS), rank->aside + at,
			    KV_GROUP_ROWS);
	}
	number_groups(s, x, 0, before, rank);
}

void exec_rank_block(const struct state *s, const struct scored *x, struct rank_share *rank)
{
	float *max = maxima_of(s, x);
	uint32_t end = x->first + x->n;

	if (!s->softmax)
		add_scores(s, x->a, x->stride, x->first, x->n, x->c);
	for (uint32_t row = x->first; row < MIN(s->rank_first, end); row++)
		x->c[row - x->first] = -INFINITY;
	for (uint32_t row = MAX(s->rank_end, x->first); row < end; row++)
		x->c[row - x->first] = -INFINITY;
	s->map.space->ops->maxima(x->c, x->n, max);
	if (s->keeps)
		return;
	put_aside_others(s, x);
	put_aside(s, x, max, &rank->to);
}

/* Every row is ranked by every head, and chosen by its rank or not at all. */
static bool is_ranked(const struct state *s, const struct scored *x)
{
	uint32_t end = x->first + x->n;

	return s->whole && exec_limit(s, 0) >= end &&
	       x->first >= MAX(s->rank_first, s->low_end) &&
	       end <= MIN(s->rank_end, s->high_first);
}

/* Of an extent; its sums are added to the block's. */
static bool rank_piece(const struct state *s, const struct scored *x, struct kv_piece *p,
		       float *max, struct kv_rank *rank)
{
	uint32_t row = p->first - x->first, before = rank->n;
	float sum[KV_RANK_HEADS];

	if (p->kk != s->map.space->k || p->n_outliers || p->n % KV_TILE_ROWS ||
	    p->at % KV_TILE_ROWS)
		return false;
	exec_score_next(s, p);
	rank->sum = sum;
	rank->max = max + row / KV_GROUP_ROWS;
	p->kk->k_score_rank(&p->k, p->at, p->n, s->coef, s->r, s->channel, s->r, s->heads, rank);
	for (uint32_t h = 0; h < s->heads; h++)
		x->sum[h] += sum[h];
	number_groups(s, x, row, before, rank);
	return true;
}

bool exec_rank_whole(const struct state *s, const struct scored *x, struct rank_share *rank)
{
	uint32_t end = x->first + x->n, before = rank->to.n;
	float *max = maxima_of(s, x);
	struct kv_piece p = { 0 };
	bool whole = is_ranked(s, x);

	rank->to.ref = x->ref;
	memset(x->sum, 0, s->heads * sizeof(*x->sum));
	for (uint32_t row = x->first; row < end && whole; row += p.n) {
		kv_map_find(&s->map, row, end, &p);
		whole = rank_piece(s, x, &p, max, &rank->to);
	}
	if (!whole || exec_score_too_low(s, x)) {
		rank->to.n = before;
		return false;
	}
	learn(s, max, &rank->to);
	return true;
}

/* ---- bounds ---------------------------------------------------------------- */

static struct weights block_weights(const struct state *s, uint32_t block)
{
	const float *ref = s->block_ref + (size_t)block * s->heads;
	struct weights w = { INFINITY, 0 };

	for (uint32_t h = 0; h < s->heads; h++) {
		float x = expf(ref[h] - s->score_lse[h]);

		if (!(fabsf(ref[h]) < RANK_REF && x > 0 && x < INFINITY))
			return (struct weights){ 0, FLT_MAX };
		w.least = MIN(w.least, x * (1 - RANK_SLACK));
		w.most = MAX(w.most, x * (1 + RANK_SLACK));
	}
	return w;
}

/* Lower bounds of all groups, and their blocks' weights. References change seldom. */
static void bound_groups(const struct state *s, struct weights *w, float *ret_lower)
{
	for (uint32_t b = 0; b < s->blocks; b++) {
		const float *ref = s->block_ref + (size_t)b * s->heads;
		const float *max = s->group_max + (size_t)b * BLOCK_GROUPS;

		if (!s->softmax)
			w[b] = (struct weights){ 1, 1 };
		else if (b && !memcmp(ref, ref - s->heads, s->heads * sizeof(*ref)))
			w[b] = w[b - 1];
		else
			w[b] = block_weights(s, b);
		for (uint32_t g = 0; g < BLOCK_GROUPS; g++)
			*ret_lower++ = w[b].least > 0 ? max[g] * w[b].least : MIN(max[g], 0);
	}
}

/* The k-th largest; -inf if there are not as many. */
static float threshold(struct state *s, const float *lower, uint32_t k)
{
	uint32_t groups = s->blocks * BLOCK_GROUPS;
	float least = INFINITY;

	if (groups <= k)
		return -INFINITY;
	s->map.space->ops->topk(lower, groups, k, -INFINITY, s->index, s->topk);
	for (uint32_t i = 0; i < k; i++)
		least = lower[s->index[i]] < least ? lower[s->index[i]] : least;
	return least;
}

/* ---- the rows that may be chosen ------------------------------------------- */

/* Where the scores of a group are: with the others, aside, or to be made again. Groups are asked
 * for in ascending order: `at` is how many of the share's were passed by. */
static const float *group_scores(const struct state *s, uint32_t block, uint32_t group,
				 uint32_t first, uint32_t *at, size_t *ret_stride)
{
	uint32_t skip = first - exec_block_row(s, block) - group * KV_GROUP_ROWS;
	uint32_t share = share_of(s, block);
	uint32_t wanted = (block - exec_share_block(s, share)) * BLOCK_GROUPS + group;
	size_t slot = (size_t)share * SHARE_ASIDE;

	*ret_stride = s->keeps ? s->a_stride : KV_GROUP_ROWS;
	if (s->keeps)
		return s->a + first;
	while (*at < s->aside_n[share] && s->aside_group[slot + *at] < wanted)
		++*at;
	if (*at == s->aside_n[share] || s->aside_group[slot + *at] != wanted)
		return NULL;
	return s->aside + (slot + *at) * s->heads * KV_GROUP_ROWS + skip;
}

static void find_near(struct state *s, float least, const struct weights *w)
{
	uint32_t at = 0;

	s->n_near = 0;
	for (uint32_t b = 0; b < s->blocks; b++) {
		uint32_t row = exec_block_row(s, b), end = exec_block_row(s, b + 1);
		const float *max = s->group_max + (size_t)b * BLOCK_GROUPS;

		at = b == exec_share_block(s, share_of(s, b)) ? 0 : at;
		for (uint32_t g = 0; row < end; row += KV_GROUP_ROWS, g++) {
			uint32_t first = MAX(row, s->rank_first);
			uint32_t last = MIN(MIN(row + KV_GROUP_ROWS, end), s->rank_end);
			struct near *x = &s->near[s->n_near];

			if (first >= last || max[g] * w[b].most < least)
				continue;
			x->first = first;
			x->n = last - first;
			x->a = group_scores(s, b, g, first, &at, &x->stride);
			s->n_near++;
		}
	}
}

/* Neighbours are made in one go: what a scan prepares is for more than a group. */
static void score_again(struct state *s)
{
	float *to = s->a;

	for (uint32_t i = 0, n; i < s->n_near; i += n) {
		uint32_t first = s->near[i].first, end = first;

		n = 1;
		if (s->near[i].a)
			continue;
		for (n = 0; i + n < s->n_near && !s->near[i + n].a && s->near[i + n].first == end;
		     n++) {
			s->near[i + n].a = to + (end - first);
			s->near[i + n].stride = s->a_stride;
			end += s->near[i + n].n;
		}
		exec_score_rows(s, first, end, false, to, s->a_stride);
		to += end - first;
	}
}

/* Returns how many rows they are. */
static uint32_t rank_near(struct state *s)
{
	float *c = s->c;

	for (uint32_t i = 0; i < s->n_near; c += s->near[i++].n) {
		const struct near *x = &s->near[i];

		if (s->softmax)
			s->map.space->ops->softmax_sum(x->a, x->stride, s->heads, s->score_lse,
						       x->n, s->sum, c);
		else
			add_scores(s, x->a, x->stride, x->first, x->n, c);
	}
	return (uint32_t)(c - s->c);
}

void exec_rank(struct state *s, uint32_t k, struct run_list *ret)
{
	const struct near *x = s->near;
	uint32_t found, at = 0;
	float least;

	bound_groups(s, s->weights, s->c);
	least = threshold(s, s->c, k);
	find_near(s, least, s->weights);
	score_again(s);
	found = s->map.space->ops->topk(s->c, rank_near(s), k, least, s->index, s->topk);
	for (uint32_t i = 0; i < found; i++) {
		while (s->index[i] - at >= x->n)
			at += (x++)->n;
		exec_append(ret, x->first + (s->index[i] - at), 1);
	}
}

/* ---- alpha ----------------------------------------------------------------- */

/* A head's scores of the chosen rows. */
static void gather(const struct state *s, const struct run_list *rows, uint32_t head, float *ret)
{
	uint32_t low = s->keeps ? s->visible : s->low_end; /* all are there, then */
	const struct near *x = s->near;

	for (uint32_t i = 0; i < rows->n; i++) {
		uint32_t row = rows->run[i].first, end = row + rows->run[i].n;

		for (; row < MIN(end, low); row++)
			*ret++ = s->low[head * s->low_stride + row];
		for (; row < MIN(end, s->high_first); row++) {
			while (row - x->first >= x->n)
				x++;
			*ret++ = x->a[head * x->stride + (row - x->first)];
		}
		for (; row < end; row++)
			*ret++ = s->high[head * s->high_stride + (row - s->high_first)];
	}
}

static float alpha_of(struct state *s, const struct run_list *rows, uint32_t head)
{
	float max, sum;

	gather(s, rows, head, s->gathered);
	s->map.space->ops->max_expsum(s->gathered, rows->rows, &max, &sum);
	sum = sum > 0 ? sum * expf(max - s->score_lse[head]) : 0;
	return sum < 1 ? sum : 1; /* rounding */
}

void exec_score_alpha(struct state *s, const struct run_list *rows)
{
	for (uint32_t h = 0; h < s->heads; h++) {
		uint32_t limit = exec_limit(s, h / s->group);

		s->alpha[h] = exec_select_below(rows, limit) < limit ? alpha_of(s, rows, h) : 1;
	}
}
