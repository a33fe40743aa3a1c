/* SPDX-License-Identifier: Apache-2.0 */
/* Channels of K held apart: see outliers.h. */
#include "kernels/outliers.h"

#include "kernels/vec/half.h"

/* Rows that a column has room for. */
static size_t column_rows(const struct kv_piece *p)
{
	return (size_t)p->k.tiles * p->k.tile_rows;
}

/* Finite, as parameters of groups are: no input makes a product of 0 and infinity. */
static void take_column(float *x, uint32_t dim, float *ret)
{
	for (uint32_t i = 0; i < KV_TILE_ROWS; i++) {
		ret[i] = kv_finite_f16(x[(size_t)i * dim]);
		x[(size_t)i * dim] = 0;
	}
}

void kv_outliers_write(const struct kv_map *r, const struct kv_block *k, unsigned slot, float *x,
		       uint16_t *to)
{
	const struct kv_space *s = r->space;
	float column[KV_MAX_OUTLIERS][KV_TILE_ROWS];

	for (uint32_t o = 0; o < r->n_outliers; o++)
		take_column(x + o, k->dim, column[o]);
	s->k->k_write(k, slot, x);
	s->k->k_read(k, slot * KV_TILE_ROWS, KV_TILE_ROWS, x);
	to += slot * KV_TILE_ROWS;
	for (uint32_t o = 0; o < r->n_outliers; o++, to += (size_t)k->tiles * KV_TILE_ROWS) {
		for (uint32_t i = 0; i < KV_TILE_ROWS; i++)
			column[o][i] = kv_finite_f16(column[o][i] - x[(size_t)i * k->dim + o]);
		s->ops->from_f32(KV_F16, column[o], to, KV_TILE_ROWS);
	}
}

void kv_outliers_read(const struct kv_piece *p, float *x)
{
	const uint16_t *from = p->outliers + p->at;

	for (uint32_t o = 0; o < p->n_outliers; o++, from += column_rows(p))
		for (uint32_t i = 0; i < p->n; i++)
			x[(size_t)i * p->k.dim + o] += kv_from_f16(from[i]);
}

void kv_outliers_prefetch(const struct kv_piece *p, uint32_t row)
{
	for (uint32_t o = 0; o < p->n_outliers; o++)
		__builtin_prefetch(p->outliers + o * column_rows(p) + row);
}

void kv_outliers_dot(const struct kv_ops *ops, const struct kv_piece *p, const float *q,
		     size_t q_stride, uint32_t heads, float *a, size_t a_stride)
{
	static const uint16_t all[KV_MAX_OUTLIERS] = { 0, 1, 2, 3, 4, 5, 6, 7 };

	ops->add_columns(p->outliers + p->at, column_rows(p), all, p->n_outliers, q, q_stride,
			 heads, p->n, a, a_stride);
}

void kv_outliers_score(const struct kv_ops *ops, const struct kv_piece *p, const float *coef,
		       size_t coef_stride, const uint16_t *place, uint32_t r, uint32_t heads,
		       float *a, size_t a_stride)
{
	uint32_t n = kv_outliers_among(place, r, p->n_outliers);

	ops->add_columns(p->outliers + p->at, column_rows(p), place, n, coef, coef_stride, heads,
			 p->n, a, a_stride);
}
