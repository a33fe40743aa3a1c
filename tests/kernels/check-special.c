/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inputs that are no numbers, or infinite, or too large for binary16. A client
 * may send any bits; what it may spoil is its own:
 *
 * - a group of codes (a channel of K's tile, a row of V) or, in plain formats,
 *   an element. Codes decode to finite numbers whatever was sent; plain formats
 *   keep what a rounding to their width gives.
 * - in a call, the results of the head whose coefficients they are.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/check-rows.h"
#include "tests/kernels/reference.h"

enum { HEADS = 3, SPOILT = 1, ROWS = KV_TILE_ROWS };

static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f };

/* One tile, written and read. */
struct tile {
	struct guarded memory;
	struct kv_block block;
	float *read;
};

static struct tile tile_new(const struct kv_kernels *k, uint32_t dim, bool is_k, const float *x)
{
	struct tile t = { 0 };

	t.memory = guarded_new((is_k ? k->k_bytes : k->v_bytes)(dim, 1, ROWS, 0));
	t.block = (struct kv_block){ t.memory.data, dim, 1, ROWS, 0, NULL };
	t.read = calloc((size_t)ROWS * dim, sizeof(*t.read));
	(is_k ? k->k_write : k->v_write)(&t.block, 0, x);
	(is_k ? k->k_read : k->v_read)(&t.block, 0, ROWS, t.read);
	return t;
}

static void tile_free(struct tile *t)
{
	guarded_free(&t->memory);
	free(t->read);
}

/* Every fifth channel or row has some; `ret` says which elements. */
static void spoil(struct check *c, float *x, uint32_t dim, bool by_channel, bool *ret)
{
	for (uint32_t i = 0; i < ROWS * dim; i++) {
		ret[i] = (by_channel ? i % dim : i / dim) % 5 == 2 && check_below(c, 8) == 0;
		if (ret[i])
			x[i] = odd[check_below(c, ARRAY_SIZE(odd))];
	}
}

/* Same value, or both not a number. */
static bool same(float a, float b)
{
	return a == b || (isnan(a) && isnan(b));
}

static void check_spoilt(struct check *c, const struct kv_kernels *k, const struct tile *clean,
			 const struct tile *got, const float *sent, const bool *spoilt,
			 bool by_channel)
{
	for (uint32_t i = 0; i < ROWS * clean->block.dim; i++) {
		uint32_t group = by_channel ? i % clean->block.dim : i / clean->block.dim;
		bool untouched = k->plain ? !spoilt[i] : group % 5 != 2;

		if (untouched &&
		    !check_near(c, "another group changed", got->read[i], clean->read[i], 0))
			return;
		if (!k->plain && !check_true(c, "a code is finite", isfinite(got->read[i])))
			return;
		if (k->plain && spoilt[i] && !isfinite(sent[i]) &&
		    !check_true(c, "what is no number stays so", same(got->read[i], sent[i])))
			return;
	}
}

/* Against the rows as decoded: NaN where those give NaN, infinities of the same sign, and numbers
 * that agree. */
static void check_products(struct check *c, const struct kv_kernels *k, const struct tile *t)
{
	uint32_t dim = t->block.dim;
	float q[KV_MAX_DIM], p[ROWS], widest = 0;
	double rounded;

	field_fill(c, q, dim);
	/* Coefficients of codes may be rounded together (k_max_rel), and a step up to infinity is
	 * one of 65504. */
	for (uint32_t i = 0; i < ROWS * dim && !k->plain; i++)
		widest = fmaxf(widest, 2 * fabsf(t->read[i]));
	rounded = 0x1p-16 * ref_largest(q, &widest, 0, dim, dim);
	k->k_dot(&t->block, 0, ROWS, q, dim, 1, p, ROWS, 0);
	for (uint32_t i = 0; i < ROWS; i++) {
		const float *x = t->read + (size_t)i * dim;
		double want = ref_dot(q, x, dim), size = ref_dot_size(q, x, dim);

		if (!isfinite(want))
			check_true(c, "k_dot is not finite", !isfinite(p[i]));
		else if (size < 3e38) /* and with more, sums in f32 overflow that do not in f64 */
			check_near(c, "k_dot", p[i], want,
				   1e-5 * size + (k->plain ? 0 : 4e-6 * 131008 * dim) + rounded);
	}
}

enum stage { DOT, SCORE, AXPY, STAGES };

/* Rows that begin and end inside of whatever a stage takes at once; ret[HEADS][KV_MAX_DIM]. */
static uint32_t run_stage(const struct kv_kernels *k, enum stage stage, const struct tile *kt,
			  const struct tile *vt, const float *w, float *ret)
{
	static const uint16_t channel[] = { 1, 2, 9, 17, 40, 63 };
	const uint32_t row = 3, n = 77, stride = KV_MAX_DIM;

	memset(ret, 0, HEADS * KV_MAX_DIM * sizeof(*ret));
	if (stage == DOT)
		k->k_dot(&kt->block, row, n, w, stride, HEADS, ret, stride, 0);
	else if (stage == SCORE)
		k->k_score_dims(&kt->block, row, n, w, stride, channel, ARRAY_SIZE(channel), HEADS,
				ret, stride);
	else
		k->v_axpy(&vt->block, row, n, w, stride, HEADS, ret, stride, 0);
	return stage == AXPY ? vt->block.dim : n;
}

/* One of the heads with a number that is none among the first few of what it brings. */
static void check_heads_apart(struct check *c, const struct kv_kernels *k, const struct tile *kt,
			      const struct tile *vt, float bad)
{
	static float w[HEADS * KV_MAX_DIM], clean[HEADS * KV_MAX_DIM], got[HEADS * KV_MAX_DIM];

	for (enum stage stage = 0; stage < STAGES; stage++) {
		float *spoilt = &w[SPOILT * KV_MAX_DIM + check_below(c, 6)];
		uint32_t width;

		field_fill(c, w, ARRAY_SIZE(w));
		run_stage(k, stage, kt, vt, w, clean);
		*spoilt = bad;
		width = run_stage(k, stage, kt, vt, w, got);
		for (uint32_t i = 0; i < ARRAY_SIZE(w); i++) {
			if (i % KV_MAX_DIM >= width || i / KV_MAX_DIM != SPOILT)
				check_near(c, "another head changed", got[i], clean[i], 0);
			else
				check_true(c, "a head with what is no number has none",
					   !isfinite(got[i]));
		}
	}
}

static void check_dim(struct check *c, const struct kv_kernels *k, uint32_t dim, bool is_k)
{
	size_t n = (size_t)ROWS * dim;
	float *x = calloc(n, sizeof(*x));
	bool *spoilt = calloc(n, sizeof(*spoilt));
	struct tile clean, got;

	check_case(c, "%s %s dim %u %s: special values", k->format, k->isa, dim, is_k ? "K" : "V");
	field_fill(c, x, n);
	clean = tile_new(k, dim, is_k, x);
	spoil(c, x, dim, is_k && !k->group, spoilt);
	got = tile_new(k, dim, is_k, x);
	check_spoilt(c, k, &clean, &got, x, spoilt, is_k && !k->group);
	if (is_k)
		check_products(c, k, &got);
	check_true(c, "bytes before the block changed", guarded_intact(&got.memory));
	tile_free(&clean);
	tile_free(&got);
	free(x);
	free(spoilt);
}

void check_special(struct check *c, const struct kv_kernels *k)
{
	static const uint32_t dims[] = { 80, 128 };

	for (unsigned i = 0; i < ARRAY_SIZE(dims) && !check_enough(c); i++) {
		float *x = calloc((size_t)ROWS * dims[i], sizeof(*x));
		struct tile kt, vt;

		check_dim(c, k, dims[i], true);
		check_dim(c, k, dims[i], false);
		field_fill(c, x, (size_t)ROWS * dims[i]);
		kt = tile_new(k, dims[i], true, x);
		vt = tile_new(k, dims[i], false, x);
		for (unsigned b = 0; b < 3; b++) {
			check_case(c, "%s %s dim %u: %g in a head", k->format, k->isa, dims[i],
				   odd[b]);
			check_heads_apart(c, k, &kt, &vt, odd[b]);
		}
		tile_free(&kt);
		tile_free(&vt);
		free(x);
	}
}
