/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where rows lie, writing them, and the running sum of V.
 *
 * A tile keeps the sum of V over all rows up to its end, from V as sent, so a
 * fork or a rollback needs no bookkeeping. A tile that counts only in part
 * (after a fork or a cut inside it) has a sum that says too much: then the sum
 * of the tile before it and the rows themselves are used. Tiles behind rows that were
 * overwritten have a correction to it (overwrite.c).
 */
#include <assert.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "shm/base.h"

/* ---- finding --------------------------------------------------------------- */

struct kv_place kv_place_of(const struct kv_space *s, const struct kv_parts *parts, uint32_t head)
{
	uint32_t part;

	if (!parts)
		return (struct kv_place){ .at = head };
	part = kv_part_of(s->kv_heads, parts->n, head);
	return (struct kv_place){
		.shift = parts->shift[part],
		.at = head - (uint32_t)DIV_UP((uint64_t)part * s->kv_heads, parts->n),
	};
}

void kv_map_init(struct kv_map *r, const struct kv_space *s, const struct kv_view *view,
		 uint32_t head)
{
	*r = (struct kv_map){
		.space = s,
		.view = view,
		.head = head,
		.place = { kv_place_of(s, NULL, head), kv_place_of(s, view->parts, head) },
		.short_extent = kv_extent_layout(s, 1),
		.long_extent = kv_extent_layout(s, KV_EXTENT_TILES),
		.sinks = kv_chunk_layout(s, KV_MAX_SINKS),
		.chunk = kv_chunk_layout(s, KV_CHUNK_ROWS),
		.channels = kv_channels_of(view, head),
	};
	r->n_outliers = kv_outliers_of(s, r->channels);
}

static uint32_t extent_rows(const struct kv_extent *x)
{
	return x->used ? (x->used - 1u) * KV_TILE_ROWS + x->last_rows : 0;
}

static bool extent_holds(const struct kv_view *view, uint32_t i, uint32_t row)
{
	return i < view->n_extents &&
	       row - view->extent[i].first_row < extent_rows(&view->extent[i]);
}

/* The extent that holds a sealed row. Sequences that were never cut have them in the regular
 * places; else it is the last one that begins at or before the row. */
static const struct kv_extent *find_extent(const struct kv_view *view, uint32_t row)
{
	uint32_t sealed = row - view->n_sinks, low = 0, high = view->n_extents;
	uint32_t guess = sealed < KV_SHORT_ROWS ? sealed / KV_TILE_ROWS
						: KV_SHORT_ROWS / KV_TILE_ROWS +
							  (sealed - KV_SHORT_ROWS) /
								  (KV_EXTENT_TILES * KV_TILE_ROWS);

	if (extent_holds(view, guess, row))
		return &view->extent[guess];
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (view->extent[middle].first_row <= row)
			low = middle;
		else
			high = middle;
	}
	return &view->extent[low];
}

static struct kv_layout layout_of(const struct kv_map *r, unsigned tiles)
{
	if (tiles == 1)
		return r->short_extent;
	if (tiles == KV_EXTENT_TILES)
		return r->long_extent;
	return kv_extent_layout(r->space, tiles);
}

static struct kv_block tiles_block(const struct kv_space *s, void *base, uint32_t dim,
				   uint16_t tiles)
{
	return (struct kv_block){ .base = base,
				  .dim = dim,
				  .tiles = tiles,
				  .tile_rows = KV_TILE_ROWS,
				  .needs = s->needs };
}

static void find_tiles(const struct kv_map *r, uint32_t row, struct kv_piece *ret)
{
	const struct kv_space *s = r->space;
	const struct kv_extent *x = find_extent(r->view, row);
	struct kv_layout l = layout_of(r, x->tiles);
	char *base = kv_block_of(&r->place[x->parted], x->base, l.bytes);

	assert(row - x->first_row < extent_rows(x));
	*ret = (struct kv_piece){
		.k = tiles_block(s, base, s->k_dim, x->tiles),
		.v = tiles_block(s, base + l.v, s->v_dim, x->tiles),
		.kk = s->k,
		.kv = s->v,
		.sums = (float *)(base + l.sums),
		.outliers = (uint16_t *)(base + l.outliers),
		.n_outliers = r->n_outliers,
		.block_first = x->first_row,
		.block_rows = extent_rows(x),
		.correction = kv_correction_of(x, s, r->head),
	};
}

static void find_chunk(const struct kv_map *r, void *chunk, bool parted, uint16_t rows,
		       const struct kv_layout *l, struct kv_piece *ret)
{
	const struct kv_space *s = r->space;
	char *base = kv_block_of(&r->place[parted], chunk, l->bytes);

	*ret = (struct kv_piece){
		.k = { .base = base, .dim = s->k_dim, .tiles = 1, .tile_rows = rows },
		.v = { .base = base + l->v, .dim = s->v_dim, .tiles = 1, .tile_rows = rows },
		.kk = s->plain,
		.kv = s->plain,
	};
}

static bool sinks_are_parted(const struct kv_view *view)
{
	return view->parted & KV_PARTED_SINKS;
}

static bool chunk_is_parted(const struct kv_view *view, uint32_t i)
{
	return view->parted >> i & 1;
}

static void find_sinks(const struct kv_map *r, struct kv_piece *ret)
{
	find_chunk(r, r->view->sinks, sinks_are_parted(r->view), KV_MAX_SINKS, &r->sinks, ret);
	ret->block_rows = r->view->n_sinks;
}

static void find_tail(const struct kv_map *r, uint32_t row, struct kv_piece *ret)
{
	uint32_t chunk = (row - r->view->tail_first) / KV_CHUNK_ROWS;

	find_chunk(r, r->view->chunk[chunk], chunk_is_parted(r->view, chunk), KV_CHUNK_ROWS,
		   &r->chunk, ret);
	ret->block_first = r->view->tail_first + chunk * KV_CHUNK_ROWS;
	ret->block_rows = MIN(KV_CHUNK_ROWS, r->view->rows - ret->block_first);
}

void kv_map_find(const struct kv_map *r, uint32_t row, uint32_t end, struct kv_piece *ret)
{
	const struct kv_view *view = r->view;

	if (row - ret->block_first >= ret->block_rows) {
		if (row < view->n_sinks)
			find_sinks(r, ret);
		else if (row < view->rows - view->tail_rows)
			find_tiles(r, row, ret);
		else
			find_tail(r, row, ret);
	}
	ret->first = row;
	ret->at = row - ret->block_first;
	ret->n = MIN(ret->block_rows - ret->at, end - row);
}

/* ---- writing --------------------------------------------------------------- */

struct place { /* a row as sent: in the sinks or a chunk */
	char *base;
	const struct kv_parts *parts; /* NULL: a whole page's */
	uint32_t rows, at;
};

/* Sinks fill before the tail begins, so the tail of a shorter sequence is empty. */
static struct place place_of(const struct kv_space *s, const struct kv_view *view, uint32_t row)
{
	uint32_t tail_first = MAX(view->tail_first, s->sinks), i;

	if (row < s->sinks)
		return (struct place){ view->sinks, sinks_are_parted(view) ? view->parts : NULL,
				       KV_MAX_SINKS, row };
	assert(row >= tail_first);
	i = (row - tail_first) / KV_CHUNK_ROWS;
	assert(i < KV_MAX_CHUNKS);
	return (struct place){ view->chunk[i], chunk_is_parted(view, i) ? view->parts : NULL,
			       KV_CHUNK_ROWS, (row - tail_first) % KV_CHUNK_ROWS };
}

static char *block_in(const struct kv_space *s, const struct place *p, uint32_t head, size_t bytes)
{
	const struct kv_place place = kv_place_of(s, p->parts, head);

	return kv_block_of(&place, p->base, bytes);
}

static void write_row(const struct kv_space *s, struct place to, const struct kv_view *view,
		      const char *kv)
{
	size_t e = kv_dtype_bytes(s->dtype), k_bytes = s->k_dim * e, v_bytes = s->v_dim * e;
	struct kv_layout l = kv_chunk_layout(s, to.rows);
	const char *v = kv + s->kv_heads * k_bytes;

	for (uint32_t h = 0; h < s->kv_heads; h++) {
		const struct kv_channels *t = kv_channels_of(view, h);
		char *block = block_in(s, &to, h, l.bytes), *k_to = block + to.at * k_bytes,
		     *v_to = block + l.v + to.at * v_bytes;

		if (unlikely(t)) {
			kv_channels_store(t->k, s->k_dim, e, kv + h * k_bytes, k_to);
			kv_channels_store(t->v, s->v_dim, e, v + h * v_bytes, v_to);
			continue;
		}
		memcpy(k_to, kv + h * k_bytes, k_bytes);
		memcpy(v_to, v + h * v_bytes, v_bytes);
	}
}

void kv_write(const struct kv_space *s, const struct kv_view *view, uint32_t row, uint32_t n,
	      const void *kv, size_t stride)
{
	for (uint32_t i = 0; i < n; i++)
		write_row(s, place_of(s, view, row + i), view, (const char *)kv + i * stride);
}

static void copy_row(const struct kv_space *s, struct place from, struct place to)
{
	size_t e = kv_dtype_bytes(s->dtype), k_bytes = s->k_dim * e, v_bytes = s->v_dim * e;
	struct kv_layout lf = kv_chunk_layout(s, from.rows), lt = kv_chunk_layout(s, to.rows);

	for (uint32_t h = 0; h < s->kv_heads; h++) {
		const char *f = block_in(s, &from, h, lf.bytes);
		char *t = block_in(s, &to, h, lt.bytes);

		memcpy(t + to.at * k_bytes, f + from.at * k_bytes, k_bytes);
		memcpy(t + lt.v + to.at * v_bytes, f + lf.v + from.at * v_bytes, v_bytes);
	}
}

void kv_copy(const struct kv_space *s, const struct kv_view *from, const struct kv_view *to,
	     uint32_t first, uint32_t n)
{
	for (uint32_t row = first; row < first + n; row++)
		copy_row(s, place_of(s, from, row), place_of(s, to, row));
}

/* ---- sums of V ------------------------------------------------------------- */

void kv_map_add_v(const struct kv_map *r, uint32_t from, uint32_t to, double *sum)
{
	enum { STEP = 16 };
	float x[STEP * KV_MAX_DIM];
	struct kv_piece p = { 0 };
	uint32_t dim = r->space->v_dim;

	for (uint32_t row = from; row < to; row += p.n) {
		kv_map_find(r, row, to, &p);
		p.n = MIN(p.n, (uint32_t)STEP);
		p.kv->v_read(&p.v, p.at, p.n, x);
		r->space->ops->add_rows(x, p.n, dim, sum);
	}
}

/* Ends of whole tiles of an extent at or below `limit`. */
static uint32_t whole_tiles(const struct kv_extent *x, uint32_t limit)
{
	uint32_t counted = x->used - (x->used && x->last_rows < KV_TILE_ROWS);

	return limit > x->first_row ? MIN(counted, (limit - x->first_row) / KV_TILE_ROWS) : 0;
}

void kv_map_sum_v(const struct kv_map *r, uint32_t limit, double *ret_sum, uint32_t *ret_from)
{
	const struct kv_view *view = r->view;
	uint32_t dim = r->space->v_dim, from = 0;

	memset(ret_sum, 0, dim * sizeof(*ret_sum));
	for (uint32_t i = view->n_extents; i-- && !from;) {
		const struct kv_extent *x = &view->extent[i];
		uint32_t tiles = whole_tiles(x, limit);
		struct kv_piece p = { 0 };

		if (!tiles)
			continue;
		from = x->first_row + tiles * KV_TILE_ROWS;
		kv_map_find(r, x->first_row, from, &p);
		for (uint32_t c = 0; c < dim; c++)
			ret_sum[c] = (double)kv_piece_sum(&p, tiles - 1, c);
	}
	kv_map_add_v(r, from, limit, ret_sum);
	*ret_from = from;
}

/* ---- flush ----------------------------------------------------------------- */

/* The oldest tile's rows of the tail, widened; chunks divide a tile. */
static void read_tail(const struct kv_map *r, bool k, float *x)
{
	uint32_t dim = k ? r->space->k_dim : r->space->v_dim;
	uint32_t first = r->view->tail_first;
	struct kv_piece p = { 0 };

	for (uint32_t i = 0; i < KV_TILE_ROWS; i += p.n) {
		kv_map_find(r, first + i, first + KV_TILE_ROWS, &p);
		if (k)
			p.kk->k_read(&p.k, p.at, p.n, x + (size_t)i * dim);
		else
			p.kv->v_read(&p.v, p.at, p.n, x + (size_t)i * dim);
	}
}

/* What the extent lacks is added to each of its sums when it is read. */
static void flush_sum(const struct kv_map *r, const float *x, const double *correction, float *ret)
{
	double sum[KV_MAX_DIM];
	uint32_t dim = r->space->v_dim, from;

	kv_map_sum_v(r, r->view->tail_first, sum, &from);
	r->space->ops->add_rows(x, KV_TILE_ROWS, dim, sum);
	for (uint32_t c = 0; c < dim; c++)
		ret[c] = (float)(correction ? sum[c] - correction[c] : sum[c]);
}

static char *tiles_of_head(const struct kv_space *s, const struct kv_view *view,
			   const struct kv_extent *x, const struct kv_layout *l, uint32_t head)
{
	const struct kv_place place = kv_place_of(s, x->parted ? view->parts : NULL, head);

	return kv_block_of(&place, x->base, l->bytes);
}

const void *kv_flush_at(const struct kv_space *s, const struct kv_view *view,
			const struct kv_extent *extent, uint32_t head)
{
	struct kv_layout l = kv_extent_layout(s, extent->tiles);

	return tiles_of_head(s, view, extent, &l, head);
}

void kv_flush(const struct kv_space *s, const struct kv_view *view, const struct kv_extent *extent,
	      unsigned slot, uint32_t head)
{
	struct kv_layout l = kv_extent_layout(s, extent->tiles);
	char *base = tiles_of_head(s, view, extent, &l, head);
	const struct kv_block k = tiles_block(s, base, s->k_dim, extent->tiles);
	const struct kv_block v = tiles_block(s, base + l.v, s->v_dim, extent->tiles);
	float x[KV_TILE_ROWS * KV_MAX_DIM]; /* 128 KiB: the largest stack use of this folder */
	struct kv_map rows;

	kv_map_init(&rows, s, view, head);
	assert(view->tail_rows >= KV_TILE_ROWS && slot < extent->tiles);
	read_tail(&rows, true, x);
	if (unlikely(rows.n_outliers))
		kv_outliers_write(&rows, &k, slot, x, (uint16_t *)(base + l.outliers));
	else
		s->k->k_write(&k, slot, x);
	read_tail(&rows, false, x);
	s->v->v_write(&v, slot, x);
	flush_sum(&rows, x, kv_correction_of(extent, s, head),
		  (float *)(base + l.sums) + (size_t)slot * s->v_dim);
}
