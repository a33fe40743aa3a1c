/* SPDX-License-Identifier: Apache-2.0 */
/* Each stage in plain double-precision C: no vectors, no blocking, no cleverness. */
#pragma once

#include <stddef.h>
#include <stdint.h>

double ref_dot(const float *q, const float *x, uint32_t dim);
/* The sum of |q x|: what f32 rounding errors are a part of. */
double ref_dot_size(const float *q, const float *x, uint32_t dim);
double ref_score(const float *coef, const uint16_t *channel, uint32_t r, const float *x);
/* The sum over n numbers of the largest |w| * range among the `block` they are rounded with. */
double ref_largest(const float *w, const float *range, size_t step, uint32_t n, uint32_t block);
double ref_axpy(const float *p, const float *x, uint32_t n, uint32_t dim, uint32_t channel);

void ref_max_expsum(const float *a, uint32_t n, double *ret_max, double *ret_sum);
/* By sorting all of them; ascending indices. */
uint32_t ref_topk(const float *c, uint32_t n, uint32_t k, uint32_t *ret_index);
/* One group of hier4 in double (methods of QuantSpec), with parameters rounded to binary16. */
void ref_hier4(const float *x, uint32_t n, float *ret_upper, float *ret_both);
/* Attention of one query: y[dim] and the natural log-sum-exp (n > 0). */
double ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t dim,
		  double scale, double *ret_y);
