/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Positive controls: a row of the table with one small error at a time, each of
 * the kind that a kernel gets wrong, must make the checks fail. A check that
 * passes all of them could not be trusted with the real rows.
 */
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/checkkern.h"

static const struct kv_kernels *right; /* what the wrong ones call first */
static const struct kv_ops *right_ops;

/* One bit of one code in the last row. */
static void flip_last(const struct kv_block *b, struct kv_kernels const *k, bool is_k)
{
	size_t n = is_k ? k->k_bytes(b->dim, b->tiles, b->tile_rows, 0)
			: k->v_bytes(b->dim, b->tiles, b->tile_rows, 0);

	((uint8_t *)b->base)[n / 3] ^= 0x40;
}

static void wrong_k_write(const struct kv_block *b, unsigned slot, const float *x)
{
	right->k_write(b, slot, x);
	flip_last(b, right, true);
}

static void wrong_v_write(const struct kv_block *b, unsigned slot, const float *x)
{
	right->v_write(b, slot, x);
	flip_last(b, right, false);
}

/* Swaps two neighbours: the wrong order of nibbles, or rows off by one. */
static void swap(float *a, uint32_t n)
{
	if (n >= 2) {
		float x = a[n - 2];

		a[n - 2] = a[n - 1];
		a[n - 1] = x;
	}
}

static void wrong_score(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			size_t coef_stride, const uint16_t *channel, uint32_t r, uint32_t heads,
			float *a, size_t a_stride)
{
	right->k_score_dims(b, row, n, coef, coef_stride, channel, r, heads, a, a_stride);
	swap(a, n);
}

static void wrong_score_edge(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			     size_t coef_stride, const uint16_t *channel, uint32_t r,
			     uint32_t heads, float *a, size_t a_stride)
{
	right->k_score_dims(b, row, n, coef, coef_stride, channel, r, heads, a, a_stride);
	a[n] = 0; /* one beyond, as whole vectors are */
}

static void wrong_dot(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
		      size_t q_stride, uint32_t heads, float *p, size_t p_stride, unsigned level)
{
	right->k_dot(b, row, n, q, q_stride, heads, p, p_stride, level);
	for (uint32_t i = 0; i < n; i++)
		p[(heads - 1) * p_stride + i] *= 1.001f;
}

static void wrong_dot_level(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			    size_t q_stride, uint32_t heads, float *p, size_t p_stride,
			    unsigned level)
{
	right->k_dot(b, row, n, q, q_stride, heads, p, p_stride, right->levels - 1);
}

/* Heads computed together: nothing of it shows until one of them is no number. */
static void wrong_dot_apart(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			    size_t q_stride, uint32_t heads, float *p, size_t p_stride,
			    unsigned level)
{
	right->k_dot(b, row, n, q, q_stride, heads, p, p_stride, level);
	for (uint32_t i = 0; i < n && heads > 1; i++)
		p[i] += 0 * p[p_stride + i];
}

static void wrong_axpy(const struct kv_block *b, uint32_t row, uint32_t n, const float *p,
		       size_t p_stride, uint32_t heads, float *y, size_t y_stride, unsigned level)
{
	right->v_axpy(b, row, n ? n - 1 : 0, p, p_stride, heads, y, y_stride, level);
}

static void wrong_read(const struct kv_block *b, uint32_t row, uint32_t n, float *x)
{
	right->v_read(b, row, n, x);
	swap(x, n * b->dim);
}

static void wrong_expsum(const float *a, uint32_t n, float *ret_max, float *ret_sum)
{
	right_ops->max_expsum(a, n, ret_max, ret_sum);
	*ret_sum *= 1 + 2 * KV_FAST_EXP_REL;
}

/* Ties to the higher row, as an unstable selection gives them. */
static uint32_t wrong_topk(const float *c, uint32_t n, uint32_t k, float least, uint32_t *ret_index,
			   void *tmp)
{
	uint32_t found = right_ops->topk(c, n, k, least, ret_index, tmp);

	for (uint32_t i = n; found && i-- > ret_index[found - 1] + 1;)
		if (c[i] == c[ret_index[found - 1]])
			ret_index[found - 1] = i;
	return found;
}

static void wrong_softmax(float *p, uint32_t n, float *m, float *l, float *y, uint32_t dim)
{
	float was = *m;

	right_ops->softmax_block(p, n, m, l, y, dim);
	if (was > -1e30f && *m > was)
		y[dim - 1] *= 1.01f; /* rescaled a little wrong */
}

static void wrong_merge(float *y, float *lse, const float *other, float other_lse, uint32_t dim)
{
	right_ops->merge(y, lse, other, other_lse * 1.4427f, dim); /* base 2 */
}

static void wrong_columns(const uint16_t *column, size_t stride, const uint16_t *which, uint32_t n,
			  const float *coef, size_t coef_stride, uint32_t heads, uint32_t rows,
			  float *a, size_t a_stride)
{
	right_ops->add_columns(column, stride, which, n - 1, coef, coef_stride, heads, rows, a,
			       a_stride); /* forgets the last */
}

static void wrong_softmax_sum(const float *a, size_t stride, uint32_t heads, const float *ref,
			      uint32_t n, float *ret_sum, float *c)
{
	right_ops->softmax_sum(a, stride, heads, ref, n, ret_sum, c);
	if (n)
		c[n - 1] *= 1.001f;
}

static void wrong_maxima(const float *c, uint32_t n, float *ret_max)
{
	right_ops->maxima(c, n - (n > 0), ret_max); /* forgets the last */
}

static void wrong_score_softmax(const struct kv_block *b, uint32_t row, uint32_t n,
				const float *coef, size_t coef_stride, const uint16_t *channel,
				uint32_t r, uint32_t heads, float *a, size_t a_stride,
				const float *ref, float *ret_sum, float *ret_c)
{
	right->k_score_softmax(b, row, n, coef, coef_stride, channel, r, heads, a, a_stride, ref,
			       ret_sum, ret_c);
	ret_sum[heads - 1] *= 1.001f;
}

static unsigned wrong_rank; /* what wrong_score_rank spoils */

static void wrong_score_rank(const struct kv_block *b, uint32_t row, uint32_t n, const float *coef,
			     size_t coef_stride, const uint16_t *channel, uint32_t r,
			     uint32_t heads, struct kv_rank *rank)
{
	right->k_score_rank(b, row, n, coef, coef_stride, channel, r, heads, rank);
	if (wrong_rank == 0)
		rank->sum[heads - 1] *= 1.001f;
	if (wrong_rank == 1)
		rank->max[n / KV_GROUP_ROWS - 1] *= 1.001f;
	if (wrong_rank == 2 && rank->n)
		rank->aside[(rank->n * heads - 1) * KV_GROUP_ROWS] += 1;
	if (wrong_rank == 3 && rank->n)
		rank->n--;
}

/* Cut off, not rounded to the nearest. */
static void wrong_from_f32(unsigned dtype, const float *from, void *to, size_t n)
{
	right_ops->from_f32(dtype, from, to, n);
	for (size_t i = 0; i < n && dtype == KV_BF16; i++)
		memcpy((uint16_t *)to + i, (const char *)(from + i) + 2, 2);
}

/* In the calls that are always made, or in those of chance. */
/* A query sees the rows after its own. */
static void wrong_limits(const struct kv_lanes *l, const float *k, const float *v, uint32_t n,
			 const uint32_t *below)
{
	right_ops->lanes_rows(l, k, v, n, NULL);
}

/* A block misses its last row. */
static void wrong_lanes(const struct kv_lanes *l, const float *k, const float *v, uint32_t n,
			const uint32_t *below)
{
	right_ops->lanes_rows(l, k, v, below || n == 1 ? n : n - 1, below);
}

static void must_fail(struct check *c, const char *what, const struct kv_kernels *k,
		      const struct kv_ops *o, bool chance)
{
	struct check trial = { .seed = c->seed, .random = c->seed, .quiet = true };

	if (chance)
		check_random_cases(&trial, k, o, 5000);
	else if (k)
		check_rows(&trial, k);
	else
		check_ops(&trial, o);
	check_case(c, "control %s", what);
	check_true(c, "an error was not seen", trial.failed > 0);
}

static void check_wrong_rows(struct check *c, const struct kv_kernels *k)
{
	static const char *const name[] = { "k_write",      "v_write",     "score",
					    "score's edge", "k_dot",       "v_axpy",
					    "v_read",       "heads apart", "level" };
	struct kv_kernels wrong[ARRAY_SIZE(name)], fused = *k;

	right = k;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		wrong[i] = *k;
	wrong[0].k_write = wrong_k_write;
	wrong[1].v_write = wrong_v_write;
	wrong[2].k_score_dims = wrong_score;
	wrong[3].k_score_dims = wrong_score_edge;
	wrong[4].k_dot = wrong_dot;
	wrong[5].v_axpy = wrong_axpy;
	wrong[6].v_read = wrong_read;
	wrong[7].k_dot = wrong_dot_apart;
	wrong[8].k_dot = wrong_dot_level;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong) - (k->levels == 1); i++)
		must_fail(c, name[i], &wrong[i], NULL, false);
	fused.k_score_softmax = wrong_score_softmax;
	if (k->k_score_softmax)
		must_fail(c, "score and softmax", &fused, NULL, false);
	for (wrong_rank = 0; k->k_score_rank && wrong_rank < 4; wrong_rank++) {
		struct kv_kernels ranked = *k;

		ranked.k_score_rank = wrong_score_rank;
		must_fail(c, "score and rank", &ranked, NULL, false);
	}
	must_fail(c, "score by chance", &wrong[2], NULL, true);
	must_fail(c, "k_dot by chance", &wrong[4], NULL, true);
	must_fail(c, "v_axpy by chance", &wrong[5], NULL, true);
}

static void check_wrong_ops(struct check *c, const struct kv_ops *o)
{
	static const char *const name[] = {
		"max_expsum", "topk",     "softmax_block", "merge",
		"maxima",     "from_f32", "add_columns",   "softmax_sum",
		"limits",     "lanes"
	};
	struct kv_ops wrong[ARRAY_SIZE(name)];

	right_ops = o;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		wrong[i] = *o;
	wrong[0].max_expsum = wrong_expsum;
	wrong[1].topk = wrong_topk;
	wrong[2].softmax_block = wrong_softmax;
	wrong[3].merge = wrong_merge;
	wrong[4].maxima = wrong_maxima;
	wrong[5].from_f32 = wrong_from_f32;
	wrong[6].add_columns = wrong_columns;
	wrong[7].softmax_sum = wrong_softmax_sum;
	wrong[8].lanes_rows = wrong_limits;
	wrong[9].lanes_rows = wrong_lanes;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		must_fail(c, name[i], NULL, &wrong[i], false);
	for (unsigned i = 0; i < 4; i++)
		must_fail(c, name[i], NULL, &wrong[i], true);
}

void check_control(struct check *c, const struct kv_kernels *k, const struct kv_ops *o)
{
	check_wrong_rows(c, k);
	if (!strcmp(k->format, "f32"))
		check_wrong_ops(c, o);
}
