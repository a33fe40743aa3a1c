/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a batch's output to results, as kv_exec_finish leaves them: what was read is
 * counted by the formats' own formulas (exec-bytes.c), from how many rows and tiles
 * the kernels say they chose.
 */
#include <string.h>

#include "kernels/cuda/batch-private.h"
#include "kernels/exec-private.h"
#include "shm/base.h"

struct count {
	uint64_t sealed, tiles, recent; /* rows, different tiles of them, rows as sent */
	uint64_t last;                  /* block and tile that was counted last */
};

struct reader {
	const struct kv_gpu_item *item;
	const struct kv_cuda_params *p;
	const struct kv_cuda_item *x;
	const struct kv_cuda_unit *unit;
	const struct kv_cuda_block *block;
	struct choice c;
	/* without scores: of a KV head */
	uint64_t planes[KV_PLANES], sealed;
};

static const void *array_of(const struct kv_cuda_params *p, uint32_t at)
{
	return (const char *)p + at;
}

/* Rows [from, to) of a unit. */
static void count_unit(const struct reader *r, const struct kv_cuda_unit *u, uint32_t from,
		       uint32_t to, struct count *c)
{
	uint64_t base = (uint64_t)r->block[u->block].address << 32, first, last;

	if (from >= to)
		return;
	if (r->block[u->block].sent) {
		c->recent += to - from;
		return;
	}
	first = base + (u->at + from) / KV_TILE_ROWS + 1;
	last = base + (u->at + to - 1) / KV_TILE_ROWS + 1;
	c->sealed += to - from;
	c->tiles += last - first + (first != c->last);
	c->last = last;
}

/* Rows [first, end) of the item's units: all, or those that are attended to. */
static struct count count_rows(const struct reader *r, uint32_t first, uint32_t end)
{
	struct count c = { 0 };

	for (uint32_t i = 0; i < r->x->n_units && r->unit[i].first_row < end; i++) {
		const struct kv_cuda_unit *u = &r->unit[i];
		uint32_t from = first > u->first_row ? first - u->first_row : 0;
		uint32_t to = MIN(end - u->first_row, r->x->by_list ? u->rows : u->to);

		count_unit(r, u, MAX(from, r->x->by_list ? 0 : u->from), to, &c);
	}
	return c;
}

static void attended(const struct reader *r, struct count c, uint32_t outliers, uint64_t planes[])
{
	const struct kv_space *s = r->item->space;

	s->k->bytes_k(s->k_dim, c.sealed, c.tiles, r->x->level, planes);
	s->v->bytes_v(s->v_dim, c.sealed, c.tiles, r->x->level, planes);
	planes[KV_PLANE_K] += c.sealed * outliers * sizeof(uint16_t);
	planes[KV_PLANE_RECENT] += c.recent * (s->k_dim + s->v_dim) * kv_dtype_bytes(s->dtype);
}

/* Of the sum of V: the tile's that it begins with, and the rows behind it. */
static uint32_t sum_from(const struct reader *r)
{
	const struct kv_view *v = r->item->view;
	uint64_t limit = r->x->full ? v->rows : MIN(v->rows, r->x->first_limit);

	for (uint32_t i = v->n_extents; i--;) {
		const struct kv_extent *e = &v->extent[i];
		uint32_t whole = e->used - (e->used && e->last_rows < KV_TILE_ROWS);

		if (limit > e->first_row)
			whole = MIN(whole, (uint32_t)(limit - e->first_row) / KV_TILE_ROWS);
		if (limit > e->first_row && whole)
			return e->first_row + whole * KV_TILE_ROWS;
	}
	return 0;
}

static void scored(const struct reader *r, const struct kv_cuda_said *said, uint32_t outliers,
		   uint64_t planes[])
{
	const struct kv_space *s = r->item->space;
	size_t e = kv_dtype_bytes(s->dtype);
	struct count all = count_rows(r, 0, UINT32_MAX), c;
	uint64_t unread = all.recent - (said->n_selected - said->sealed);
	uint32_t from;

	if (r->x->exact)
		s->k->bytes_k(s->k_dim, all.sealed, all.tiles, 0, planes);
	else
		s->k->bytes_score(s->k_dim, all.sealed, all.tiles, r->x->r, planes);
	planes[KV_PLANE_K] += all.sealed * outliers * sizeof(uint16_t);
	planes[KV_PLANE_RECENT] += unread * r->x->r * e;
	if (!r->x->sums)
		return;
	from = sum_from(r);
	c = count_rows(r, from, UINT32_MAX);
	if (from)
		planes[KV_PLANE_STATE] += s->v_dim * sizeof(float);
	s->v->bytes_v(s->v_dim, c.sealed, c.tiles, 0, planes);
	planes[KV_PLANE_RECENT] += MIN(unread, c.recent) * s->v_dim * e;
}

/* Each block of heads reads the rows that its last one sees; what all KV heads do alike. */
static void count_blocks(const struct reader *r, uint64_t planes[], uint64_t *ret_sealed)
{
	uint32_t group = r->item->space->group;
	uint64_t sealed = 0;

	for (uint32_t h = 0; h < r->x->heads; h += KV_CUDA_HEADS) {
		uint32_t last = (MIN(h + KV_CUDA_HEADS, r->x->heads) - 1) / group;
		uint64_t limit = (uint64_t)r->x->first_limit + last;
		struct count c;

		c = count_rows(r, 0, r->x->full ? r->x->rows : (uint32_t)MIN(limit, r->x->rows));
		attended(r, c, 0, planes);
		sealed += c.sealed;
	}
	*ret_sealed = sealed;
}

/* The caller's tables may be gone by now. */
static uint32_t outliers_of(const struct reader *r, uint32_t head)
{
	const struct kv_cuda_table *table = array_of(r->p, r->p->tables);

	return r->x->table == KV_CUDA_NONE ? 0 : table[r->x->table + head].n_outliers;
}

static void read_head(const struct reader *r, uint32_t head, char *out, struct kv_result *ret)
{
	const struct kv_cuda_said *said = (const struct kv_cuda_said *)(const void *)out;
	uint32_t outliers = outliers_of(r, head);
	struct kv_result x = { .y = (float *)(void *)(out + kv_cuda_y_at(r->x->heads)),
			       .lse = (float *)(void *)(out + kv_cuda_lse_at()),
			       .n_selected = r->c.fixed,
			       .alpha_min = 1,
			       .alpha_sum = r->x->heads };

	if (r->x->by_list) {
		struct count chosen = { .sealed = said->sealed,
					.tiles = said->tiles,
					.recent = said->n_selected - said->sealed };

		x.n_selected = said->n_selected;
		x.n_scored = r->x->visible;
		x.alpha_min = said->alpha_min;
		x.alpha_sum = said->alpha_sum;
		attended(r, chosen, outliers, x.bytes);
		scored(r, said, said->outliers, x.bytes);
	} else {
		memcpy(x.bytes, r->planes, sizeof(x.bytes));
		x.bytes[KV_PLANE_K] += r->sealed * outliers * sizeof(uint16_t);
	}
	*ret = x;
}

void kv_cuda_collect(const struct kv_gpu_item *item, uint32_t n, const void *params, void *output)
{
	const struct kv_cuda_params *p = params;
	const struct kv_cuda_item *x = array_of(p, p->items);
	char why[KV_GPU_WHY];

	for (uint32_t i = 0; i < n; i++) {
		struct reader r = { .item = &item[i], .p = p, .x = &x[i] };
		char *out = (char *)output + x[i].output;

		r.unit = (const struct kv_cuda_unit *)array_of(p, p->units) + x[i].units;
		r.block = array_of(p, p->blocks);
		choice_make(&item[i], &r.c, why);
		if (!x[i].by_list)
			count_blocks(&r, r.planes, &r.sealed);
		for (uint32_t h = 0; h < item[i].space->kv_heads; h++)
			read_head(&r, h, out + h * x[i].output_bytes, &item[i].result[h]);
	}
}
