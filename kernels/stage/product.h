/* SPDX-License-Identifier: Apache-2.0 */
/*
 * out[i][v] = sum over j < n of a[i][j] * b[j][v], or added to what is there:
 * a column of `vecs` vectors at a time, in tiles that fit the registers.
 *
 * A number of out has one chain of multiply-adds, j ascending, on every ISA and
 * whatever tile it falls into: bits depend on nothing but its own row of a and
 * its own column of b.
 */
#pragma once

#include "kernels/codec.h"

struct product {
	const float *a; /* element (i, j) at a[i * a_i + j * a_j] */
	size_t a_i, a_j;
	const float *b;     /* [n][vecs * VL] */
	const float *limit; /* by column, where asked for: only j below it */
	float *out;         /* [rows][vecs * VL] */
	uint32_t first, n;  /* j from first to n */
};

/* Rows of a from at most four pointers: a dozen of them would not leave registers for more. */
KV_FN void product_tile(const struct product *p, uint32_t at, unsigned rows, unsigned vecs,
			bool add, bool limited)
{
	float *out = p->out + (size_t)at * vecs * VL;
	const float *b = p->b + (size_t)p->first * vecs * VL;
	const float *a[4];
	vf acc[KV_PRODUCT_ROWS][KV_PRODUCT_VECS], limit[KV_PRODUCT_VECS];

	KV_EACH (i, 4)
		a[i] = p->a + (at + 3 * i) * p->a_i + p->first * p->a_j;
	KV_EACH (i, rows)
		KV_EACH (v, vecs)
			acc[i][v] = add ? vf_load(out + (i * vecs + v) * VL) : vf_set(0);
	KV_EACH (v, vecs)
		limit[v] = vf_load((limited ? p->limit : b) + v * VL);
	for (uint32_t j = p->first; j < p->n; j++, b += vecs * VL) {
		vf x[KV_PRODUCT_VECS];

		KV_EACH (v, vecs)
			x[v] = vf_load(b + v * VL);
		KV_EACH (i, rows) {
			vf y = vf_set(a[i / 3][i % 3 * p->a_i]);

			KV_EACH (v, vecs) {
				vf sum = vf_fma(y, x[v], acc[i][v]);

				/* Not a zero weight: zero times infinity is no zero. */
				acc[i][v] = limited ? vf_if_ge(vf_set((float)j), limit[v],
							       acc[i][v], sum)
						    : sum;
			}
		}
		KV_EACH (i, 4)
			a[i] += p->a_j;
	}
	KV_EACH (i, rows)
		KV_EACH (v, vecs)
			vf_store(out + (i * vecs + v) * VL, acc[i][v]);
}

KV_FN void product_rows(const struct product *p, uint32_t rows, unsigned vecs, bool add,
			bool limited)
{
	uint32_t i = 0;

	for (; i + KV_PRODUCT_ROWS <= rows; i += KV_PRODUCT_ROWS)
		product_tile(p, i, KV_PRODUCT_ROWS, vecs, add, limited);
	for (; i + KV_PRODUCT_ROWS / 3 <= rows; i += KV_PRODUCT_ROWS / 3)
		product_tile(p, i, KV_PRODUCT_ROWS / 3, vecs, add, limited);
	for (; i < rows; i++)
		product_tile(p, i, 1, vecs, add, limited);
}
