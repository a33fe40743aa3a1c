/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k_score_softmax: the scores of k_score_dims, bit for bit, and of them what
 * softmax_sum makes.
 */
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/check-rows.h"
#include "tests/kernels/checkkern.h"

static const struct kv_ops *ops_of(const char *isa)
{
	unsigned i = 0;

	while (strcmp(kv_ops_at(i)->isa, isa))
		i++;
	return kv_ops_at(i);
}

struct sums {
	float *a, *c, *sum; /* [heads][n], [n], [heads] */
};

static struct sums sums_in(float *memory, uint32_t heads, uint32_t n)
{
	return (struct sums){ memory, memory + (size_t)heads * n,
			      memory + (size_t)(heads + 1) * n };
}

static void compare(struct check *c, const struct sums *got, const struct sums *want,
		    uint32_t heads, uint32_t n)
{
	check_true(c, "k_score_softmax: scores",
		   !memcmp(got->a, want->a, (size_t)heads * n * sizeof(float)));
	for (uint32_t i = 0; i < n; i++)
		if (!check_near(c, "k_score_softmax: row", got->c[i], want->c[i],
				3 * KV_FAST_EXP_REL * want->c[i] + 1e-30))
			break;
	for (uint32_t h = 0; h < heads; h++)
		check_near(c, "k_score_softmax: head", got->sum[h], want->sum[h],
			   3 * KV_FAST_EXP_REL * want->sum[h] + 1e-30);
}

void check_score_softmax(struct check *c, const struct kv_kernels *k, const struct field *f,
			 uint32_t heads, uint32_t r)
{
	uint32_t tiles = f->block.tiles, tile = check_below(c, tiles);
	uint32_t n = (1 + check_below(c, tiles - tile)) * KV_TILE_ROWS, row = tile * KV_TILE_ROWS;
	size_t floats = (size_t)(heads + 1) * n + heads;
	struct guarded x = guarded_new(floats * sizeof(float));
	float *other = malloc(floats * sizeof(*other)), ref[16];
	float *coef = malloc((size_t)heads * r * sizeof(*coef));
	struct sums got = sums_in(x.data, heads, n), want = sums_in(other, heads, n);
	uint16_t channel[KV_MAX_DIM];

	if (!k->k_score_softmax || f->block.tile_rows != KV_TILE_ROWS)
		goto out;
	for (uint32_t i = 0; i < heads * r; i++)
		coef[i] = check_normal(c);
	for (uint32_t h = 0; h < heads; h++)
		ref[h] = 5 * check_normal(c);
	check_channels(c, f->dim, r, channel);
	k->k_score_dims(&f->block, row, n, coef, r, channel, r, heads, want.a, n);
	ops_of(k->isa)->softmax_sum(want.a, n, heads, ref, n, want.sum, want.c);
	k->k_score_softmax(&f->block, row, n, coef, r, channel, r, heads, got.a, n, ref, got.sum,
			   got.c);
	compare(c, &got, &want, heads, n);
	check_true(c, "k_score_softmax wrote before its output", guarded_intact(&x));
out:
	guarded_free(&x);
	free(other);
	free(coef);
}
