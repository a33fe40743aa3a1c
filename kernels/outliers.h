/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outlier channels: the first places of K, kept in f16 beside the planes of a
 * quantised tile, channel by channel, [n][128 T].
 *
 * In the planes they are zeros, so that no group is widened by them, and here is
 * what the planes lack: the number less what the format makes of that zero. That
 * is nothing where a group is a channel, and up to half a step where it is a part
 * of a row. So a format knows nothing of outliers: whatever it computes is
 * completed by adding their products, and both are sums of the same rows. A format
 * that can be read at two levels must make the same of a zero at both. A format of
 * plain elements keeps all channels as they are and has no such plane.
 *
 * K is read through the functions below, not through the kernel table itself.
 */
#pragma once

#include "kernels/map.h"
#include "kernels/table.h"
#include "shm/base.h"

/* That the tiles of a head hold apart. */
static inline uint32_t kv_outliers_of(const struct kv_space *s, const struct kv_channels *t)
{
	return t && !s->k->plain ? t->n_outliers : 0;
}

/* Of an extent: room for as many as a table may have. A multiple of 64. */
static inline size_t kv_outliers_bytes(const struct kv_space *s, unsigned tiles)
{
	return s->k->plain ? 0 : (size_t)s->outliers * tiles * KV_TILE_ROWS * sizeof(uint16_t);
}

/* How many of the places, which ascend, are outliers: they come first. */
static inline uint32_t kv_outliers_among(const uint16_t *place, uint32_t r, uint32_t n_outliers)
{
	uint32_t n = 0;

	while (n < r && place[n] < n_outliers)
		n++;
	return n;
}

/* k_write for a tile of `k`, x[KV_TILE_ROWS][k_dim], which is spoilt; `to` is the block's plane. */
void kv_outliers_write(const struct kv_map *r, const struct kv_block *k, unsigned slot, float *x,
		       uint16_t *to);

/* ---- what completes an operation of the table ----------------------------------------- */

void kv_outliers_read(const struct kv_piece *p, float *x);
void kv_outliers_prefetch(const struct kv_piece *p, uint32_t row);
void kv_outliers_dot(const struct kv_ops *ops, const struct kv_piece *p, const float *q,
		     size_t q_stride, uint32_t heads, float *a, size_t a_stride);
void kv_outliers_score(const struct kv_ops *ops, const struct kv_piece *p, const float *coef,
		       size_t coef_stride, const uint16_t *place, uint32_t r, uint32_t heads,
		       float *a, size_t a_stride);

/* ---- reading K of a piece: as in table.h -------------------------------------------------- */

static inline void kv_piece_read_k(const struct kv_piece *p, float *x)
{
	p->kk->k_read(&p->k, p->at, p->n, x);
	if (unlikely(p->n_outliers))
		kv_outliers_read(p, x);
}

static inline void kv_piece_prefetch_k(const struct kv_piece *p, uint32_t row)
{
	p->kk->k_prefetch(&p->k, row);
	if (unlikely(p->n_outliers))
		kv_outliers_prefetch(p, row);
}

static inline void kv_piece_dot(const struct kv_ops *ops, const struct kv_piece *p, const float *q,
				size_t q_stride, uint32_t heads, float *a, size_t a_stride,
				unsigned level)
{
	p->kk->k_dot(&p->k, p->at, p->n, q, q_stride, heads, a, a_stride, level);
	if (unlikely(p->n_outliers))
		kv_outliers_dot(ops, p, q, q_stride, heads, a, a_stride);
}

static inline void kv_piece_score(const struct kv_ops *ops, const struct kv_piece *p,
				  const float *coef, size_t coef_stride, const uint16_t *place,
				  uint32_t r, uint32_t heads, float *a, size_t a_stride)
{
	p->kk->k_score_dims(&p->k, p->at, p->n, coef, coef_stride, place, r, heads, a, a_stride);
	if (unlikely(p->n_outliers))
		kv_outliers_score(ops, p, coef, coef_stride, place, r, heads, a, a_stride);
}
