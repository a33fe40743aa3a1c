/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other rows in the place of sealed ones.
 *
 * A slot is written once while anybody may read it, so the extents that hold such
 * rows are copied, and in the copies their tiles are decoded, changed and quantised
 * again. Rows of such a tile that stay are quantised twice: by at most twice the
 * format's error they differ from what was sent.
 *
 * Every tile behind the first row that changes says a sum of V that is off by the same
 * vector, or by a part of it within the rows that change. In copies it is put right;
 * of extents that stay it is said to the caller, who notes it (kv_extent.correction).
 */
#include <assert.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "shm/base.h"

struct change { /* one KV head */
	const struct kv_space *space;
	const struct kv_overwrite *w;
	uint32_t head;
	struct kv_map from, to;
	double *delta; /* of the sum of V, over the rows changed so far */
};

/* Row `row` of the client as the head's tile has it. */
static void new_row(const struct change *c, uint32_t row, bool k, float *x)
{
	const struct kv_space *s = c->space;
	size_t e = kv_dtype_bytes(s->dtype);
	const char *at = (const char *)c->w->kv + (row - c->w->row) * c->w->stride;
	const struct kv_channels *t = c->from.channels;
	uint32_t dim = k ? s->k_dim : s->v_dim;
	char places[KV_MAX_DIM * sizeof(float)];

	at += k ? c->head * s->k_dim * e : (s->kv_heads * s->k_dim + c->head * s->v_dim) * e;
	if (t) {
		kv_channels_store(k ? t->k : t->v, dim, e, at, places);
		at = places;
	}
	s->ops->to_f32(s->dtype, at, x, dim);
}

/* x[dim] of a row that goes (sign -1) or has come. */
static void count(const struct change *c, const float *x, double sign)
{
	for (uint32_t i = 0; i < c->space->v_dim; i++)
		c->delta[i] += sign * (double)x[i];
}

/* All rows of the tile, those that nobody counts as well: they are a part of its groups. */
static void change_k(const struct change *c, const struct kv_piece *from, const struct kv_piece *to,
		     unsigned slot, uint32_t first, uint32_t n)
{
	const struct kv_space *s = c->space;
	struct kv_piece tile = *from;
	float x[KV_TILE_ROWS * KV_MAX_DIM];
	uint32_t tile_first = from->block_first + slot * KV_TILE_ROWS;

	tile.at = slot * KV_TILE_ROWS;
	tile.n = KV_TILE_ROWS;
	kv_piece_read_k(&tile, x);
	for (uint32_t row = first; row < first + n; row++)
		new_row(c, row, true, x + (size_t)(row - tile_first) * s->k_dim);
	if (unlikely(to->n_outliers))
		kv_outliers_write(&c->to, &to->k, slot, x, to->outliers);
	else
		s->k->k_write(&to->k, slot, x);
}

static void change_v(const struct change *c, const struct kv_piece *from, const struct kv_piece *to,
		     unsigned slot, uint32_t first, uint32_t n)
{
	const struct kv_space *s = c->space;
	float x[KV_TILE_ROWS * KV_MAX_DIM];
	uint32_t tile_first = from->block_first + slot * KV_TILE_ROWS;

	s->v->v_read(&from->v, slot * KV_TILE_ROWS, KV_TILE_ROWS, x);
	for (uint32_t row = first; row < first + n; row++) {
		float *at = x + (size_t)(row - tile_first) * s->v_dim;

		count(c, at, -1);
		new_row(c, row, false, at); /* read once: what is counted is what is written */
		count(c, at, 1);
	}
	s->v->v_write(&to->v, slot, x);
}

/* The rows of one tile that change, [*first, *first + the result). */
static uint32_t rows_in_tile(const struct kv_overwrite *w, const struct kv_extent *x, unsigned slot,
			     uint32_t *first)
{
	uint32_t begin = x->first_row + slot * KV_TILE_ROWS;
	uint32_t end = begin + (slot + 1u == x->used ? x->last_rows : KV_TILE_ROWS);

	*first = MAX(begin, w->row);
	end = MIN(end, w->row + w->n);
	return end > *first ? end - *first : 0;
}

static void copy_extent(const struct change *c, uint32_t i)
{
	const struct kv_space *s = c->space;
	const struct kv_extent *x = &c->w->view->extent[i];
	struct kv_piece from = { 0 }, to = { 0 };

	kv_map_find(&c->from, x->first_row, x->first_row + 1, &from);
	kv_map_find(&c->to, x->first_row, x->first_row + 1, &to);
	assert(from.block_first == to.block_first && from.k.base != to.k.base);
	memcpy(to.k.base, from.k.base, kv_extent_bytes(s, x->tiles));
	for (unsigned slot = 0; slot < x->used; slot++) {
		float *sums = to.sums + (size_t)slot * s->v_dim;
		uint32_t first, n = rows_in_tile(c->w, x, slot, &first);

		if (n) {
			change_k(c, &from, &to, slot, first, n);
			change_v(c, &from, &to, slot, first, n);
		}
		for (uint32_t j = 0; j < s->v_dim; j++)
			sums[j] = (float)((double)kv_piece_sum(&from, slot, j) + c->delta[j]);
	}
}

/* Their V counts in the sums of all tiles. */
static void count_sinks(const struct change *c)
{
	uint32_t end = MIN(c->w->row + c->w->n, c->w->view->n_sinks);
	struct kv_piece from = { 0 }, to = { 0 };
	float x[KV_MAX_DIM];

	for (uint32_t row = c->w->row; row < end; row++) {
		kv_map_find(&c->from, row, end, &from);
		kv_map_find(&c->to, row, end, &to);
		from.kv->v_read(&from.v, from.at, 1, x);
		count(c, x, -1);
		to.kv->v_read(&to.v, to.at, 1, x);
		count(c, x, 1);
	}
}

void kv_overwrite(const struct kv_space *s, const struct kv_overwrite *w, uint32_t head,
		  double *ret_delta)
{
	struct change c = { .space = s, .w = w, .head = head, .delta = ret_delta };
	struct kv_view to = *w->recent;

	to.extent = w->to;
	memset(ret_delta, 0, s->v_dim * sizeof(*ret_delta));
	kv_map_init(&c.from, s, w->view, head);
	kv_map_init(&c.to, s, &to, head);
	count_sinks(&c);
	for (uint32_t i = 0; i < to.n_extents; i++)
		if (w->to[i].base)
			copy_extent(&c, i);
}
