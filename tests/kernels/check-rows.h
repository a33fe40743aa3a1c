/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a K and of a V block: what was sent, what comes back, how far they
 * may differ; and the checks of single calls on them.
 */
#pragma once

#include "tests/kernels/checkkern.h"

/* STEPS: every rounding is a tie. DENORMAL: beside zeros and ones. */
enum pattern { NORMAL, CONSTANT, OFFSET, OUTLIER, TINY, STEPS, DENORMAL, PATTERNS };

struct block_shape {
	uint32_t dim;
	uint16_t tiles, tile_rows;
	uint32_t needs;
	enum pattern pattern;
};

struct field { /* the rows of one block */
	struct guarded memory;
	struct kv_block block;
	uint32_t rows, dim;
	float *sent, *read, *range, *size; /* [rows][dim]; range and magnitude of the group */
};

struct call { /* one call of a stage on rows [row, row + n) */
	uint32_t row, n, heads, stride;
	unsigned level;
};

/* What the executor asks for: dimensions, heads of a group. */
extern const uint32_t check_dims[], check_heads[];
extern const unsigned check_n_dims, check_n_heads;

/* Written slot by slot in an order of chance, read back and compared. */
void fields_open(struct check *c, const struct kv_kernels *k, const struct block_shape *s,
		 struct field *ret_k, struct field *ret_v);
void fields_close(struct check *c, struct field *k, struct field *v);
/* An element's error bound; parameters in binary16 and f32 arithmetic have their share. */
double field_bound(const struct kv_kernels *k, const struct field *f, float rel, size_t at);
void field_fill(struct check *c, float *x, size_t n);

void check_dot(struct check *c, const struct kv_kernels *k, const struct field *f,
	       const struct call *a);
void check_channels(struct check *c, uint32_t dim, uint32_t r, uint16_t *ret);
void check_score_softmax(struct check *c, const struct kv_kernels *k, const struct field *f,
			 uint32_t heads, uint32_t r);
void check_score_rank(struct check *c, const struct kv_kernels *k, const struct field *f,
		      uint32_t heads, uint32_t r);
void check_score(struct check *c, const struct kv_kernels *k, const struct field *f,
		 const struct call *a, uint32_t r);
void check_axpy(struct check *c, const struct kv_kernels *k, const struct field *f,
		const struct call *a);
/* The same rows in one call, row by row and with a neighbour to prefetch: the same bits. */
void check_same_bits(struct check *c, const struct kv_kernels *k, const struct field *f);
