/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a batch share. */
#pragma once

#include <stdbool.h>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/choice.h"
#include "kernels/cuda/params.h"

#define BATCH_LAYOUTS 64u /* different ones that are remembered */

/* Walks over the items twice: to count, and with memory to fill. */
struct writer {
	char *base[KV_CUDA_ARRAYS]; /* NULL: it only counts */
	uint32_t n[KV_CUDA_ARRAYS];
	const struct kv_cuda_where *where;
	int error;
	uint64_t scratch, output;
	uint32_t choices;               /* KV heads of all items that choose rows */
	uint32_t score_x, score_shared; /* of the launches: the largest of each */
	uint32_t choose_x;
	uint32_t attend_x[3], attend_shared[3]; /* by lanes of a row: 8, 16, 32 */
	const struct kv_space *space[KV_GPU_MAX_ITEMS];
	struct layout_key {
		const struct kv_space *space;
		uint32_t tiles; /* 0: a chunk of so many rows */
		uint32_t rows, index;
	} layout[BATCH_LAYOUTS];
	uint32_t n_layouts;
};

/* Room for n more: where the first is, or NULL while it only counts. Its index: what n was. */
void *batch_push(struct writer *w, enum kv_cuda_array what, uint32_t n);
/* batch-pages.c: pages and units of an item's rows; the item's fields for them. */
void batch_pages(struct writer *w, const struct kv_gpu_item *item, const struct choice *c,
		 struct kv_cuda_item *x);
/* The block of an extent that need not be in the view; its index. */
uint32_t batch_extent(struct writer *w, const struct kv_gpu_item *item, const struct kv_extent *e);
/* batch.c: what an item has of its cache and its tables. */
uint32_t batch_space(struct writer *w, const struct kv_space *s);
uint32_t batch_tables(struct writer *w, const struct kv_gpu_item *item);
/* The sum of the arrays, and their places in the parameters. */
size_t batch_bytes(const uint32_t *n);
void batch_place(struct writer *w, const uint32_t *n, struct kv_cuda_params *params);
