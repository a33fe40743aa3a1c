/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What attention should be, in double precision and no cleverness, and the rows
 * to try it on.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct shape {
	uint32_t heads, kv_heads, dim;
};

static inline size_t shape_kv(const struct shape *s) /* floats of a row: k, then v */
{
	return (size_t)2 * s->kv_heads * s->dim;
}
static inline size_t shape_q(const struct shape *s) /* floats of a query, and of an o */
{
	return (size_t)s->heads * s->dim;
}

/* Attends with one query to the rows [0, first) and [rows - recent, rows). o[heads][dim],
 * lse[heads]. */
void reference_attend(const struct shape *s, const float *kv, uint32_t rows, uint32_t first,
		      uint32_t recent, const float *q, double *ret_o, double *ret_lse);
/* |a - b| / |b| over n elements; infinite if an element of a is not a number. */
double reference_error(const float *a, const double *b, size_t n);

/* Normal numbers, the same ones for the same seed. */
struct noise {
	uint64_t state;
};
float noise_next(struct noise *n);
void noise_fill(struct noise *n, float *ret, size_t count);
