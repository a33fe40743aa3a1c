/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention by its definition. Nothing here is shared with the daemon: a mistake
 * that both made would not be found.
 */
#include "client/ctl-reference.h"

#include <math.h>
#include <stdbool.h>

static double dot(const float *a, const float *b, uint32_t n)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

static bool sees(uint32_t row, uint32_t rows, uint32_t first, uint32_t recent)
{
	return row < first || rows - row <= recent;
}

static void attend_head(const struct shape *s, const float *k, const float *v, uint32_t rows,
			uint32_t first, uint32_t recent, const float *q, double *ret_o,
			double *ret_lse)
{
	size_t stride = shape_kv(s);
	double most = -INFINITY, total = 0;

	for (uint32_t t = 0; t < rows; t++)
		if (sees(t, rows, first, recent))
			most = fmax(most, dot(q, k + t * stride, s->dim) / sqrt(s->dim));
	for (uint32_t i = 0; i < s->dim; i++)
		ret_o[i] = 0;
	for (uint32_t t = 0; t < rows; t++) {
		double weight;

		if (!sees(t, rows, first, recent))
			continue;
		weight = exp(dot(q, k + t * stride, s->dim) / sqrt(s->dim) - most);
		total += weight;
		for (uint32_t i = 0; i < s->dim; i++)
			ret_o[i] += weight * v[t * stride + i];
	}
	for (uint32_t i = 0; i < s->dim; i++)
		ret_o[i] /= total;
	*ret_lse = most + log(total);
}

void reference_attend(const struct shape *s, const float *kv, uint32_t rows, uint32_t first,
		      uint32_t recent, const float *q, double *ret_o, double *ret_lse)
{
	uint32_t group = s->heads / s->kv_heads;

	for (uint32_t h = 0; h < s->heads; h++) {
		const float *k = kv + (size_t)(h / group) * s->dim;
		const float *v = k + (size_t)s->kv_heads * s->dim;

		attend_head(s, k, v, rows, first, recent, q + (size_t)h * s->dim,
			    ret_o + (size_t)h * s->dim, &ret_lse[h]);
	}
}

double reference_error(const float *a, const double *b, size_t n)
{
	double off = 0, all = 0;

	for (size_t i = 0; i < n; i++) {
		off += (a[i] - b[i]) * (a[i] - b[i]);
		all += b[i] * b[i];
	}
	return isfinite(off) && all > 0 ? sqrt(off / all) : INFINITY;
}

static double uniform(struct noise *n)
{
	n->state ^= n->state << 13;
	n->state ^= n->state >> 7;
	n->state ^= n->state << 17;
	return (double)(n->state >> 11) * 0x1p-53;
}

float noise_next(struct noise *n)
{
	double sum = -6;

	for (unsigned i = 0; i < 12; i++) /* of variance 1 together */
		sum += uniform(n);
	return (float)sum;
}

void noise_fill(struct noise *n, float *ret, size_t count)
{
	for (size_t i = 0; i < count; i++)
		ret[i] = noise_next(n);
}
