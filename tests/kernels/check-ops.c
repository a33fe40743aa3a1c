/* SPDX-License-Identifier: Apache-2.0 */
/* The stages that read only floats, for each ISA. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/checkkern.h"
#include "tests/kernels/reference.h"

static const uint32_t sizes[] = { 0, 1, 7, 16, 127, 128, 129, 1023, 1025, 4097, 20000 };

#define MOST_HEADS 7u

static struct guarded floats(struct check *c, uint32_t n, float width)
{
	struct guarded g = guarded_new(n * sizeof(float));

	for (uint32_t i = 0; i < n; i++)
		((float *)g.data)[i] = width * check_normal(c);
	return g;
}

/* The executor takes alpha from these sums. */
static void check_expsum(struct check *c, const struct kv_ops *o, uint32_t n)
{
	struct guarded a = floats(c, n, 6), s = guarded_new(n * sizeof(float));
	float *x = a.data, *out = s.data, max = 5, sum = 5;
	double want_max, want_sum;

	if (n > 10) {
		x[3] = -INFINITY;
		x[7] = NAN;
		x[9] = -400;
	}
	o->max_expsum(x, n, &max, &sum);
	ref_max_expsum(x, n, &want_max, &want_sum);
	check_near(c, "max_expsum: maximum", max, want_max, 0);
	/* The sum rounds as well, at each step. */
	check_near(c, "max_expsum: sum", sum, want_sum,
		   (KV_FAST_EXP_REL + 4 * sqrt(n) * 0x1p-24) * want_sum);
	o->add(x, n, true, out);
	o->add(x, n, false, out);
	for (uint32_t i = 0; i < n; i++)
		if (!isnan(x[i]))
			check_near(c, "add", out[i], 2 * x[i], 0);
	check_true(c, "bytes before the scores changed", guarded_intact(&s));
	guarded_free(&a);
	guarded_free(&s);
}

/* The executor ranks rows by these. */
static void check_softmax_sum(struct check *c, const struct kv_ops *o, uint32_t n, uint32_t heads)
{
	uint32_t stride = n + 5;
	struct guarded a = floats(c, heads * stride, 6), s = guarded_new(n * sizeof(float));
	float *x = a.data, *out = s.data, sum[MOST_HEADS], ref[MOST_HEADS];
	double all[MOST_HEADS] = { 0 };

	for (uint32_t h = 0; h < heads; h++)
		ref[h] = check_normal(c);
	if (n > 10) {
		x[3] = -INFINITY;
		x[7] = NAN;
		x[9] = -400;
	}
	o->softmax_sum(x, stride, heads, ref, n, sum, out);
	for (uint32_t i = 0; i < n; i++) {
		double want = 0;

		for (uint32_t h = 0; h < heads; h++) {
			double y = (double)x[h * stride + i] - (double)ref[h];

			all[h] += isnan(y) ? 0 : exp(y);
			want += isnan(y) ? 0 : exp(y);
		}
		check_near(c, "softmax_sum: row", out[i], want, KV_FAST_EXP_REL * want + 1e-30);
	}
	for (uint32_t h = 0; h < heads; h++)
		check_near(c, "softmax_sum: head", sum[h], all[h],
			   (KV_FAST_EXP_REL + n * 0x1p-24) * all[h]);
	check_true(c, "bytes before the sums changed", guarded_intact(&s));
	guarded_free(&a);
	guarded_free(&s);
}

/* The fast exponential, wherever it is not 0. */
static void check_fast_exp(struct check *c, const struct kv_ops *o)
{
	enum { N = 50000 };
	float *x = malloc(2 * N * sizeof(*x)), *out = x + N, sum, ref = 0;

	for (uint32_t i = 0; i < N; i++)
		x[i] = -87 * (float)i / N;
	o->softmax_sum(x, N, 1, &ref, N, &sum, out);
	for (uint32_t i = 0; i < N; i++)
		if (!check_near(c, "fast exponential", out[i], exp((double)x[i]),
				KV_FAST_EXP_REL * exp((double)x[i])))
			break;
	free(x);
}

/* Exponents that do not fit are cut off, and the sum says so. */
static void check_cut_off(struct check *c, const struct kv_ops *o)
{
	const float a[3] = { 1, 300, 2 }, inf[3] = { 1, INFINITY, 2 }, ref = 0;
	float sum, out[3];

	o->softmax_sum(a, 3, 1, &ref, 3, &sum, out);
	check_true(c, "cut off", sum >= KV_REF_TOO_LOW && out[1] >= KV_REF_TOO_LOW);
	o->softmax_sum(inf, 3, 1, &ref, 3, &sum, out);
	check_true(c, "cut off at infinity", sum >= KV_REF_TOO_LOW && out[1] >= KV_REF_TOO_LOW);
}

static void check_maxima(struct check *c, const struct kv_ops *o, uint32_t n)
{
	struct guarded a = floats(c, n, 6);
	struct guarded s = guarded_new(DIV_UP(n, KV_GROUP_ROWS) * sizeof(float));
	float *x = a.data, *out = s.data;

	for (uint32_t i = 0; i < n; i++)
		x[i] = check_below(c, 50) ? x[i] : check_below(c, 2) ? NAN : -INFINITY;
	for (uint32_t i = KV_GROUP_ROWS; i < MIN(n, 2 * KV_GROUP_ROWS); i++)
		x[i] = NAN;
	o->maxima(x, n, out);
	for (uint32_t g = 0; g * KV_GROUP_ROWS < n; g++) {
		float want = -INFINITY;

		for (uint32_t i = g * KV_GROUP_ROWS; i < MIN(n, (g + 1) * KV_GROUP_ROWS); i++)
			want = x[i] > want ? x[i] : want;
		check_true(c, "maxima", out[g] == want);
	}
	check_true(c, "bytes before the maxima changed", guarded_intact(&s));
	guarded_free(&a);
	guarded_free(&s);
}

static void check_all_minus_infinity(struct check *c, const struct kv_ops *o)
{
	float a[40], p[40], y40[40], y[32], m = -INFINITY, l = 0, max, sum;

	for (unsigned i = 0; i < 40; i++)
		a[i] = p[i] = -INFINITY;
	o->max_expsum(a, 40, &max, &sum);
	check_true(c, "nothing to sum", max == -INFINITY && sum == 0);
	max = 0;
	o->softmax_sum(a, 40, 1, &max, 40, &sum, y40);
	check_true(c, "no weight", sum == 0 && y40[0] == 0 && y40[39] == 0);
	o->softmax_block(p, 40, &m, &l, y, 32);
	check_true(c, "nothing seen", m == -INFINITY && l == 0 && p[0] == 0 && p[39] == 0);
}

static float tricky(struct check *c, unsigned kind, uint32_t i)
{
	switch (kind) {
	case 0:
		return check_normal(c);
	case 1:
		return (float)check_below(c, 5); /* ties everywhere */
	case 2:
		return (float)i; /* each beats all before it */
	case 3:
		return -(float)i;
	case 4:
		return check_below(c, 4) ? NAN : check_normal(c);
	case 5:
		return check_below(c, 2) ? 0.0f : -0.0f;
	case 6:
		return check_below(c, 40) ? -INFINITY : check_below(c, 3) ? 1 : INFINITY;
	default:
		return check_below(c, 3) ? NAN : check_below(c, 2) ? -INFINITY : -1;
	}
}

/* Whatever is said of the least of them, true or not: nothing, any number, the last of them. */
static float any_least(struct check *c, const float *a, uint32_t n, const uint32_t *chosen,
		       uint32_t k)
{
	switch (check_below(c, 4)) {
	case 0:
		return -INFINITY;
	case 1:
		return n ? a[check_below(c, n)] : 0;
	case 2:
		return n && k ? a[chosen[check_below(c, MIN(n, k))]] : 1;
	default:
		return check_normal(c);
	}
}

/* A selection must be the same whoever makes it: exact, ties to the lower row. */
static void check_topk(struct check *c, const struct kv_ops *o, uint32_t n, uint32_t k)
{
	for (unsigned kind = 0; kind < 8; kind++) {
		struct guarded a = guarded_new(n * sizeof(float));
		struct guarded tmp = guarded_new((n / 64 + 2 * k + 64) * sizeof(uint32_t));
		struct guarded out = guarded_new(MIN(n, k) * sizeof(uint32_t));
		uint32_t *want = calloc(k + 1, sizeof(*want)), found, most;
		float least;

		for (uint32_t i = 0; i < n; i++)
			((float *)a.data)[i] = tricky(c, kind, i);
		most = ref_topk(a.data, n, k, want);
		least = any_least(c, a.data, n, want, k);
		check_case(c, "ops %s topk n %u k %u kind %u least %g", o->isa, n, k, kind,
			   (double)least);
		found = o->topk(a.data, n, k, least, out.data, tmp.data);
		check_true(c, "count", found == most);
		check_true(c, "rows", !memcmp(out.data, want, MIN(n, k) * sizeof(*want)));
		check_true(c, "bytes before changed", guarded_intact(&out) && guarded_intact(&tmp));
		free(want);
		guarded_free(&a);
		guarded_free(&tmp);
		guarded_free(&out);
	}
}

/* Blocks of one softmax, as the executor runs them, against one pass in double. */
static void check_softmax(struct check *c, const struct kv_ops *o, uint32_t n, float width)
{
	enum { DIM = 48 };
	struct guarded a = floats(c, n, width), p = guarded_new(n * sizeof(float));
	struct guarded y = guarded_new(DIM * sizeof(float));
	float *z = a.data, *w = p.data, *out = y.data, m = -INFINITY, l = 0;
	double max, sum = 0, want[DIM] = { 0 };

	for (uint32_t i = 0; i < DIM; i++)
		out[i] = NAN; /* whatever was there must not matter */
	memcpy(w, z, n * sizeof(float));
	for (uint32_t i = 0; i < n;) {
		uint32_t most = 1 + check_below(c, 100), b = MIN(n - i, most);

		o->softmax_block(w + i, b, &m, &l, out, DIM);
		for (uint32_t j = 0; j < b; j++)
			for (uint32_t d = 0; d < DIM; d++)
				out[d] += w[i + j] * (float)((i + j + d) % 11);
		i += b;
	}
	ref_max_expsum(z, n, &max, &sum);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t d = 0; d < DIM; d++)
			want[d] += exp(z[i] - max) * ((i + d) % 11);
	check_near(c, "softmax_block: maximum", m, max, 0);
	check_near(c, "softmax_block: sum", l, sum, 4e-6 * sum);
	for (uint32_t d = 0; d < DIM && n; d++)
		check_near(c, "softmax_block: row", out[d], want[d], 1e-5 * want[d] + 1e-6);
	check_true(c, "bytes before changed", guarded_intact(&p) && guarded_intact(&y));
	guarded_free(&a);
	guarded_free(&p);
	guarded_free(&y);
}

/* The accurate exponential, number by number. */
static void check_exp(struct check *c, const struct kv_ops *o)
{
	enum { N = 4096 };
	static float p[N], want[N];
	float m = 0, l = 0, y[16] = { 0 };

	for (unsigned i = 0; i < N; i++)
		want[i] = p[i] = i ? -88.0f * (float)i / N + check_unit(c) * 0.01f : 0;
	for (unsigned i = 0; i < N; i++)
		want[i] = p[i] = MIN(p[i], 0);
	o->softmax_block(p, N, &m, &l, y, 16);
	for (unsigned i = 0; i < N; i++) {
		double e = exp((double)want[i]);

		check_near(c, "accurate exp", p[i], e, 4e-7 * e + 2e-38);
	}
}

static void check_merge(struct check *c, const struct kv_ops *o)
{
	static const float lses[][2] = { { 1, 2 },
					 { 500, -400 },
					 { -INFINITY, 3 },
					 { 3, -INFINITY },
					 { -INFINITY, -INFINITY },
					 { 0, 0 } };
	float y[80], x[80], was[80];

	for (unsigned t = 0; t < ARRAY_SIZE(lses); t++) {
		float lse = lses[t][0];
		double max = fmax(lses[t][0], lses[t][1]);
		double a = exp(lses[t][0] - max), b = exp(lses[t][1] - max);

		for (unsigned i = 0; i < 80; i++) {
			was[i] = y[i] = lse == -INFINITY ? 9e9f : check_normal(c);
			x[i] = lses[t][1] == -INFINITY ? NAN : check_normal(c);
		}
		check_case(c, "ops %s merge %g %g", o->isa, lses[t][0], lses[t][1]);
		o->merge(y, &lse, x, lses[t][1], 77);
		if (max == -INFINITY) {
			check_true(c, "of nothing", lse == -INFINITY);
			continue;
		}
		check_near(c, "lse", lse, max + log(a + b), 1e-5);
		for (unsigned i = 0; i < 77; i++)
			check_near(c, "row", y[i],
				   b == 0   ? was[i]
				   : a == 0 ? x[i]
					    : (a * was[i] + b * x[i]) / (a + b),
				   1e-6);
		check_true(c, "beyond the row", y[77] == was[77]);
	}
	for (unsigned i = 0; i < 80; i++)
		y[i] = was[i] = x[i] = check_normal(c);
	o->blend(y, 0.25f, x, -2, 77);
	for (unsigned i = 0; i < 77; i++)
		check_near(c, "blend", y[i], 0.25 * was[i] - 2 * (double)x[i], 1e-6);
	check_true(c, "beyond the row", y[77] == was[77]);
}

/* Rows of columns that end at the guard, from a row that no vector begins at. */
static void check_columns(struct check *c, const struct kv_ops *o, uint32_t n)
{
	enum { HEADS = 3, STRIDE = 7 };
	static const uint16_t which[] = { 0, 2, 3, 7 };
	struct guarded column = guarded_new(KV_MAX_OUTLIERS * (n + 1) * sizeof(uint16_t));
	struct guarded coef = floats(c, HEADS * STRIDE, 1), a = floats(c, HEADS * (n + 1), 1);
	float *wide = malloc(column.size / sizeof(uint16_t) * sizeof(*wide));
	float *was = malloc(a.size), *sum = (float *)a.data + 1, *by = coef.data;

	for (uint32_t i = 0; i < KV_MAX_OUTLIERS * (n + 1); i++)
		((uint16_t *)column.data)[i] = (uint16_t)check_below(c, 0x5000);
	o->to_f32(KV_F16, column.data, wide, KV_MAX_OUTLIERS * (n + 1));
	memcpy(was, a.data, a.size);
	o->add_columns((uint16_t *)column.data + 1, n + 1, which, ARRAY_SIZE(which), by, STRIDE,
		       HEADS, n, sum, n + 1);
	for (unsigned h = 0; h < HEADS; h++)
		for (uint32_t i = 0; i < n; i++) {
			double want = was[h * (n + 1) + 1 + i], size = fabs(want);

			for (unsigned j = 0; j < ARRAY_SIZE(which); j++) {
				double x = wide[which[j] * (n + 1) + 1 + i];

				want += (double)by[h * STRIDE + j] * x;
				size += fabs((double)by[h * STRIDE + j] * x);
			}
			check_near(c, "add_columns", sum[h * (n + 1) + i], want, size * 0x1p-22);
		}
	for (unsigned h = 0; h < HEADS; h++)
		check_true(c, "a row beyond the last",
			   ((float *)a.data)[h * (n + 1)] == was[h * (n + 1)]);
	free(wide);
	free(was);
	guarded_free(&column);
	guarded_free(&coef);
	guarded_free(&a);
}

/* Every 16-bit pattern there and back; floats against the one that is nearest. */
/* To the bit: what a tile keeps must not depend on who sums. */
static void check_add_rows(struct check *c, const struct kv_ops *o)
{
	double sum[112], want[112];
	struct guarded g = floats(c, 131 * 112, 3);
	const float *x = g.data;

	check_case(c, "ops %s add_rows", o->isa);
	for (unsigned j = 0; j < 112; j++)
		want[j] = sum[j] = (double)check_normal(c);
	o->add_rows(x, 131, 80, sum);
	for (unsigned i = 0; i < 131; i++)
		for (unsigned j = 0; j < 80; j++)
			want[j] += (double)x[i * 80 + j];
	check_true(c, "sums of columns", !memcmp(sum, want, sizeof(sum)));
	guarded_free(&g);
}

static void check_dtypes(struct check *c, const struct kv_ops *o)
{
	static uint16_t half[65536], back[65536];
	static float wide[65536];

	for (unsigned t = KV_F16; t <= KV_BF16; t++) {
		unsigned inf = t == KV_F16 ? 0x7c00 : 0x7f80;

		check_case(c, "ops %s dtype %u", o->isa, t);
		for (unsigned i = 0; i < 65536; i++)
			half[i] = (uint16_t)i;
		o->to_f32(t, half, wide, 65536);
		o->from_f32(t, wide, back, 65535); /* an odd number: the tail too */
		for (unsigned i = 0; i < 65535; i++) {
			bool denormal = t == KV_BF16 && (i & 0x7fff) < 0x80; /* zero to a worker */

			if ((i & 0x7fff) > inf)
				check_true(c, "NaN stays one",
					   isnan(wide[i]) && (back[i] & 0x7fff) > inf);
			else if (!denormal)
				check_true(c, "there and back", back[i] == i);
		}
		if (t == KV_F16) {
			check_near(c, "f16 0x0001", wide[1], 0x1p-24, 0);
			check_near(c, "f16 0x3555", wide[0x3555], 0.333251953125, 0);
			check_near(c, "f16 0xfbff", wide[0xfbff], -65504, 0);
		}
		for (unsigned i = 0; i + 1 < inf && i < 65535; i++) { /* half-way: to even */
			float middle = (float)(((double)wide[i] + wide[i + 1]) / 2);

			if (t == KV_BF16 && i < 0x100)
				continue;
			o->from_f32(t, &middle, back, 1);
			check_true(c, "nearest even", back[0] == i + (i & 1));
		}
	}
}

void check_op_case(struct check *c, const struct kv_ops *o)
{
	uint32_t n = check_below(c, check_below(c, 8) ? 700 : 9000);
	unsigned stage = check_below(c, 6);

	check_case(c, "ops %s random stage %u n %u", o->isa, stage, n);
	if (stage == 0)
		check_expsum(c, o, n);
	else if (stage == 1)
		check_softmax_sum(c, o, n, 1 + check_below(c, MOST_HEADS));
	else if (stage == 2)
		check_softmax(c, o, n % 1500, 0.1f + 30 * (float)check_below(c, 1000) / 1000);
	else if (stage == 3)
		check_merge(c, o);
	else if (stage == 4)
		check_maxima(c, o, n);
	else
		check_topk(c, o, n, 1 + check_below(c, check_below(c, 2) ? 40 : n + 2));
}

void check_ops(struct check *c, const struct kv_ops *o)
{
	static const uint32_t ks[] = { 1, 2, 33, 128, 600, 5000 };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes) && !check_enough(c); i++) {
		check_case(c, "ops %s n %u", o->isa, sizes[i]);
		check_expsum(c, o, sizes[i]);
		check_columns(c, o, MIN(sizes[i], 1025));
		for (uint32_t heads = 1; heads <= MOST_HEADS; heads += 3)
			check_softmax_sum(c, o, sizes[i], heads);
		check_maxima(c, o, sizes[i]);
		check_softmax(c, o, MIN(sizes[i], 1025), 1 + 20 * (float)(i & 1));
		for (unsigned j = 0; j < ARRAY_SIZE(ks); j++)
			check_topk(c, o, sizes[i], ks[j]);
	}
	if (check_enough(c))
		return;
	check_case(c, "ops %s", o->isa);
	check_all_minus_infinity(c, o);
	check_cut_off(c, o);
	check_fast_exp(c, o);
	check_exp(c, o);
	check_merge(c, o);
	check_add_rows(c, o);
	check_lanes(c, o);
	check_dtypes(c, o);
}

/* The mask is how a user forces an ISA, and how these tests reach all of them. */
void check_cpu(struct check *c)
{
	const char *isa;
	float one = 1, back = 0;
	uint16_t half = 0;

	check_case(c, "cpu");
	check_true(c, "an unknown ISA is refused", kv_isa_limit("mmx") == -EINVAL);
	for (unsigned i = 0; (isa = kv_isa_at(i)); i++) {
		int r = kv_isa_limit(isa);

		check_true(c, "a limit holds", kv_isa_usable(isa) ? r == 0 : r == -EOPNOTSUPP);
		if (r < 0)
			continue;
		check_true(c, "and is told", !strcmp(kv_isa_name(), isa));
		check_true(c, "rows follow", !strcmp(kv_ops_find()->isa, isa));
		for (unsigned f = 0; kv_format_at(f); f++) {
			const struct kv_kernels *k = kv_kernels_find(kv_format_at(f));

			check_true(c, "of every format",
				   k && !strcmp(k->isa, isa) &&
					   !strcmp(k->format, kv_format_at(f)));
		}
	}
	check_true(c, "no limit", kv_isa_limit(NULL) == 0 && kv_isa_limit("") == 0);
	check_true(c, "no such format", kv_kernels_find("int3") == NULL);
	kv_from_f32(KV_F16, &one, &half, 1);
	kv_to_f32(KV_F16, &half, &back, 1);
	check_true(c, "1 is 0x3c00", half == 0x3c00 && back == 1);
}
