/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads side by side (kv_lanes), each against one pass in double: prompts and
 * speculation are made of them.
 *
 * The rows that only the last head sees hold no numbers: the daemon promises
 * that what a query may not see has no part in its result, not even times zero.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/checkkern.h"
#include "tests/kernels/reference.h"

#define POISON 3u /* rows */

struct case_of {
	const struct kv_ops *ops;
	uint32_t heads, dim, n;
	uint32_t *limit; /* [heads], ascending */
	float *q, *k, *v;
	float width; /* of the logits, and so of their rounding errors */
};

static float *floats(struct check *c, size_t n, float width)
{
	float *x = malloc((n + 1) * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = width * check_normal(c);
	return x;
}

static void make_case(struct check *c, struct case_of *t)
{
	static const float poison[] = { INFINITY, -INFINITY, NAN };
	size_t row = t->n - POISON, dim = t->dim;

	t->q = floats(c, t->heads * dim, t->width / sqrtf((float)dim));
	t->k = floats(c, t->n * dim, 1);
	t->v = floats(c, t->n * dim, 1);
	for (size_t i = row * dim; i < t->n * dim; i++) {
		t->k[i] = poison[i % 2 * 2];
		t->v[i] = poison[i % 3];
	}
	t->limit = malloc(t->heads * sizeof(*t->limit));
	for (uint32_t h = 0, low = 0; h < t->heads; h++) { /* the first may see nothing */
		low += check_below(c, 2 * t->n / t->heads + 2);
		t->limit[h] = h + 1 < t->heads ? MIN(low, (uint32_t)row) : t->n;
	}
}

/* In blocks that end at the same rows, whichever heads run. */
static void run_rows(const struct case_of *t, const struct kv_lanes *l, const uint32_t *limit)
{
	uint32_t *below = malloc(l->heads * sizeof(*below));

	for (uint32_t row = 0, n; row < t->n; row += n) {
		bool all;

		n = MIN(row % 5 ? KV_LANES_ROWS : 17 + row % 11, t->n - row);
		for (uint32_t h = 0; h < l->heads; h++)
			below[h] = limit[h] > row ? MIN(limit[h] - row, n) : 0;
		all = below[0] == n;
		t->ops->lanes_rows(l, t->k + row * t->dim, t->v + row * t->dim, n,
				   all ? NULL : below);
	}
	free(below);
}

/* Heads [first, first + heads) of the case. */
static void run_case(const struct case_of *t, uint32_t first, uint32_t heads, float *y, float *lse)
{
	size_t lanes = ALIGN_UP(heads, KV_LANES), bytes = lanes * t->dim * sizeof(float);
	struct kv_lanes l = { .heads = heads,
			      .k_dim = t->dim,
			      .v_dim = t->dim,
			      .q = aligned_alloc(64, bytes),
			      .y = aligned_alloc(64, bytes),
			      .max = aligned_alloc(64, lanes * sizeof(float)),
			      .sum = aligned_alloc(64, lanes * sizeof(float)) };

	memset(l.q, 0xff, bytes); /* NaN: what was there must not matter */
	memset(l.y, 0xff, bytes);
	t->ops->lanes_begin(&l);
	for (uint32_t h = 0; h < heads; h++)
		t->ops->lanes_query(&l, h, t->q + (size_t)(first + h) * t->dim);
	run_rows(t, &l, t->limit + first);
	t->ops->lanes_end(&l, y, lse);
	free(l.q);
	free(l.y);
	free(l.max);
	free(l.sum);
}

static void check_head(struct check *c, const struct case_of *t, uint32_t h, const float *y,
		       float lse)
{
	uint32_t n = t->limit[h];
	double want[KV_MAX_DIM] = { 0 }, want_lse = -INFINITY;

	if (n)
		want_lse = ref_attend(t->q + (size_t)h * t->dim, t->k, t->v, n, t->dim, 1, want);
	if (n)
		check_near(c, "lanes: lse", lse, want_lse, 1e-5 * (1 + fabs(want_lse)));
	else
		check_true(c, "lanes: lse of nothing", lse == -INFINITY);
	for (uint32_t i = 0; i < t->dim; i++)
		check_near(c, "lanes: row", y[i], want[i], 1e-5 * t->width);
}

static void check_case_of(struct check *c, const struct kv_ops *o, uint32_t heads, uint32_t dim)
{
	struct case_of t = {
		.ops = o, .heads = heads, .dim = dim, .n = POISON + 1 + check_below(c, 300)
	};
	struct guarded y = guarded_new(heads * dim * sizeof(float));
	struct guarded lse = guarded_new(heads * sizeof(float));
	uint32_t alone = check_below(c, heads);
	float one[KV_MAX_DIM], one_lse;

	check_case(c, "ops %s lanes heads %u dim %u n %u", o->isa, heads, dim, t.n);
	t.width = 1 + (float)check_below(c, 8);
	make_case(c, &t);
	run_case(&t, 0, heads, y.data, lse.data);
	for (uint32_t h = 0; h + 1 < heads; h++)
		check_head(c, &t, h, (float *)y.data + (size_t)h * dim, ((float *)lse.data)[h]);
	run_case(&t, alone, 1, one, &one_lse);
	check_true(c, "lanes: others leave no trace",
		   alone + 1 == heads ||
			   (!memcmp(one, (float *)y.data + (size_t)alone * dim,
				    dim * sizeof(*one)) &&
			    !memcmp(&one_lse, (float *)lse.data + alone, sizeof(one_lse))));
	check_true(c, "bytes before changed", guarded_intact(&y) && guarded_intact(&lse));
	guarded_free(&y);
	guarded_free(&lse);
	free(t.limit);
	free(t.q);
	free(t.k);
	free(t.v);
}

void check_lanes(struct check *c, const struct kv_ops *o)
{
	static const uint32_t dims[] = { 64, 80, 96, 112, 128, 192, 256 };
	static const uint32_t heads[] = { 2, 9, 16, 17, 31, 32, 33, 48, 100, 128 };

	for (unsigned i = 0; i < ARRAY_SIZE(heads) && !check_enough(c); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(dims); j++)
			check_case_of(c, o, heads[i], dims[j]);
}
