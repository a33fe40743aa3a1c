/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of the host's pages a step reads or has changed: see kernels/gpu.h. */
#include "kernels/gpu.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "shm/base.h"

/* ---- pages ----------------------------------------------------------------------- */

/* A page whose heads have blocks of `bytes`. */
static void visit_page(const struct kv_space *s, const struct kv_parts *parts, void *page,
		       size_t bytes, kv_visit_fn *visit, void *arg)
{
	uint32_t head = 0;

	if (!page)
		return;
	if (!parts) {
		visit(arg, page, bytes * s->kv_heads);
		return;
	}
	while (head < s->kv_heads) {
		uint32_t part = kv_part_of(s->kv_heads, parts->n, head), end = head;

		while (end < s->kv_heads && kv_part_of(s->kv_heads, parts->n, end) == part)
			end++;
		visit(arg, (char *)page + parts->shift[part], bytes * (end - head));
		head = end;
	}
}

static void visit_recent(const struct kv_space *s, const struct kv_view *v, kv_visit_fn *visit,
			 void *arg)
{
	const struct kv_parts *parts = v->parted & KV_PARTED_SINKS ? v->parts : NULL;

	if (v->n_sinks)
		visit_page(s, parts, v->sinks, kv_chunk_bytes(s, KV_MAX_SINKS), visit, arg);
	for (uint32_t i = 0; i < DIV_UP(v->tail_rows, KV_CHUNK_ROWS); i++)
		visit_page(s, v->parted >> i & 1 ? v->parts : NULL, v->chunk[i],
			   kv_chunk_bytes(s, KV_CHUNK_ROWS), visit, arg);
}

void kv_visit_pages(const struct kv_space *s, const struct kv_view *v, kv_visit_fn *visit,
		    void *arg)
{
	const double *correction = NULL;

	visit_recent(s, v, visit, arg);
	for (uint32_t i = 0; i < v->n_extents; i++) {
		const struct kv_extent *x = &v->extent[i];

		visit_page(s, x->parted ? v->parts : NULL, x->base, kv_extent_bytes(s, x->tiles),
			   visit, arg);
		/* Neighbours have it in common. */
		if (x->correction && x->correction != correction)
			visit(arg, (void *)(uintptr_t)x->correction,
			      (size_t)s->kv_heads * s->v_dim * sizeof(*x->correction));
		correction = x->correction;
	}
}

/* ---- what a step has changed -------------------------------------------------------- */

void kv_visit_rows(const struct kv_space *s, const struct kv_view *v, uint32_t row, uint32_t n,
		   kv_visit_fn *visit, void *arg)
{
	size_t e = kv_dtype_bytes(s->dtype), k_bytes = s->k_dim * e, v_bytes = s->v_dim * e;
	struct kv_map map;

	for (uint32_t head = 0; head < s->kv_heads; head++) {
		struct kv_piece p = { 0 };

		kv_map_init(&map, s, v, head);
		for (uint32_t at = row; at < row + n; at += p.n) {
			kv_map_find(&map, at, row + n, &p);
			visit(arg, (char *)p.k.base + p.at * k_bytes, p.n * k_bytes);
			visit(arg, (char *)p.v.base + p.at * v_bytes, p.n * v_bytes);
		}
	}
}

struct tile {
	char *block; /* of a head */
	unsigned tiles, slot;
	kv_visit_fn *visit;
	void *arg;
};

/* A plane of `runs`, in each of which every tile has `bytes`; where the next one begins. */
static size_t visit_plane(const struct tile *t, size_t at, uint32_t runs, size_t bytes)
{
	for (uint32_t i = 0; i < runs; i++)
		t->visit(t->arg, t->block + at + (i * t->tiles + t->slot) * bytes, bytes);
	return at + (size_t)runs * t->tiles * bytes;
}

static void visit_head(const struct kv_space *s, const struct tile *t)
{
	struct kv_layout l = kv_extent_layout(s, t->tiles);
	struct kv_plane plane[KV_MAX_PLANES];
	unsigned n = s->k->k_planes(s->k_dim, s->needs, plane);
	size_t at = 0;

	for (unsigned i = 0; i < n; i++)
		at = visit_plane(t, at, plane[i].runs, plane[i].bytes);
	n = s->v->v_planes(s->v_dim, s->needs, plane);
	at = l.v;
	for (unsigned i = 0; i < n; i++)
		at = visit_plane(t, at, plane[i].runs, plane[i].bytes);
	visit_plane(t, l.sums, 1, s->v_dim * sizeof(float));
	if (s->outliers && !s->k->plain)
		visit_plane(t, l.outliers, s->outliers, KV_TILE_ROWS * sizeof(uint16_t));
}

void kv_visit_tile(const struct kv_space *s, const struct kv_parts *parts,
		   const struct kv_extent *x, unsigned slot, kv_visit_fn *visit, void *arg)
{
	size_t bytes = kv_extent_bytes(s, x->tiles);

	for (uint32_t head = 0; head < s->kv_heads; head++) {
		struct kv_place place = kv_place_of(s, x->parted ? parts : NULL, head);
		struct tile t = { kv_block_of(&place, x->base, bytes), x->tiles, slot, visit, arg };

		visit_head(s, &t);
	}
}
