/* SPDX-License-Identifier: Apache-2.0 */
/* Each stage in plain double precision: see reference.h. */
#include "tests/kernels/reference.h"

#include <math.h>
#include <stdlib.h>

double ref_dot(const float *q, const float *x, uint32_t dim)
{
	double sum = 0;

	for (uint32_t c = 0; c < dim; c++)
		sum += (double)q[c] * x[c];
	return sum;
}

double ref_dot_size(const float *q, const float *x, uint32_t dim)
{
	double sum = 0;

	for (uint32_t c = 0; c < dim; c++)
		sum += fabs((double)q[c] * x[c]);
	return sum;
}

double ref_largest(const float *w, const float *range, size_t step, uint32_t n, uint32_t block)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i += block) {
		uint32_t end = i + block < n ? i + block : n;
		double largest = 0;

		for (uint32_t j = i; j < end; j++)
			largest = fmax(largest, fabs((double)w[j]) * range[j * step]);
		sum += (end - i) * largest;
	}
	return sum;
}

double ref_score(const float *coef, const uint16_t *channel, uint32_t r, const float *x)
{
	double sum = 0;

	for (uint32_t j = 0; j < r; j++)
		sum += (double)coef[j] * x[channel[j]];
	return sum;
}

double ref_axpy(const float *p, const float *x, uint32_t n, uint32_t dim, uint32_t channel)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += (double)p[i] * x[(size_t)i * dim + channel];
	return sum;
}

void ref_max_expsum(const float *a, uint32_t n, double *ret_max, double *ret_sum)
{
	double max = -INFINITY, sum = 0;

	for (uint32_t i = 0; i < n; i++)
		if (a[i] > max)
			max = a[i];
	for (uint32_t i = 0; i < n; i++)
		if (!isnan(a[i]) && max > -INFINITY)
			sum += exp(a[i] - max);
	*ret_max = max;
	*ret_sum = sum;
}

struct entry {
	float value;
	uint32_t index;
};

static int by_value(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (isnan(x->value) != isnan(y->value))
		return isnan(x->value) ? 1 : -1;
	if (!isnan(x->value) && x->value != y->value)
		return x->value > y->value ? -1 : 1;
	return x->index < y->index ? -1 : 1;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

uint32_t ref_topk(const float *c, uint32_t n, uint32_t k, uint32_t *ret_index)
{
	struct entry *e = calloc(n + 1, sizeof(*e));

	for (uint32_t i = 0; i < n; i++)
		e[i] = (struct entry){ c[i], i };
	qsort(e, n, sizeof(*e), by_value);
	if (k > n)
		k = n;
	for (uint32_t i = 0; i < k; i++)
		ret_index[i] = e[i].index;
	qsort(ret_index, k, sizeof(*ret_index), by_number);
	free(e);
	return k;
}

/* The nearest binary16, for magnitudes in its normal range. */
static double half(double x)
{
	int e;

	if (x == 0)
		return 0;
	frexp(x, &e);
	return ldexp(rint(ldexp(x, 11 - e)), e - 11);
}

void ref_hier4(const float *x, uint32_t n, float *ret_upper, float *ret_both)
{
	double min = INFINITY, max = -INFINITY, s4;

	for (uint32_t i = 0; i < n; i++) {
		min = fmin(min, x[i]);
		max = fmax(max, x[i]);
	}
	s4 = half((max - min) / 15);
	min = half(min);
	for (uint32_t i = 0; i < n; i++) {
		double u = s4 > 0 ? rint(fmin(fmax((x[i] - min) / s4, 0), 15)) : 0;
		double e = s4 > 0 ? (x[i] - (u * s4 + min)) / (s4 / 16) : 0;

		ret_upper[i] = (float)(u * s4 + min);
		ret_both[i] = (float)((16 * u + rint(fmin(fmax(e, -8), 7))) * (s4 / 16) + min);
	}
}

double ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t dim,
		  double scale, double *ret_y)
{
	double *z = calloc(n, sizeof(*z)), max = -INFINITY, sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		z[i] = scale * ref_dot(q, k + (size_t)i * dim, dim);
		max = fmax(max, z[i]);
	}
	for (uint32_t i = 0; i < n; i++)
		sum += exp(z[i] - max);
	for (uint32_t c = 0; c < dim; c++) {
		ret_y[c] = 0;
		for (uint32_t i = 0; i < n; i++)
			ret_y[c] += exp(z[i] - max) / sum * v[(size_t)i * dim + c];
	}
	free(z);
	return max + log(sum);
}
