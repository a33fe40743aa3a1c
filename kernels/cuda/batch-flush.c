/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles to be made on the device, as parameters and a launch: see batch.h. */
#include <string.h>

#include "kernels/cuda/batch-private.h"
#include "shm/base.h"

/* Every row up to the end of the tile is in a unit: the sum of V may begin far back. */
static void put_tile(struct writer *w, const struct kv_cuda_tile *t)
{
	struct kv_gpu_item item = { .space = t->space, .view = t->view };
	const struct choice all = { .visible = t->view->tail_first + KV_TILE_ROWS, .scored = true };
	struct kv_cuda_item *to, x = { .space = batch_space(w, t->space),
				       .n_q = 1,
				       .heads = t->space->group,
				       .rows = t->view->rows,
				       .visible = all.visible,
				       .first_limit = t->view->tail_first,
				       .table = batch_tables(w, &item) };

	batch_pages(w, &item, &all, &x);
	x.flush.block = batch_extent(w, &item, t->extent);
	x.flush.slot = t->slot;
	w->score_x = MAX(w->score_x, 2 * t->space->kv_heads);
	to = batch_push(w, KV_CUDA_ITEMS, 1);
	if (to)
		*to = x;
}

void kv_cuda_flush_measure(const struct kv_cuda_tile *tile, uint32_t n, struct kv_cuda_batch *ret)
{
	struct kv_cuda_batch b = { .n_launches = 1 };
	struct writer w = { 0 };

	for (uint32_t i = 0; i < n; i++)
		put_tile(&w, &tile[i]);
	memcpy(b.n, w.n, sizeof(b.n));
	b.params_bytes = batch_bytes(w.n);
	b.launch[0] = (struct kv_cuda_launch){ "kv_cuda_flush", w.score_x, n, KV_CUDA_THREADS, 0 };
	*ret = b;
}

int kv_cuda_flush_fill(const struct kv_cuda_tile *tile, uint32_t n,
		       const struct kv_cuda_batch *batch, const struct kv_cuda_where *where,
		       void *params)
{
	struct writer w = { .where = where };
	struct kv_cuda_params *p = params;

	batch_place(&w, batch->n, p);
	p->n_items = n;
	for (uint32_t i = 0; i < n && !w.error; i++)
		put_tile(&w, &tile[i]);
	return w.error;
}
