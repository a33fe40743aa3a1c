/* SPDX-License-Identifier: Apache-2.0 */
/* Double precision, one row at a time. */
#include "tests/kernels/exec-reference.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/outliers.h"
#include "shm/base.h"

static void widen(const float *x, size_t n, double *ret)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = (double)x[i];
}

/* By channel, what was read by place. */
static void order(const uint8_t *channel, uint32_t n, double *x)
{
	double by_place[KV_MAX_DIM];

	memcpy(by_place, x, n * sizeof(*x));
	for (uint32_t i = 0; i < n; i++)
		x[channel[i]] = by_place[i];
}

/* What scoring sees of a row: one channel at a time with coefficient 1. */
static void decode_score(const struct kv_piece *p, double *ret)
{
	const struct kv_ops *ops = kv_ops_find();
	const float one = 1;

	for (uint32_t c = 0; c < p->k.dim; c++) {
		uint16_t channel = (uint16_t)c;
		float x;

		kv_piece_score(ops, p, &one, 1, &channel, 1, 1, &x, 1);
		ret[c] = (double)x;
	}
}

/* K from unit queries and V from weight 1, so that a level is decoded by what reads it. */
static void decode_row(const struct kv_piece *p, unsigned level, double *k, double *v)
{
	uint32_t dim = p->k.dim;
	float x[KV_MAX_DIM];

	if (level && !kv_piece_is_recent(p)) {
		const float one = 1;

		decode_score(p, k);
		memset(x, 0, sizeof(x));
		p->kv->v_axpy(&p->v, p->at, 1, &one, 1, 1, x, dim, level);
		widen(x, dim, v);
		return;
	}
	kv_piece_read_k(p, x);
	widen(x, dim, k);
	p->kv->v_read(&p->v, p->at, 1, x);
	widen(x, dim, v);
}

/* The sum of V takes a tile that counts in part from its planes: nothing else is left of it. */
static bool is_cut(const struct kv_view *v, uint32_t row)
{
	for (uint32_t i = 0; i < v->n_extents; i++) {
		const struct kv_extent *x = &v->extent[i];
		uint32_t first = x->first_row + (x->used - 1u) * KV_TILE_ROWS;

		if (x->last_rows < KV_TILE_ROWS && row >= first && row < first + x->last_rows)
			return true;
	}
	return false;
}

/* Where the sums end that the first query of a step starts from: a step that begins inside a tile
 * takes the rows behind that, for all its queries, from their planes. */
static uint32_t sums_end(const struct kv_view *v, uint32_t limit)
{
	uint32_t end = 0;

	for (uint32_t i = 0; i < v->n_extents; i++) {
		const struct kv_extent *x = &v->extent[i];
		uint32_t whole = x->used - (x->used && x->last_rows < KV_TILE_ROWS);

		if (limit > x->first_row)
			whole = MIN(whole, (limit - x->first_row) / KV_TILE_ROWS);
		if (limit > x->first_row && whole)
			end = x->first_row + whole * KV_TILE_ROWS;
	}
	return end;
}

/* V as it counts in the sum: all levels of it, whatever attention reads. */
static void decode_counted(const struct kv_piece *p, const struct kv_channels *t, double *ret)
{
	float x[KV_MAX_DIM];

	p->kv->v_read(&p->v, p->at, 1, x);
	widen(x, p->v.dim, ret);
	if (t)
		order(t->v, p->v.dim, ret);
}

void ref_decode(const struct rig *r, uint32_t head, unsigned level, uint32_t limit,
		const float *sent, struct ref_rows *ret)
{
	const struct kv_space *s = r->space;
	size_t n = r->view.rows, dim = s->k_dim, bytes = (n * dim + 1) * sizeof(double);
	const struct kv_channels *t = kv_channels_of(&r->view, head);
	uint32_t summed = sums_end(&r->view, limit);
	struct kv_piece p = { 0 };
	struct kv_map map;

	*ret = (struct ref_rows){ (uint32_t)n,   (uint32_t)dim, malloc(bytes),
				  malloc(bytes), malloc(bytes), malloc(bytes) };
	kv_map_init(&map, s, &r->view, head);
	for (uint32_t row = 0; row < n; row++) {
		const float *v = sent + ((size_t)row * 2 + 1) * s->kv_heads * dim + head * dim;

		kv_map_find(&map, row, row + 1, &p);
		decode_row(&p, level, ret->k + row * dim, ret->v + row * dim);
		decode_score(&p, ret->score + row * dim);
		if (t) {
			order(t->k, (uint32_t)dim, ret->k + row * dim);
			order(t->k, (uint32_t)dim, ret->score + row * dim);
			order(t->v, (uint32_t)dim, ret->v + row * dim);
		}
		if (row >= summed || is_cut(&r->view, row))
			decode_counted(&p, t, ret->sent + row * dim);
		else
			widen(v, dim, ret->sent + row * dim);
	}
}

void ref_free(struct ref_rows *r)
{
	free(r->k);
	free(r->score);
	free(r->v);
	free(r->sent);
}

void ref_channels(const double *sums, uint32_t dim, uint32_t r, uint32_t *ret)
{
	uint32_t found = 0;

	for (uint32_t c = 0; c < dim; c++) {
		uint32_t better = 0;

		for (uint32_t other = 0; other < dim; other++)
			better += sums[other] > sums[c] || (sums[other] == sums[c] && other < c);
		if (better < r)
			ret[found++] = c;
	}
	assert(found == MIN(r, dim));
}

static double log_sum_exp(const double *x, uint32_t n)
{
	double max = -INFINITY, sum = 0;

	for (uint32_t i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	if (max == -INFINITY)
		return max;
	for (uint32_t i = 0; i < n; i++)
		sum += exp(x[i] - max);
	return max + log(sum);
}

double ref_scores(const struct ref_rows *rows, const struct ref_query *q, const uint32_t *channel,
		  uint32_t r, double *ret_a)
{
	double chosen = 0, all = 0, cover;

	for (uint32_t c = 0; c < rows->dim; c++)
		all += fabs(q->q[c]);
	for (uint32_t j = 0; j < r; j++)
		chosen += fabs(q->q[channel[j]]);
	cover = all > 0 && chosen > 0 ? chosen / all : 1;
	for (uint32_t t = 0; t < q->limit; t++) {
		double sum = 0;

		for (uint32_t j = 0; j < r; j++)
			sum += q->q[channel[j]] * rows->score[(size_t)t * rows->dim + channel[j]];
		ret_a[t] = sum * q->scale / sqrt(cover);
	}
	return log_sum_exp(ret_a, q->limit);
}

double ref_attend(const struct ref_rows *rows, const struct ref_query *q, const bool *chosen,
		  double *ret_y)
{
	double *z = malloc((q->limit + 1) * sizeof(*z)), lse;

	for (uint32_t t = 0; t < q->limit; t++) {
		z[t] = chosen[t] ? 0 : -INFINITY;
		for (uint32_t c = 0; c < rows->dim && chosen[t]; c++)
			z[t] += q->q[c] * rows->k[(size_t)t * rows->dim + c] * q->scale;
	}
	lse = log_sum_exp(z, q->limit);
	memset(ret_y, 0, rows->dim * sizeof(*ret_y));
	for (uint32_t t = 0; t < q->limit; t++)
		for (uint32_t c = 0; c < rows->dim && chosen[t]; c++)
			ret_y[c] += exp(z[t] - lse) * rows->v[(size_t)t * rows->dim + c];
	free(z);
	return lse;
}

bool ref_mean(const struct ref_rows *rows, uint32_t limit, const bool *chosen, bool rest,
	      double *ret_mean)
{
	uint32_t n = rest ? 0 : limit, unread = 0;

	memset(ret_mean, 0, rows->dim * sizeof(*ret_mean));
	for (uint32_t t = 0; t < limit; t++) {
		unread += !chosen[t];
		n += rest && !chosen[t];
		for (uint32_t c = 0; c < rows->dim; c++) {
			size_t at = (size_t)t * rows->dim + c;

			/* The sum of the rest is the sum of all as sent less the chosen as stored.
			 */
			ret_mean[c] += rows->sent[at] - (rest && chosen[t] ? rows->v[at] : 0);
		}
	}
	for (uint32_t c = 0; c < rows->dim; c++)
		ret_mean[c] /= n ? n : 1;
	return unread > 0;
}
