/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding rows: from the number of a row to the block that holds it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "kernels/table.h"

/* Rows [first, first + n) of one KV head that lie in one block, and the kernels that read them. */
struct kv_piece {
	struct kv_block k, v;
	const struct kv_kernels *kk, *kv;
	float *sums;              /* of a tile: V of all rows up to its end; NULL: not tiles */
	const double *correction; /* [v_dim] of the sums; NULL: none */
	uint16_t *outliers;       /* [n_outliers][rows the block has room for], binary16 */
	uint32_t n_outliers;      /* 0: not tiles, or none */
	uint32_t first, n;
	uint32_t at;                      /* place of row `first` in the block */
	uint32_t block_first, block_rows; /* all that the block holds */
};
/* Rows as sent: sinks or tail. */
static inline bool kv_piece_is_recent(const struct kv_piece *p)
{
	return !p->sums;
}
/* [v_dim], of one KV head. */
static inline const double *kv_correction_of(const struct kv_extent *x, const struct kv_space *s,
					     uint32_t head)
{
	return x->correction ? x->correction + (size_t)head * s->v_dim : NULL;
}
/* Channel c of tile `slot`'s sum. Rounded as one that was written so: a copy of it has its bits. */
static inline float kv_piece_sum(const struct kv_piece *p, unsigned slot, uint32_t c)
{
	float sum = p->sums[(size_t)slot * p->v.dim + c];

	return p->correction ? (float)((double)sum + p->correction[c]) : sum;
}

/* Bytes of the parts of one KV head's block: K is at 0. */
struct kv_layout {
	size_t v, sums, outliers, bytes;
};
struct kv_layout kv_extent_layout(const struct kv_space *s, unsigned tiles);
struct kv_layout kv_chunk_layout(const struct kv_space *s, unsigned rows);

/* Where the block of a KV head is: number `at` of those that begin `shift` bytes behind the page's
 * pointer. */
struct kv_place {
	ptrdiff_t shift;
	uint32_t at;
};

struct kv_map { /* one KV head of a view */
	const struct kv_space *space;
	const struct kv_view *view;
	uint32_t head;
	struct kv_place place[2]; /* of the head: in pages that are whole, and in parts */
	struct kv_layout short_extent, long_extent; /* a choice of rows looks up hundreds */
	struct kv_layout sinks, chunk;
	const struct kv_channels *channels; /* of the head; NULL: as they come */
	uint32_t n_outliers;                /* that its tiles hold apart */
};
/* In a page of `parts` (NULL: whole). */
struct kv_place kv_place_of(const struct kv_space *s, const struct kv_parts *parts, uint32_t head);
/* The head's block in a page whose blocks have `bytes`. */
static inline char *kv_block_of(const struct kv_place *place, void *page, size_t bytes)
{
	return (char *)page + place->shift + place->at * bytes;
}

void kv_map_init(struct kv_map *r, const struct kv_space *s, const struct kv_view *view,
		 uint32_t head);

/* The piece that begins with `row`, ends at `end` or with its block. `ret` is also a hint: the
 * previous answer, or zeroed. row < end <= view->rows. */
void kv_map_find(const struct kv_map *r, uint32_t row, uint32_t end, struct kv_piece *ret);

/* Sum of V over rows [0, limit): the sum a tile keeps, and the rows after it one by one.
 * `ret_from`: rows [ret_from, limit) were read; 0: no tile's sum was used. */
void kv_map_sum_v(const struct kv_map *r, uint32_t limit, double *ret_sum, uint32_t *ret_from);
/* Adds rows [from, to). */
void kv_map_add_v(const struct kv_map *r, uint32_t from, uint32_t to, double *sum);
