/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes by the formulas of sparq-formats(7), one row at a time. */
#include <stdlib.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "shm/base.h"
#include "tests/kernels/exec-bytes.h"

struct format_bytes {
	const char *name;
	unsigned score_bits;       /* of an element that scoring reads */
	unsigned k_bits;           /* of an element of an exact row; rows are padded to 16 bytes */
	unsigned v_upper, v_lower; /* bits */
	bool parameters;           /* 4 bytes per channel and tile of K, per row of V ... */
	unsigned group;            /* ... or of both per row and so many channels */
};
static const struct format_bytes formats[] = {
	{ "f32", 32, 32, 32, 0, false, 0 },  { "f16", 16, 16, 16, 0, false, 0 },
	{ "bf16", 16, 16, 16, 0, false, 0 }, { "int8", 8, 8, 8, 0, true, 0 },
	{ "int4", 4, 4, 4, 0, true, 64 },    { "hier4", 4, 8, 4, 4, true, 0 },
};

static const struct format_bytes *format_of(const struct kv_kernels *k)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i].name, k->format))
			return &formats[i];
	abort(); /* a new format states its bytes here */
}

static uint64_t row_bytes(unsigned bits, uint32_t dim)
{
	return ALIGN_UP((uint64_t)bits * dim / 8, 16);
}

static bool is_recent(const struct kv_view *v, uint32_t row)
{
	return row < v->n_sinks || row >= v->rows - v->tail_rows;
}

/* A number for the tile of a sealed row. */
static uint64_t tile_of(const struct kv_view *v, uint32_t row)
{
	uint32_t i = v->n_extents - 1;

	while (v->extent[i].first_row > row)
		i--;
	return (uint64_t)i << 32 | (row - v->extent[i].first_row) / KV_TILE_ROWS;
}

static uint64_t k_parameters(const struct format_bytes *f, uint32_t dim, bool new_tile,
			     uint32_t channels)
{
	if (f->group)
		return 4 * DIV_UP(dim, f->group);
	return f->parameters && new_tile ? 4 * channels : 0;
}

static void add_k(const struct format_bytes *f, uint32_t dim, bool new_tile, bool upper,
		  uint64_t *p)
{
	if (upper && f->v_lower)
		p[KV_PLANE_SCORE] += (uint64_t)dim * f->score_bits / 8;
	else
		p[KV_PLANE_K] += row_bytes(f->k_bits, dim);
	p[KV_PLANE_PARAMETERS] += k_parameters(f, dim, new_tile, dim);
}

static void add_v(const struct format_bytes *f, uint32_t dim, bool upper, uint64_t *p)
{
	p[KV_PLANE_V_UPPER] += row_bytes(f->v_upper, dim);
	if (f->v_lower && !upper)
		p[KV_PLANE_V_LOWER] += row_bytes(f->v_lower, dim);
	if (f->parameters)
		p[KV_PLANE_PARAMETERS] += 4 * (f->group ? DIV_UP(dim, f->group) : 1);
}

/* Rows below `end`; NULL: all of them. */
static void add_attended(const struct rig *r, uint32_t end, struct bytes_apart apart,
			 const bool *chosen, bool upper, uint64_t *p)
{
	const struct kv_space *s = r->space;
	uint64_t last = UINT64_MAX;

	for (uint32_t row = 0; row < end; row++) {
		if (chosen && !chosen[row])
			continue;
		if (is_recent(&r->view, row)) {
			p[KV_PLANE_RECENT] += (s->k_dim + s->v_dim) * kv_dtype_bytes(s->dtype);
			continue;
		}
		add_k(format_of(s->k), s->k_dim, tile_of(&r->view, row) != last, upper, p);
		add_v(format_of(s->v), s->v_dim, upper, p);
		p[KV_PLANE_K] += 2 * apart.all;
		last = tile_of(&r->view, row);
	}
}

static void add_scored(const struct rig *r, uint32_t channels, struct bytes_apart apart,
		       const bool *chosen, uint64_t *p)
{
	const struct kv_space *s = r->space;
	const struct format_bytes *f = format_of(s->k);
	uint64_t last = UINT64_MAX, bits = 0;

	for (uint32_t row = 0; row < r->view.rows; row++) {
		if (is_recent(&r->view, row)) {
			p[KV_PLANE_RECENT] += chosen[row] ? 0 : channels * kv_dtype_bytes(s->dtype);
			continue;
		}
		bits += (uint64_t)f->score_bits * channels;
		p[KV_PLANE_K] += 2 * apart.scored;
		p[KV_PLANE_PARAMETERS] +=
			k_parameters(f, s->k_dim, tile_of(&r->view, row) != last, channels);
		last = tile_of(&r->view, row);
	}
	p[KV_PLANE_SCORE] += bits / 8;
}

/* The sum of V up to the last whole tile that counts wholly, and the rows after it. */
static void add_summed(const struct rig *r, uint32_t limit, const bool *chosen, uint64_t *p)
{
	const struct kv_view *v = &r->view;
	const struct kv_space *s = r->space;
	uint32_t from = 0;

	for (uint32_t i = 0; i < v->n_extents; i++)
		for (uint32_t t = 0; t < v->extent[i].used; t++) {
			const struct kv_extent *x = &v->extent[i];
			bool whole = t + 1u < x->used || x->last_rows == KV_TILE_ROWS;
			uint32_t end = x->first_row + (t + 1) * KV_TILE_ROWS;

			if (whole && end <= limit)
				from = end;
		}
	p[KV_PLANE_STATE] += from ? s->v_dim * sizeof(float) : 0;
	for (uint32_t row = from; row < v->rows; row++)
		if (!is_recent(v, row))
			add_v(format_of(s->v), s->v_dim, false, p);
		else if (!chosen[row])
			p[KV_PLANE_RECENT] += s->v_dim * kv_dtype_bytes(s->dtype);
	/* Without a tile's sum the sinks are among the rows read; with one they are in it. */
}

static uint32_t limit_of(const struct rig *r, const struct kv_query *q, uint32_t i)
{
	return q->full ? r->view.rows : MIN(q->first_limit + i, r->view.rows);
}

/* Queries that share one reading of the rows: all of them, unless there are many heads. */
static uint32_t block_of(const struct rig *r, const struct kv_query *q)
{
	uint32_t group = r->space->group;
	bool many = q->n_q > KV_MAX_DECODE_Q || (q->n_q * group > FEW_HEADS && !q->level);

	return many ? MAX(1u, MANY_HEADS / group) : q->n_q;
}

void bytes_expected(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		    struct bytes_apart apart, const bool *chosen, uint64_t ret_planes[KV_PLANES])
{
	const struct kv_op *dims = NULL, *mean = NULL;

	for (unsigned i = 0; i < plan->n_ops; i++) {
		dims = plan->op[i].kind == KV_OP_SCORE_DIMS ? &plan->op[i] : dims;
		mean = plan->op[i].kind == KV_OP_MEAN_REST ? &plan->op[i] : mean;
	}
	if (!dims) {
		uint32_t block = block_of(r, query);

		for (uint32_t i = 0; i < query->n_q; i += block)
			add_attended(r, limit_of(r, query, MIN(i + block, query->n_q) - 1), apart,
				     chosen, query->level, ret_planes);
		return;
	}
	add_attended(r, r->view.rows, apart, chosen, query->level, ret_planes);
	add_scored(r, MIN(dims->n[0], r->space->k_dim), apart, chosen, ret_planes);
	if (mean && mean->n[0] != KV_MEAN_OFF)
		add_summed(r, limit_of(r, query, 0), chosen, ret_planes);
}
