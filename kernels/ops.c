/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stages that read only floats, compiled once per ISA over its vocabulary.
 * A tail of fewer than VL numbers goes through a padded copy, so that a number
 * is treated alike wherever it stands.
 */
#include "kernels/codec.h"
#include "kernels/stage/exp.h"
#include "kernels/stage/select.h"

/* The last n <= VL numbers, completed with `pad`. */
KV_FN vf load_rest(const float *a, uint32_t n, float pad)
{
	float rest[VL];

	if (n == VL)
		return vf_load(a);
	for (uint32_t i = 0; i < VL; i++)
		rest[i] = i < n ? a[i] : pad;
	return vf_load(rest);
}

KV_FN void store_rest(float *a, uint32_t n, vf x)
{
	float rest[VL];

	if (n == VL) {
		vf_store(a, x);
		return;
	}
	vf_store(rest, x);
	memcpy(a, rest, MIN(n, VL) * sizeof(*a));
}

/* The largest number; NaN is none. */
KV_FN float top_of(const float *a, uint32_t n)
{
	vf top[4];
	uint32_t i = 0;

	KV_EACH (k, 4)
		top[k] = vf_set(-INFINITY);
	for (; i + 4 * VL <= n; i += 4 * VL)
		KV_EACH (k, 4)
			top[k] = vf_max(vf_load(a + i + k * VL), top[k]);
	for (; i + VL <= n; i += VL)
		top[0] = vf_max(vf_load(a + i), top[0]);
	if (i < n)
		top[1] = vf_max(load_rest(a + i, n - i, -INFINITY), top[1]);
	return vf_top(vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3])));
}

/* Of x = score - maximum: NaN counts as -inf, one bad row must not hide the others. */
KV_FN vf weight_of(vf x)
{
	return vf_if_ge(x, vf_set(-87), exp_fast(x), vf_set(0));
}

static void op_max_expsum(const float *a, uint32_t n, float *ret_max, float *ret_sum)
{
	float top = top_of(a, n);
	vf max = vf_set(top), sum[2] = { vf_set(0), vf_set(0) };
	uint32_t i = 0;

	*ret_max = top;
	*ret_sum = 0;
	if (top == -INFINITY)
		return;
	for (; i + 2 * VL <= n; i += 2 * VL)
		KV_EACH (k, 2)
			sum[k] = vf_add(sum[k], weight_of(vf_sub(vf_load(a + i + k * VL), max)));
	for (; i < n; i += VL) {
		vf x = n - i >= VL ? vf_load(a + i) : load_rest(a + i, n - i, -INFINITY);

		sum[0] = vf_add(sum[0], weight_of(vf_sub(x, max)));
	}
	*ret_sum = vf_sum(vf_add(sum[0], sum[1]));
}

/* Vectors of up to four heads, `first`: nothing is in c yet. */
KV_FN void softmax_heads(const float *a, size_t stride, unsigned heads, const float *ref,
			 uint32_t n, bool first, float *ret_sum, float *c)
{
	vf sum[4], at[4];

	KV_EACH (h, heads) {
		sum[h] = vf_set(0);
		at[h] = vf_set(ref[h]);
	}
	for (uint32_t i = 0; i < n; i += VL) {
		uint32_t left = n - i >= VL ? VL : n - i;
		vf all = first ? vf_set(0) : load_rest(c + i, left, 0);

		KV_EACH (h, heads) {
			vf e = exp_near(load_rest(a + h * stride + i, left, -INFINITY), at[h]);

			sum[h] = vf_add(sum[h], e);
			all = vf_add(all, e);
		}
		store_rest(c + i, left, all);
	}
	KV_EACH (h, heads)
		ret_sum[h] = vf_sum(sum[h]);
}

static void op_softmax_sum(const float *a, size_t stride, uint32_t heads, const float *ref,
			   uint32_t n, float *ret_sum, float *c)
{
	uint32_t h = 0;

	for (; h + 4 <= heads; h += 4)
		softmax_heads(a + h * stride, stride, 4, ref + h, n, h == 0, ret_sum + h, c);
	for (; h < heads; h++)
		softmax_heads(a + h * stride, stride, 1, ref + h, n, h == 0, ret_sum + h, c);
}

static void op_maxima(const float *c, uint32_t n, float *ret_max)
{
	select_maxima(c, n, ret_max);
}

static void op_add(const float *a, uint32_t n, bool first, float *c)
{
	uint32_t i = 0;

	for (; i + VL <= n; i += VL)
		vf_store(c + i, first ? vf_load(a + i) : vf_add(vf_load(c + i), vf_load(a + i)));
	for (; i < n; i++)
		c[i] = first ? a[i] : c[i] + a[i];
}

/* The running maximum moves to `max`: what was summed so far shrinks. */
static void rescale(float max, float *m, float *l, float *y, uint32_t dim)
{
	float old = expf(*m - max);

	*l *= old;
	for (uint32_t c = 0; c < dim; c++)
		y[c] = old > 0 ? y[c] * old : 0;
	*m = max;
}

static void op_softmax_block(float *p, uint32_t n, float *m, float *l, float *y, uint32_t dim)
{
	float top = top_of(p, n), max = MAX(*m, top);
	vf shift = vf_set(max), sum = vf_set(0);
	uint32_t i = 0;

	if (max == -INFINITY) {
		memset(p, 0, n * sizeof(*p));
		return;
	}
	if (max > *m)
		rescale(max, m, l, y, dim);
	for (; i + VL <= n; i += VL) {
		vf x = exp_accurate(vf_sub(vf_load(p + i), shift));

		vf_store(p + i, x);
		sum = vf_add(sum, x);
	}
	if (i < n) {
		vf x = exp_accurate(vf_sub(load_rest(p + i, n - i, -INFINITY), shift));

		store_rest(p + i, n - i, x);
		sum = vf_add(sum, x);
	}
	*l += vf_sum(sum);
}

static void op_blend(float *y, float a, const float *x, float b, uint32_t dim)
{
	vf va = vf_set(a), vb = vf_set(b);
	uint32_t i = 0;

	for (; i + VL <= dim; i += VL)
		vf_store(y + i, vf_fma(va, vf_load(y + i), vf_mul(vb, vf_load(x + i))));
	for (; i < dim; i++)
		y[i] = a * y[i] + b * x[i];
}

static void op_merge(float *y, float *lse, const float *other, float other_lse, uint32_t dim)
{
	float max = MAX(*lse, other_lse), a, b;

	if (other_lse == -INFINITY)
		return;
	a = expf(*lse - max);
	b = expf(other_lse - max);
	if (a == 0) /* y may be anything where nothing was seen */
		memcpy(y, other, dim * sizeof(*y));
	else
		op_blend(y, a / (a + b), other, b / (a + b), dim);
	*lse = max + logf(a + b);
}

/* Up to VL rows of n columns, widened once for all heads. */
KV_FN void add_rows(const vf *column, uint32_t n, const float *coef, size_t coef_stride,
		    uint32_t heads, uint32_t rows, float *a, size_t a_stride)
{
	for (uint32_t h = 0; h < heads; h++, a += a_stride, coef += coef_stride) {
		vf sum = rows == VL ? vf_load(a) : load_rest(a, rows, 0);

		for (uint32_t j = 0; j < n; j++)
			sum = vf_fma(vf_set(coef[j]), column[j], sum);
		if (rows == VL)
			vf_store(a, sum);
		else
			store_rest(a, rows, sum);
	}
}

static void op_add_columns(const uint16_t *column, size_t stride, const uint16_t *which, uint32_t n,
			   const float *coef, size_t coef_stride, uint32_t heads, uint32_t rows,
			   float *a, size_t a_stride)
{
	vf wide[KV_MAX_OUTLIERS];
	uint32_t i = 0;

	for (; i + VL <= rows; i += VL) {
		for (uint32_t j = 0; j < n; j++)
			wide[j] = vf_load_f16(column + which[j] * stride + i);
		add_rows(wide, n, coef, coef_stride, heads, VL, a + i, a_stride);
	}
	if (i == rows)
		return;
	for (uint32_t j = 0; j < n; j++) {
		uint16_t rest[VL] = { 0 };

		memcpy(rest, column + which[j] * stride + i, (rows - i) * sizeof(*rest));
		wide[j] = vf_load_f16(rest);
	}
	add_rows(wide, n, coef, coef_stride, heads, rows - i, a + i, a_stride);
}

/* Doubles, which the vocabulary lacks: vectors as long as its own, or of two. */
#define WIDE_BYTES (sizeof(vf) < 16 ? 16 : sizeof(vf))
#define WIDES (16 * sizeof(double) / WIDE_BYTES) /* 16 channels */

static void op_add_rows(const float *x, uint32_t n, uint32_t dim, double *sum)
{
	typedef double wide __attribute__((vector_size(WIDE_BYTES)));
	typedef float narrow __attribute__((vector_size(WIDE_BYTES / 2)));

	for (uint32_t c = 0; c < dim; c += 16, sum += 16) {
		const float *row = x + c;
		wide part[WIDES];

		memcpy(part, sum, sizeof(part));
		for (uint32_t i = 0; i < n; i++, row += dim)
			KV_EACH (j, WIDES) {
				narrow v;

				memcpy(&v, row + j * (16 / WIDES), sizeof(v));
				part[j] += __builtin_convertvector(v, wide);
			}
		memcpy(sum, part, sizeof(part));
	}
}

static void op_to_f32(unsigned dtype, const void *from, float *to, size_t n)
{
	const uint16_t *half = from;
	size_t i = 0;

	switch (dtype) {
	case KV_F32:
		memcpy(to, from, n * sizeof(*to));
		break;
	case KV_F16:
		for (; i + VL <= n; i += VL)
			vf_store(to + i, vf_load_f16(half + i));
		for (; i < n; i++)
			to[i] = kv_from_f16(half[i]);
		break;
	default:
		for (; i + VL <= n; i += VL)
			vf_store(to + i, vf_load_bf16(half + i));
		for (; i < n; i++)
			to[i] = kv_from_bf16(half[i]);
		break;
	}
}

static void op_from_f32(unsigned dtype, const float *from, void *to, size_t n)
{
	uint16_t *half = to;
	size_t i = 0;

	switch (dtype) {
	case KV_F32:
		memcpy(to, from, n * sizeof(*from));
		break;
	case KV_F16:
		for (; i + VL <= n; i += VL)
			vf_store_f16(half + i, vf_load(from + i));
		for (; i < n; i++)
			half[i] = kv_to_f16(from[i]);
		break;
	default:
		for (; i + VL <= n; i += VL)
			vf_store_bf16(half + i, vf_load(from + i));
		for (; i < n; i++)
			half[i] = kv_to_bf16(from[i]);
		break;
	}
}

/* Over the exponential above. */
#include "kernels/stage/lanes.h"

extern const struct kv_ops KV_PASTE3(kv_, ops, KV_ISA);
const struct kv_ops KV_PASTE3(kv_, ops, KV_ISA) = {
	.isa = KV_STRING(KV_ISA),
	.max_expsum = op_max_expsum,
	.softmax_sum = op_softmax_sum,
	.maxima = op_maxima,
	.add = op_add,
	.topk = op_topk,
	.softmax_block = op_softmax_block,
	.merge = op_merge,
	.blend = op_blend,
	.add_columns = op_add_columns,
	.add_rows = op_add_rows,
	.lanes_begin = op_lanes_begin,
	.lanes_query = op_lanes_query,
	.lanes_rows = op_lanes_rows,
	.lanes_end = op_lanes_end,
	.to_f32 = op_to_f32,
	.from_f32 = op_from_f32,
};
