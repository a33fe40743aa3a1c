/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of a view as the GPU finds them, and the units that its rows are in. */
#include "kernels/cuda/batch-private.h"

#include <errno.h>
#include <string.h>

#include "kernels/map.h"
#include "shm/base.h"

struct pages {
	struct writer *w;
	const struct kv_gpu_item *item;
	const struct choice *choice;
	struct kv_cuda_item *x;
};

/* ---- layouts ------------------------------------------------------------------------- */

static uint32_t find_layout(struct writer *w, const struct kv_space *s, uint32_t tiles,
			    uint32_t rows)
{
	struct kv_layout l = tiles ? kv_extent_layout(s, tiles) : kv_chunk_layout(s, rows);
	struct kv_cuda_layout *to;
	uint32_t index;

	for (uint32_t i = 0; i < w->n_layouts; i++)
		if (w->layout[i].space == s && w->layout[i].tiles == tiles &&
		    w->layout[i].rows == rows)
			return w->layout[i].index;
	index = w->n[KV_CUDA_LAYOUTS];
	to = batch_push(w, KV_CUDA_LAYOUTS, 1);
	if (to)
		*to = (struct kv_cuda_layout){ .tiles = tiles ? tiles : 1,
					       .v = (uint32_t)l.v,
					       .sums = (uint32_t)l.sums,
					       .outliers = (uint32_t)l.outliers,
					       .bytes = (uint32_t)l.bytes };
	if (w->n_layouts < BATCH_LAYOUTS)
		w->layout[w->n_layouts++] = (struct layout_key){ s, tiles, rows, index };
	return index;
}

/* ---- pages ------------------------------------------------------------------------------ */

static void put_address(struct writer *w, uint64_t *to, const void *host)
{
	if (!to)
		return;
	*to = w->where->device_of(w->where->arg, host);
	if (!*to)
		w->error = -EFAULT;
}

/* The page's addresses: of each part, or one. */
static uint32_t put_addresses(const struct pages *p, const char *page, bool parted)
{
	const struct kv_parts *parts = parted ? p->item->view->parts : NULL;
	uint32_t n = parts ? parts->n : 1, at = p->w->n[KV_CUDA_ADDRESSES];
	uint64_t *to = batch_push(p->w, KV_CUDA_ADDRESSES, n);

	for (uint32_t i = 0; i < n; i++)
		put_address(p->w, to ? to + i : NULL, parts ? page + parts->shift[i] : page);
	return at;
}

static uint32_t put_correction(const struct pages *p, const double *correction)
{
	const struct kv_space *s = p->item->space;
	uint32_t n = s->kv_heads * s->v_dim, at = p->w->n[KV_CUDA_CORRECTIONS];
	double *to;

	if (!correction)
		return KV_CUDA_NONE;
	to = batch_push(p->w, KV_CUDA_CORRECTIONS, n);
	if (to)
		memcpy(to, correction, n * sizeof(*to));
	return at;
}

static uint32_t put_block(const struct pages *p, const void *page, bool parted, uint32_t layout,
			  bool sent, const double *correction)
{
	uint32_t at = p->w->n[KV_CUDA_BLOCKS];
	struct kv_cuda_block x = { .address = put_addresses(p, page, parted),
				   .layout = (uint16_t)layout,
				   .sent = sent,
				   .parted = parted && p->item->view->parts,
				   .correction = put_correction(p, correction) };
	struct kv_cuda_block *to = batch_push(p->w, KV_CUDA_BLOCKS, 1);

	if (to)
		*to = x;
	return at;
}

/* ---- units -------------------------------------------------------------------------------- */

static void put_unit(const struct pages *p, struct kv_cuda_unit x)
{
	struct kv_cuda_unit *to = batch_push(p->w, KV_CUDA_UNITS, 1);

	if (to)
		*to = x;
	p->x->n_units++;
}

/* Without scores: once for each run that has rows of it. */
static void put_chosen(const struct pages *p, struct kv_cuda_unit x)
{
	for (uint32_t i = 0; i < p->choice->n_runs; i++) {
		const struct kv_cuda_run *run = &p->choice->run[i];
		uint32_t first = MAX(run->first, x.first_row);
		uint32_t end = MIN(run->first + run->n, x.first_row + x.rows);

		if (first >= end)
			continue;
		x.from = (uint16_t)(first - x.first_row);
		x.to = (uint16_t)(end - x.first_row);
		put_unit(p, x);
	}
}

/* Rows [first, first + n) of a block. */
static void put_units(const struct pages *p, uint32_t block, uint32_t first, uint32_t n)
{
	uint32_t visible = p->choice->visible;

	n = first < visible ? MIN(n, visible - first) : 0;
	for (uint32_t i = 0; i < n; i += KV_CUDA_UNIT_ROWS) {
		struct kv_cuda_unit x = { .first_row = first + i,
					  .block = block,
					  .at = i,
					  .rows = (uint16_t)MIN(n - i, KV_CUDA_UNIT_ROWS) };

		if (p->choice->scored)
			put_unit(p, x);
		else
			put_chosen(p, x);
	}
}

static uint32_t extent_rows(const struct kv_extent *x)
{
	return x->used ? (x->used - 1u) * KV_TILE_ROWS + x->last_rows : 0;
}

static uint32_t put_extent(const struct pages *p, const struct kv_extent *e)
{
	uint32_t layout = find_layout(p->w, p->item->space, e->tiles, KV_TILE_ROWS);

	return put_block(p, e->base, e->parted, layout, false, e->correction);
}

static void put_sealed(const struct pages *p)
{
	const struct kv_view *v = p->item->view;

	for (uint32_t i = 0; i < v->n_extents && v->extent[i].first_row < p->choice->visible; i++) {
		const struct kv_extent *e = &v->extent[i];

		put_units(p, put_extent(p, e), e->first_row, extent_rows(e));
	}
}

static void put_tail(const struct pages *p)
{
	const struct kv_view *v = p->item->view;
	uint32_t layout = find_layout(p->w, p->item->space, 0, KV_CHUNK_ROWS);

	for (uint32_t i = 0; i * KV_CHUNK_ROWS < v->tail_rows; i++) {
		uint32_t first = v->tail_first + i * KV_CHUNK_ROWS, block;

		if (first >= p->choice->visible)
			return;
		block = put_block(p, v->chunk[i], v->parted >> i & 1, layout, true, NULL);
		put_units(p, block, first, MIN(KV_CHUNK_ROWS, v->tail_rows - i * KV_CHUNK_ROWS));
	}
}

void batch_pages(struct writer *w, const struct kv_gpu_item *item, const struct choice *c,
		 struct kv_cuda_item *x)
{
	const struct pages p = { w, item, c, x };
	const struct kv_view *v = item->view;

	x->units = w->n[KV_CUDA_UNITS];
	x->n_units = 0;
	x->parts = v->parts ? v->parts->n : 1;
	if (v->n_sinks) {
		uint32_t layout = find_layout(w, item->space, 0, KV_MAX_SINKS);
		uint32_t block =
			put_block(&p, v->sinks, v->parted & KV_PARTED_SINKS, layout, true, NULL);

		put_units(&p, block, 0, v->n_sinks);
	}
	put_sealed(&p);
	put_tail(&p);
}

uint32_t batch_extent(struct writer *w, const struct kv_gpu_item *item, const struct kv_extent *e)
{
	const struct pages p = { .w = w, .item = item };

	return put_extent(&p, e);
}
