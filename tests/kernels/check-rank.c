/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_score_rank: sums and largest ranks of the scores of k_score_dims, and those scores, bit
 * for bit, of the groups that reach what is likely.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/check-rows.h"
#include "tests/kernels/checkkern.h"

struct trial {
	uint32_t heads, n, groups, room;
	float *a; /* [heads][n]: of k_score_dims */
	float ref[KV_RANK_HEADS], far;
	double sum[KV_RANK_HEADS], *max; /* [groups] */
};

/* Those far below the reference count as 2^-126; rows of a NaN as nothing that is compared. */
static void expect(struct trial *t)
{
	memset(t->sum, 0, sizeof(t->sum));
	for (uint32_t i = 0; i < t->n; i++) {
		double rank = 0;

		for (uint32_t h = 0; h < t->heads; h++) {
			double e = exp((double)t->a[h * t->n + i] - (double)t->ref[h]);

			t->sum[h] += e;
			rank += e;
		}
		if (i % KV_GROUP_ROWS == 0 || rank > t->max[i / KV_GROUP_ROWS])
			t->max[i / KV_GROUP_ROWS] = rank;
	}
}

static bool near_to(struct check *c, const struct trial *t, const char *what, float got,
		    double want)
{
	double rel = (double)KV_RANK_EXP_REL + 2e-6 * (double)t->far; /* score - ref has an error */

	if (!(want < (double)KV_REF_TOO_LOW))
		return check_true(c, what, !(got < KV_REF_TOO_LOW / 2));
	return check_near(c, what, (double)got, want, want * rel + 1e-33);
}

static void compare_groups(struct check *c, const struct trial *t, const struct kv_rank *got)
{
	uint32_t n = 0;

	for (uint32_t g = 0; g < t->groups; g++) {
		if (!(got->max[g] >= got->likely) || n == t->room)
			continue;
		check_true(c, "k_score_rank: group", n < got->n && got->group[n] == g);
		for (uint32_t h = 0; h < t->heads && n < got->n; h++)
			check_true(c, "k_score_rank: scores",
				   !memcmp(got->aside + (n * t->heads + h) * KV_GROUP_ROWS,
					   t->a + h * t->n + g * KV_GROUP_ROWS,
					   KV_GROUP_ROWS * sizeof(float)));
		n++;
	}
	check_true(c, "k_score_rank: groups", n == got->n);
}

static void run(struct check *c, const struct kv_kernels *k, const struct kv_block *b, uint32_t row,
		const float *coef, const uint16_t *channel, uint32_t r, struct trial *t)
{
	size_t floats = (size_t)t->room * t->heads * KV_GROUP_ROWS;
	struct guarded sum = guarded_new(t->heads * sizeof(float));
	struct guarded max = guarded_new(t->groups * sizeof(float));
	struct guarded aside = guarded_new(floats * sizeof(float));
	struct guarded group = guarded_new(t->room * sizeof(uint16_t));
	struct kv_rank got = { .ref = t->ref,
			       .sum = sum.data,
			       .max = max.data,
			       .likely = (float)t->max[check_below(c, t->groups)],
			       .room = t->room,
			       .aside = aside.data,
			       .group = group.data };

	k->k_score_rank(b, row, t->n, coef, r, channel, r, t->heads, &got);
	for (uint32_t h = 0; h < t->heads; h++)
		near_to(c, t, "k_score_rank: head", got.sum[h], t->sum[h]);
	for (uint32_t g = 0; g < t->groups; g++)
		near_to(c, t, "k_score_rank: largest", got.max[g], t->max[g]);
	compare_groups(c, t, &got);
	check_true(c, "k_score_rank wrote before its output",
		   guarded_intact(&sum) && guarded_intact(&max) && guarded_intact(&aside) &&
			   guarded_intact(&group));
	guarded_free(&sum);
	guarded_free(&max);
	guarded_free(&aside);
	guarded_free(&group);
}

void check_score_rank(struct check *c, const struct kv_kernels *k, const struct field *f,
		      uint32_t heads, uint32_t r)
{
	uint32_t tiles = f->block.tiles, tile = check_below(c, tiles), row = tile * KV_TILE_ROWS;
	uint32_t n = (1 + check_below(c, tiles - tile)) * KV_TILE_ROWS;
	struct trial t = { heads, n,   n / KV_GROUP_ROWS, check_below(c, 4), NULL, { 0 }, 0,
			   { 0 }, NULL };
	float *coef = malloc((size_t)heads * r * sizeof(*coef));
	uint16_t channel[KV_MAX_DIM];

	if (!k->k_score_rank || f->block.tile_rows != KV_TILE_ROWS)
		goto out;
	t.a = malloc((size_t)heads * n * sizeof(*t.a));
	t.max = malloc(t.groups * sizeof(*t.max));
	for (uint32_t i = 0; i < heads * r; i++)
		coef[i] = check_normal(c);
	t.far = check_below(c, 4) ? 5 : 200; /* beyond what the exponent of a number holds */
	for (uint32_t h = 0; h < heads; h++)
		t.ref[h] = t.far * check_normal(c);
	check_channels(c, f->dim, r, channel);
	k->k_score_dims(&f->block, row, n, coef, r, channel, r, heads, t.a, n);
	expect(&t);
	run(c, k, &f->block, row, coef, channel, r, &t);
out:
	free(t.a);
	free(t.max);
	free(coef);
}
