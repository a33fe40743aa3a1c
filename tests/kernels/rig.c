/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence in plain memory. */
#include "tests/kernels/rig.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/base.h"

static size_t chunks_bytes(const struct kv_space *s)
{
	return s->kv_heads *
	       (KV_MAX_CHUNKS * kv_chunk_bytes(s, KV_CHUNK_ROWS) + kv_chunk_bytes(s, KV_MAX_SINKS));
}

size_t rig_bytes(const struct kv_space *s, uint32_t max_rows)
{
	size_t short_extents = KV_SHORT_ROWS / KV_TILE_ROWS;
	size_t long_extents = max_rows / (KV_EXTENT_TILES * KV_TILE_ROWS) + 2;
	size_t n = chunks_bytes(s) +
		   s->kv_heads * (short_extents * kv_extent_bytes(s, 1) +
				  long_extents * kv_extent_bytes(s, KV_EXTENT_TILES));

	return ALIGN_UP(n, 2 * MIB);
}

static void *take(struct rig *r, size_t bytes)
{
	void *p = r->memory + r->used;

	r->used += bytes;
	assert(r->used <= r->bytes);
	return p;
}

void *rig_map(size_t bytes, enum rig_pages pages)
{
	int how = pages == RIG_SHARED ? MAP_SHARED | MAP_ANONYMOUS : MAP_PRIVATE | MAP_ANONYMOUS;
	void *p;

	if (pages == RIG_HUGE)
		how |= MAP_HUGETLB;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, how, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (pages != RIG_HUGE) /* refused where there are none: what is there is used */
		madvise(p, bytes, pages == RIG_SMALL ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	return p;
}

static int allocate(struct rig *r, const struct kv_space *s, uint32_t max_rows, uint32_t rollback,
		    enum rig_pages pages)
{
	*r = (struct rig){
		.space = s, .pages = pages, .rollback = rollback, .max_rows = max_rows
	};
	r->bytes = rig_bytes(s, max_rows);
	r->memory = rig_map(r->bytes, pages);
	if (!r->memory)
		return -ENOMEM;
	r->extent = calloc(max_rows / KV_TILE_ROWS + 16, sizeof(*r->extent));
	r->view.extent = r->extent;
	return r->extent ? 0 : -ENOMEM;
}

int rig_init(struct rig *r, const struct kv_space *s, uint32_t max_rows, uint32_t rollback)
{
	return rig_init_on(r, s, max_rows, rollback, RIG_THP);
}

int rig_init_on(struct rig *r, const struct kv_space *s, uint32_t max_rows, uint32_t rollback,
		enum rig_pages pages)
{
	int error = allocate(r, s, max_rows, rollback, pages);

	if (error)
		return error;
	r->view.sinks = take(r, s->kv_heads * kv_chunk_bytes(s, KV_MAX_SINKS));
	for (unsigned i = 0; i < KV_MAX_CHUNKS; i++)
		r->spare[r->n_spare++] = take(r, s->kv_heads * kv_chunk_bytes(s, KV_CHUNK_ROWS));
	r->view.tail_first = s->sinks;
	return 0;
}

static void *moved(const struct rig *r, const struct rig *from, void *p)
{
	return p ? r->memory + ((char *)p - from->memory) : NULL;
}

int rig_clone(struct rig *r, const struct rig *from)
{
	int error = allocate(r, from->space, from->max_rows, from->rollback, from->pages);

	if (error)
		return error;
	memcpy(r->memory, from->memory, from->used);
	r->used = from->used;
	r->view = from->view;
	r->view.extent = r->extent;
	r->view.sinks = moved(r, from, from->view.sinks);
	for (unsigned i = 0; i < KV_MAX_CHUNKS; i++)
		r->view.chunk[i] = moved(r, from, from->view.chunk[i]);
	r->n_spare = from->n_spare;
	for (unsigned i = 0; i < from->n_spare; i++)
		r->spare[i] = moved(r, from, from->spare[i]);
	for (uint32_t i = 0; i < from->view.n_extents; i++) {
		r->extent[i] = from->extent[i];
		r->extent[i].base = moved(r, from, from->extent[i].base);
	}
	return 0;
}

void rig_deinit(struct rig *r)
{
	free(r->extent);
	if (r->memory)
		munmap(r->memory, r->bytes);
	*r = (struct rig){ 0 };
}

void rig_write(struct rig *r, const void *kv, uint32_t n)
{
	const struct kv_space *s = r->space;
	struct kv_view *v = &r->view;
	uint32_t rows = v->rows + n;
	uint32_t tail = rows > v->tail_first ? rows - v->tail_first : 0;

	for (uint32_t i = 0; i < DIV_UP(tail, KV_CHUNK_ROWS); i++)
		if (!v->chunk[i])
			v->chunk[i] = r->spare[--r->n_spare];
	kv_write(s, v, v->rows, n, kv,
		 s->kv_heads * (s->k_dim + s->v_dim) * kv_dtype_bytes(s->dtype));
	v->rows = rows;
	v->n_sinks = MIN(rows, s->sinks);
	v->tail_rows = tail;
}

static void open_extent(struct rig *r)
{
	uint32_t sealed = r->view.tail_first - r->view.n_sinks;
	uint16_t tiles = sealed < KV_SHORT_ROWS ? 1 : KV_EXTENT_TILES;

	r->extent[r->view.n_extents++] = (struct kv_extent){
		.base = take(r, r->space->kv_heads * kv_extent_bytes(r->space, tiles)),
		.first_row = r->view.tail_first,
		.tiles = tiles,
	};
}

static void flush_tile(struct rig *r)
{
	struct kv_extent *x = r->view.n_extents ? &r->extent[r->view.n_extents - 1] : NULL;
	struct kv_view before = r->view; /* a new extent is not in it yet, as in the daemon */

	if (!x || x->used == x->tiles || x->last_rows < KV_TILE_ROWS) {
		open_extent(r);
		x = &r->extent[r->view.n_extents - 1];
	}
	for (uint32_t h = 0; h < r->space->kv_heads; h++)
		kv_flush(r->space, &before, x, x->used, h);
	x->used++;
	x->last_rows = KV_TILE_ROWS;
	for (unsigned i = 0; i < KV_TILE_ROWS / KV_CHUNK_ROWS; i++) {
		r->spare[r->n_spare++] = r->view.chunk[0];
		memmove(&r->view.chunk[0], &r->view.chunk[1],
			sizeof(r->view.chunk) - sizeof(r->view.chunk[0]));
		r->view.chunk[KV_MAX_CHUNKS - 1] = NULL;
	}
	r->view.tail_first += KV_TILE_ROWS;
	r->view.tail_rows -= KV_TILE_ROWS;
}

void rig_flush(struct rig *r)
{
	while (r->view.tail_rows >= KV_TILE_ROWS + r->rollback)
		flush_tile(r);
}

void rig_append(struct rig *r, const void *kv, uint32_t n, uint32_t entry)
{
	const struct kv_space *s = r->space;
	size_t row = s->kv_heads * (s->k_dim + s->v_dim) * kv_dtype_bytes(s->dtype);

	for (uint32_t i = 0; i < n; i += entry) {
		rig_write(r, (const char *)kv + i * row, MIN(entry, n - i));
		rig_flush(r);
	}
}

void rig_cut(struct rig *r, uint32_t rows)
{
	struct kv_view *v = &r->view;

	v->n_sinks = MIN(rows, v->n_sinks);
	while (v->n_extents && r->extent[v->n_extents - 1].first_row >= rows)
		v->n_extents--;
	if (rows < v->tail_first && v->n_extents) {
		struct kv_extent *x = &r->extent[v->n_extents - 1];
		uint32_t keep = rows - x->first_row;

		if (keep < (x->used - 1u) * KV_TILE_ROWS + x->last_rows) {
			x->used = (uint16_t)DIV_UP(keep, KV_TILE_ROWS);
			x->last_rows = keep - (x->used - 1u) * KV_TILE_ROWS;
		}
	}
	v->tail_first = MAX(MIN(v->tail_first, rows), r->space->sinks);
	v->tail_rows = rows > v->tail_first ? rows - v->tail_first : 0;
	v->rows = rows;
}

void rig_attend(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		void *scratch, bool backwards, struct kv_result *ret)
{
	uint64_t bytes = kv_exec_scratch_bytes(r->space, plan, &r->view, query);

	for (uint32_t h = 0; h < r->space->kv_heads; h++) {
		struct kv_exec e;

		kv_exec_init(&e, r->space, plan, &r->view, query, h, (char *)scratch + h * bytes);
		for (uint32_t i = 0; i < e.shares; i++)
			kv_exec_share(&e, backwards ? e.shares - 1 - i : i);
		kv_exec_finish(&e);
		ret[h] = e.result;
	}
}
