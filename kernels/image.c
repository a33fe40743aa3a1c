/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows as bytes: from a place in a file to places in memory.
 *
 * Every plane of a format is runs of equal pieces, one a tile (table.h), so the
 * first tiles of an extent are the beginnings of its runs, and what a file holds of
 * them is those beginnings, one after the other. An extent that is full has them side
 * by side already: there a plane is one run.
 */
#include <assert.h>

#include "kernels/map.h"
#include "kernels/outliers.h"
#include "shm/base.h"

/* Of one KV head's block: pieces of `bytes`, `stride` apart. */
struct part {
	size_t at, stride, bytes;
	uint32_t runs;
	const double *correction; /* [dim]: sums of V, and what they lack; NULL: as they are */
	uint32_t dim;
};
#define MAX_PARTS (2 * KV_MAX_PLANES + 2) /* of K and V; sums, outliers */

struct parts {
	struct part part[MAX_PARTS];
	unsigned n;
	size_t bytes;
};

static void add_part(struct parts *p, size_t at, size_t stride, size_t bytes, uint32_t runs)
{
	if (bytes == stride) {
		bytes *= runs;
		runs = 1;
	}
	p->part[p->n++] = (struct part){ .at = at, .stride = stride, .bytes = bytes, .runs = runs };
	p->bytes += bytes * runs;
}

/* What the last one, sums of V, lacks. */
static void correct_part(struct parts *p, const double *correction, uint32_t dim)
{
	p->part[p->n - 1].correction = correction;
	p->part[p->n - 1].dim = dim;
}

static void add_planes(struct parts *p, const struct kv_plane *plane, unsigned n, size_t at,
		       unsigned tiles, unsigned used)
{
	for (unsigned i = 0; i < n; i++) {
		add_part(p, at, tiles * plane[i].bytes, used * plane[i].bytes, plane[i].runs);
		at += tiles * plane[i].bytes * plane[i].runs;
	}
}

/* The first `used` tiles of a block of `tiles`, of a head with this table. */
static struct parts parts_of_tiles(const struct kv_space *s, const struct kv_channels *table,
				   unsigned tiles, unsigned used, const double *correction)
{
	struct kv_layout l = kv_extent_layout(s, tiles);
	struct kv_plane plane[KV_MAX_PLANES];
	struct parts p = { .n = 0 };
	size_t sums = s->v_dim * sizeof(float), column = KV_TILE_ROWS * sizeof(uint16_t);
	unsigned n;

	n = s->k->k_planes(s->k_dim, s->needs, plane);
	add_planes(&p, plane, n, 0, tiles, used);
	n = s->v->v_planes(s->v_dim, s->needs, plane);
	add_planes(&p, plane, n, l.v, tiles, used);
	add_part(&p, l.sums, tiles * sums, used * sums, 1);
	correct_part(&p, correction, s->v_dim);
	add_part(&p, l.outliers, tiles * column, used * column, kv_outliers_of(s, table));
	return p;
}

static struct parts parts_of_rows(const struct kv_space *s, unsigned room, unsigned rows)
{
	struct kv_layout l = kv_chunk_layout(s, room);
	size_t e = kv_dtype_bytes(s->dtype);
	struct parts p = { .n = 0 };

	add_part(&p, 0, room * s->k_dim * e, rows * s->k_dim * e, 1);
	add_part(&p, l.v, room * s->v_dim * e, rows * s->v_dim * e, 1);
	return p;
}

/* What is asked for, as it is used up. */
struct range {
	size_t at, n;
	kv_visit_fn *visit;
	void *arg;
};

/* Some of the n bytes from `in` on: floats that lie nowhere; how many. */
static size_t visit_sums(const struct part *p, const char *base, size_t in, size_t n,
			 struct range *r)
{
	const float *sum = (const float *)(base + p->at);
	size_t first = in / sizeof(*sum), skip = in % sizeof(*sum), i;
	float x[16];

	for (i = 0; i < ARRAY_SIZE(x) && first + i < p->bytes / sizeof(*sum); i++)
		x[i] = (float)((double)sum[first + i] + p->correction[(first + i) % p->dim]);
	n = MIN(n, i * sizeof(*sum) - skip);
	r->visit(r->arg, (char *)x + skip, n);
	return n;
}

static void visit_part(const struct part *p, char *base, struct range *r)
{
	size_t bytes = p->bytes * p->runs;

	while (r->n && r->at < bytes) {
		size_t in = r->at % p->bytes, n = MIN(p->bytes - in, r->n);

		if (unlikely(p->correction))
			n = visit_sums(p, base, in, n, r);
		else
			r->visit(r->arg, base + p->at + r->at / p->bytes * p->stride + in, n);
		r->at += n;
		r->n -= n;
	}
	r->at -= MIN(bytes, r->at);
}

static void visit_block(const struct parts *p, char *base, struct range *r)
{
	if (r->at >= p->bytes) {
		r->at -= p->bytes;
		return;
	}
	for (unsigned i = 0; i < p->n && r->n; i++)
		visit_part(&p->part[i], base, r);
}

static const struct kv_channels *table_of(const struct kv_channels *const *channels, uint32_t head)
{
	return channels ? channels[head] : NULL;
}

size_t kv_image_tile_bytes(const struct kv_space *s, const struct kv_channels *const *channels)
{
	size_t bytes = 0;

	for (uint32_t h = 0; h < s->kv_heads; h++)
		bytes += parts_of_tiles(s, table_of(channels, h), 1, 1, NULL).bytes;
	return bytes;
}

size_t kv_image_row_bytes(const struct kv_space *s)
{
	return (size_t)s->kv_heads * (s->k_dim + s->v_dim) * kv_dtype_bytes(s->dtype);
}

uint32_t kv_image_needs(const struct kv_space *s)
{
	struct kv_plane plane[KV_MAX_PLANES];
	unsigned with = s->k->k_planes(s->k_dim, s->needs, plane);

	return with > s->k->k_planes(s->k_dim, 0, plane) ? s->needs : 0;
}

void kv_image_tiles(const struct kv_space *s, const struct kv_channels *const *channels,
		    const struct kv_parts *parts, const struct kv_extent *x, size_t at, size_t n,
		    kv_visit_fn *visit, void *arg)
{
	struct range r = { at, n, visit, arg };
	size_t bytes = kv_extent_bytes(s, x->tiles);

	for (uint32_t h = 0; h < s->kv_heads && r.n; h++) {
		struct parts p = parts_of_tiles(s, table_of(channels, h), x->tiles, x->used,
						kv_correction_of(x, s, h));
		const struct kv_place of_head = kv_place_of(s, x->parted ? parts : NULL, h);

		visit_block(&p, kv_block_of(&of_head, x->base, bytes), &r);
	}
	assert(!r.n);
}

void kv_image_rows(const struct kv_space *s, const struct kv_parts *parts, void *chunk,
		   unsigned room, unsigned rows, size_t at, size_t n, kv_visit_fn *visit, void *arg)
{
	struct range r = { at, n, visit, arg };
	size_t bytes = kv_chunk_bytes(s, room);
	struct parts p = parts_of_rows(s, room, rows);

	for (uint32_t h = 0; h < s->kv_heads && r.n; h++) {
		const struct kv_place of_head = kv_place_of(s, parts, h);

		visit_block(&p, kv_block_of(&of_head, chunk, bytes), &r);
	}
	assert(!r.n);
}
