/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worked examples, made in double precision by a program of its own
 * (golden.json): index lists exactly, float32 results to 1e-5.
 *
 * Examples have 2 to 8 channels. They are padded with zeros to 64, which
 * changes nothing at the example's own scale: a zero channel of q scores
 * nothing and adds nothing to |q|.
 *
 *   test-golden FILE
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "shm/base.h"
#include "tests/kernels/golden-device.h"
#include "tests/kernels/json.h"
#include "tests/kernels/rig.h"

#define DIM 64u
#define MAX_ROWS 128u
#define MAX_GROUP 2u
#define EXACT 1e-5
/* The examples' parameters are not rounded to binary16, ours are, so that a code may differ by one
 * step of range / 240; averaged over the rows. */
#define HALF 3e-3

struct example {
	const struct json *q, *k, *v; /* q: one vector, or one per head */
	const char *format;           /* NULL: rows stay as sent */
	double q_scale;               /* 0: 1 */
};

struct setting {
	uint32_t r, k, l;
	enum kv_mean mean;
	enum kv_group_rule rule;
	bool dense, exact_scores;
	unsigned level;
};

#define SPARQ(r_, k_, l_, mean_, rule_)                                                            \
	(&(struct setting){                                                                        \
		.r = r_, .k = k_, .l = l_, .mean = KV_MEAN_##mean_, .rule = KV_GROUP_##rule_ })

struct outcome {
	uint32_t rows[MAX_ROWS], n_rows, channel[KV_MAX_DIM], r, dim, heads;
	float a[MAX_GROUP][MAX_ROWS], y[MAX_GROUP * KV_MAX_DIM], lse[MAX_GROUP], alpha[MAX_GROUP];
	double tau[MAX_GROUP];
};

static struct json *golden;
static const char *test_case;
static unsigned failed, checked, by_device;

/* ---- comparing ------------------------------------------------------------- */

static void near(const char *what, double got, double want, double tolerance)
{
	checked++;
	if (fabs(got - want) <= tolerance)
		return;
	fprintf(stderr, "%s: %s is %.8g, not %.8g\n", test_case, what, got, want);
	failed++;
}

/* Relative to the whole list for exact values, to each number for those of 16-bit parameters. */
static void near_list(const char *what, const float *got, const struct json *want, double tolerance)
{
	double error = 0, norm = 0, worst = 0;

	for (size_t i = 0; i < json_length(want); i++) {
		double off = (double)got[i] - json_number_at(want, i);

		error += off * off;
		norm += pow(json_number_at(want, i), 2);
		worst = fabs(off) > worst ? fabs(off) : worst;
	}
	if (tolerance >= HALF)
		near(what, worst, 0, tolerance);
	else
		near(what, sqrt(error), 0, tolerance * (sqrt(norm) > 1 ? sqrt(norm) : 1));
}

static void same_list(const char *what, const uint32_t *got, size_t n, const struct json *want)
{
	near(what, (double)n, (double)json_length(want), 0);
	for (size_t i = 0; i < n && i < json_length(want); i++)
		near(what, got[i], json_number_at(want, i), 0);
}

/* ---- running an example ---------------------------------------------------- */

static float padded(const struct json *row, uint32_t c, bool repeat)
{
	size_t n = json_length(row);

	return repeat || c < n ? (float)json_number_at(row, c % n) : 0;
}

/* V's quantisation groups lie along channels: repeating a row leaves its range as it was. */
static void fill_rows(const struct example *x, float *kv)
{
	for (uint32_t t = 0; t < MAX_ROWS; t++, kv += 2 * DIM) {
		size_t row = t % json_length(x->k);

		for (uint32_t c = 0; c < DIM; c++) {
			kv[c] = padded(json_at(x->k, row), c, false);
			kv[DIM + c] = x->v ? padded(json_at(x->v, row), c, x->format) : 0;
		}
	}
}

static const struct json *head_q(const struct example *x, uint32_t h)
{
	return json_is_array(json_at(x->q, 0)) ? json_at(x->q, h) : x->q;
}

static void make_plan(const struct setting *s, struct kv_plan *p)
{
	kv_val score;
	kv_part part;

	kv_plan_init(p);
	if (s->dense) {
		kv_plan_output(p, kv_plan_attend(p, kv_plan_all(p)));
		return;
	}
	score = s->exact_scores ? kv_plan_score(p) : kv_plan_score_dims(p, s->r);
	part = kv_plan_attend(
		p, kv_plan_topk(p, score,
				(struct kv_topk){ .k = s->k, .recent = s->l, .rule = s->rule }));
	kv_plan_output(p, kv_plan_mean_rest(p, part, score, s->mean));
}

static void make_space(const struct example *x, struct kv_space *s)
{
	const char *format = x->format ? x->format : "f32";
	uint32_t heads = json_is_array(json_at(x->q, 0)) ? (uint32_t)json_length(x->q) : 1;
	struct kv_space_params p = {
		.heads = heads,
		.kv_heads = 1,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = KV_F32,
		.scale = (float)(1 / sqrt((double)json_length(head_q(x, 0)))),
		.k_format = format,
		.v_format = format,
		.policy = kv_policy_find("dense"),
	};
	char why[KV_ERROR_TEXT];

	if (kv_space_init(s, &p, why)) {
		fprintf(stderr, "%s: %s\n", test_case, why);
		exit(1);
	}
}

static void collect(const struct kv_exec *e, const struct example *x, struct outcome *ret)
{
	const struct state *s = e->scratch;
	const struct run_list *rows = &s->sel[s->mode == KV_EXEC_SCORE ? 1 : 0];

	*ret = (struct outcome){ .r = s->r,
				 .dim = (uint32_t)json_length(head_q(x, 0)),
				 .heads = s->heads };
	for (uint32_t i = 0; i < rows->n; i++)
		for (uint32_t t = 0; t < rows->run[i].n; t++)
			ret->rows[ret->n_rows++] = rows->run[i].first + t;
	for (uint32_t j = 0; j < s->r; j++)
		ret->channel[j] = s->channel[j];
	memcpy(ret->y, e->result.y, s->heads * DIM * sizeof(float));
	memcpy(ret->lse, e->result.lse, s->heads * sizeof(float));
	memcpy(ret->alpha, s->alpha, s->heads * sizeof(float));
	for (uint32_t h = 0; h < s->heads && s->mode == KV_EXEC_SCORE; h++) {
		memcpy(ret->a[h], s->a + h * s->a_stride, s->visible * sizeof(float));
		/* coef = q / tau */
		if (s->r)
			ret->tau[h] = (double)s->q[h * DIM + s->channel[0]] /
				      (double)e->space->scale / (double)s->coef[h * s->r];
	}
}

static struct outcome run(const struct example *x, const struct setting *s)
{
	float *kv = calloc((size_t)MAX_ROWS * 2 * DIM, sizeof(*kv)), q[MAX_GROUP * DIM];
	uint32_t n = (uint32_t)json_length(x->k);
	struct kv_query query = { .q = q, .n_q = 1, .first_limit = n, .level = s->level };
	struct kv_space space;
	struct outcome ret;
	struct kv_plan plan;
	struct kv_exec e;
	struct rig rig;
	void *scratch;

	make_space(x, &space);
	make_plan(s, &plan);
	fill_rows(x, kv);
	for (uint32_t i = 0; i < space.heads * DIM; i++)
		q[i] = padded(head_q(x, i / DIM), i % DIM, false) *
		       (x->q_scale ? (float)x->q_scale : 1);
	rig_init(&rig, &space, MAX_ROWS, 0);
	rig_append(&rig, kv, x->format ? MAX_ROWS : n, MAX_ROWS);
	rig_cut(&rig, n); /* with a format: the first rows of a tile */
	scratch = aligned_alloc(64, kv_exec_scratch_bytes(&space, &plan, &rig.view, &query));
	kv_exec_init(&e, &space, &plan, &rig.view, &query, 0, scratch);
	for (uint32_t i = 0; i < e.shares; i++)
		kv_exec_share(&e, i);
	kv_exec_finish(&e);
	collect(&e, x, &ret);
	by_device += golden_device(&space, &plan, &rig.view, &query, ret.rows, &ret.n_rows, ret.y,
				   ret.lse, ret.alpha);
	free(scratch);
	free(kv);
	rig_deinit(&rig);
	return ret;
}

/* ---- cases ----------------------------------------------------------------- */

static struct example tile8(const char *format)
{
	const struct json *o = json_get(golden, "sparq_single");

	return (struct example){ .q = json_get(o, "q"),
				 .k = json_get(o, "K"),
				 .v = json_get(o, "V"),
				 .format = format };
}

static void single(const struct outcome *got, const struct json *want, double tolerance)
{
	same_list("i1", got->channel, got->r, json_get(want, "i1"));
	near("tau", got->tau[0], json_number_in(want, "tau"), tolerance);
	near_list("approx_logits", got->a[0], json_get(want, "approx_logits"), tolerance * 5);
	same_list("i2", got->rows, got->n_rows, json_get(want, "i2"));
	near("alpha", (double)got->alpha[0], json_number_in(want, "alpha"), tolerance);
	near("lse", (double)got->lse[0], json_number_in(want, "lse_selected"), tolerance);
	near_list("y", got->y, json_get(want, "y"), tolerance);
}

static void check_single(void)
{
	const struct json *o = json_get(golden, "sparq_single");
	struct example x = tile8(NULL);
	struct outcome got;

	test_case = "sparq_single";
	got = run(&x, SPARQ(3, 4, 2, ALL, SOFTMAX));
	single(&got, json_get(o, "expected"), EXACT);
	got = run(&x, SPARQ(3, 4, 2, OFF, SOFTMAX));
	near_list("no mean", got.y, json_get(o, "expected_no_reallocation/y"), EXACT);
	got = run(&x, SPARQ(3, 5, 3, ALL, SOFTMAX));
	single(&got, json_get(o, "expected_repo_convention"), EXACT);
	got = run(&x, SPARQ(3, 4, 2, REST, SOFTMAX));
	near_list("mean of the rest", got.y, json_get(o, "expected_unselected_mean/y"), EXACT);
	got = run(&x, SPARQ(8, 8, 0, ALL, SOFTMAX));
	near("tau of all", got.tau[0], json_number_in(o, "expected_r_eq_d_k_eq_S/tau"), EXACT);
	near("alpha of all", (double)got.alpha[0], 1, 0);
	near_list("all", got.y, json_get(o, "expected_r_eq_d_k_eq_S/y_dense"), EXACT);
}

static void check_summaries(void)
{
	const struct json *o = json_get(golden, "summary_example_1_corrected");
	struct example x = { .q = json_get(o, "q"), .k = json_get(o, "K_token_major") };
	struct outcome got = run(&x, SPARQ(2, 2, 0, OFF, SOFTMAX));

	test_case = "summary_example_1_corrected";
	same_list("i1", got.channel, got.r, json_get(o, "i1"));
	near("tau", got.tau[0], json_number_in(o, "tau"), EXACT);
	near_list("approx_logits", got.a[0], json_get(o, "approx_logits"), EXACT);
	same_list("i2", got.rows, got.n_rows, json_get(o, "i2"));
	near("alpha", (double)got.alpha[0], json_number_in(o, "alpha"), EXACT);

	test_case = "summary_example_2_corrected";
	o = json_get(golden, test_case);
	x = (struct example){ .q = json_get(o, "q"),
			      .k = json_get(o, "K_token_major"),
			      .v = json_get(o, "V") };
	got = run(&x, SPARQ(2, 2, 0, ALL, SOFTMAX));
	single(&got, json_get(o, "expected"), EXACT);
}

static void group(const struct outcome *got, const struct json *want)
{
	same_list("i1", got->channel, got->r, json_get(want, "i1"));
	same_list("i2", got->rows, got->n_rows, json_get(want, "i2"));
	for (uint32_t h = 0; h < got->heads; h++) {
		const struct json *a = json_at(json_get(want, "approx_logits"), h);

		near("tau", got->tau[h], json_number_at(json_get(want, "tau"), h), EXACT);
		near_list("approx_logits", got->a[h], a, EXACT);
		near("alpha", (double)got->alpha[h], json_number_at(json_get(want, "alpha"), h),
		     EXACT);
		near("lse", (double)got->lse[h], json_number_at(json_get(want, "lse_selected"), h),
		     EXACT);
		near_list("y", got->y + h * DIM, json_at(json_get(want, "y"), h), EXACT);
	}
}

static void check_groups(void)
{
	const struct json *o = json_get(golden, "sparq_gqa");
	struct example x = { .q = json_get(o, "Q"), .k = json_get(o, "K"), .v = json_get(o, "V") };
	struct outcome got;

	test_case = "sparq_gqa";
	got = run(&x, SPARQ(3, 3, 1, OFF, SOFTMAX));
	group(&got, json_get(o, "expected/sum_softmax_no_reallocation"));
	got = run(&x, SPARQ(3, 3, 1, ALL, SOFTMAX));
	group(&got, json_get(o, "expected/sum_softmax_reallocation"));
	got = run(&x, SPARQ(3, 3, 1, OFF, LOGITS));
	group(&got, json_get(o, "expected/sum_logits_no_reallocation"));

	test_case = "sparq_gqa_rule_disagreement";
	o = json_get(golden, test_case);
	x = (struct example){ .q = json_get(o, "Q"), .k = json_get(o, "K"), .v = json_get(o, "V") };
	got = run(&x, SPARQ(2, 2, 0, OFF, SOFTMAX));
	group(&got, json_get(o, "sum_softmax"));
	got = run(&x, SPARQ(2, 2, 0, OFF, LOGITS));
	group(&got, json_get(o, "sum_logits"));
}

static void check_sharded(void)
{
	const struct json *o = json_get(golden, "sparq_sharded/expected");
	struct example x = tile8(NULL);
	struct outcome got = run(&x, SPARQ(3, 4, 2, ALL, SOFTMAX));

	test_case = "sparq_sharded";
	same_list("i2", got.rows, got.n_rows, json_get(o, "i2"));
	near("alpha", (double)got.alpha[0], json_number_in(o, "alpha"), EXACT);
	near("lse", (double)got.lse[0], json_number_in(o, "lse_selected"), EXACT);
	near_list("y", got.y, json_get(o, "y"), EXACT);
}

static void check_degenerate(void)
{
	const struct json *o = json_get(golden, "sparq_S1"),
			  *zero = json_get(golden, "sparq_zero_query");
	struct example x = { .q = json_get(o, "q"), .k = json_get(o, "K"), .v = json_get(o, "V") };
	struct outcome got = run(&x, SPARQ(3, 128, 32, ALL, SOFTMAX));

	test_case = "sparq_S1";
	single(&got, json_get(o, "expected"), EXACT);

	test_case = "sparq_zero_query";
	x = tile8(NULL);
	x.q_scale = 1e-60; /* 0 in float */
	got = run(&x, SPARQ(3, 8, 0, ALL, SOFTMAX));
	near_list("y", got.y, json_get(zero, "y"), EXACT);
	got = run(&x, SPARQ(3, 4, 2, ALL, SOFTMAX));
	near("alpha", (double)got.alpha[0], 4 * json_number_at(json_get(zero, "s_hat"), 0), EXACT);
}

static void check_ties(void)
{
	const struct json *o = json_get(golden, "topk_ties"), *c = json_get(o, "x");
	uint32_t index[8], tmp[256], n;
	float x[64] = { 0 };

	test_case = "topk_ties";
	for (size_t i = 0; i < json_length(c); i++)
		x[i] = (float)json_number_at(c, i);
	n = kv_ops_find()->topk(x, (uint32_t)json_length(c), (uint32_t)json_number_in(o, "k"),
				-INFINITY, index, tmp);
	same_list("expected", index, n, json_get(o, "expected"));
}

static void mean(const struct rig *rig, uint32_t limit, const struct json *want)
{
	double sum[KV_MAX_DIM];
	struct kv_map map;
	uint32_t from;

	kv_map_init(&map, rig->space, &rig->view, 0);
	kv_map_sum_v(&map, limit, sum, &from);
	for (size_t c = 0; c < json_length(want); c++)
		near("mean", sum[c] / limit, json_number_at(want, c), EXACT);
}

static void check_mean(void)
{
	const struct json *o = json_get(golden, "v_mean_incremental"), *after;
	float *kv = calloc((size_t)MAX_ROWS * 2 * DIM, sizeof(*kv));
	struct example x = tile8(NULL);
	struct kv_space space;
	struct rig rig;

	test_case = "v_mean_incremental";
	make_space(&x, &space);
	fill_rows(&x, kv);
	rig_init(&rig, &space, MAX_ROWS, 0);
	rig_write(&rig, kv, 5);
	mean(&rig, 5, json_get(o, "start"));
	after = json_get(o, "after_each_append");
	for (uint32_t i = 0; i < json_length(after); i++) {
		rig_write(&rig, kv + (size_t)(5 + i) * 2 * DIM, 1);
		mean(&rig, 6 + i, json_at(after, i));
	}
	rig_cut(&rig, 7);
	mean(&rig, 7, json_get(o, "after_rollback_of_7"));
	rig_deinit(&rig);
	free(kv);
}

/* Base 2 in place of e must show: the error this guards against is a mix of the two. */
static void merge(const struct json *o, double lse_factor, const char *want_y, double *ret_lse)
{
	const struct json *ys = json_get(golden, "lse_merge/shard_y"),
			  *lses = json_get(o, "shard_lse");
	float y[DIM] = { 0 }, lse = -INFINITY, other[DIM] = { 0 };

	for (size_t i = 0; i < json_length(lses); i++) {
		const struct json *l = json_at(lses, i);
		const struct json *shard = json_at(ys, i);

		for (size_t c = 0; c < json_length(shard); c++)
			other[c] = (float)json_number_at(shard, c);
		kv_ops_find()->merge(y, &lse, other,
				     l ? (float)(json_number(l) * lse_factor) : -INFINITY, DIM);
	}
	if (want_y)
		near_list("y", y, json_get(o, want_y), EXACT);
	*ret_lse = (double)lse;
}

static void check_merge(void)
{
	const struct json *o = json_get(golden, "lse_merge"), *large;
	struct example x = tile8(NULL);
	struct outcome got;
	double lse;

	test_case = "lse_merge";
	merge(o, 1, "y", &lse);
	near("lse", lse, json_number_in(o, "lse"), EXACT);
	merge(o, 1 / log(2), "wrong_base2_lse_fed_to_base_e_merge/y", &lse);
	got = run(&x, &(struct setting){ .dense = true });
	near_list("dense y", got.y, json_get(o, "dense_y"), EXACT);
	near("dense lse", (double)got.lse[0], json_number_in(o, "dense_lse"), EXACT);

	test_case = "lse_merge_large_logits";
	large = json_get(golden, test_case);
	merge(large, 1, NULL, &lse);
	near("lse", lse, json_number_in(large, "lse"), 1e-4);
	x.q_scale = json_number_in(large, "q_scale");
	got = run(&x, &(struct setting){ .dense = true });
	near_list("dense y", got.y, json_get(large, "dense_y"), EXACT);
	near("dense lse", (double)got.lse[0], json_number_in(large, "lse"), 1e-4);
}

static void check_tidal(void)
{
	const struct json *o = json_get(golden, "tidal_select");
	struct example x = tile8(NULL);
	struct outcome got = run(&x, &(struct setting){ .k = (uint32_t)json_number_in(o, "k"),
							.exact_scores = true });

	test_case = "tidal_select";
	same_list("i2", got.rows, got.n_rows, json_get(o, "i2"));
	for (size_t i = 0; i < 8; i++)
		near("qk", (double)got.a[0][i] * sqrt(8), json_number_at(json_get(o, "qk"), i),
		     EXACT * 5);
}

static void check_hier(void)
{
	const struct json *o = json_get(golden, "hier_int4_attention");
	struct example x = tile8("hier4");
	struct outcome got;

	if (!kv_kernels_find("hier4"))
		return;
	test_case = "hier_int4_attention";
	got = run(&x, &(struct setting){ .dense = true });
	near_list("target_y", got.y, json_get(o, "target_y"), HALF);
	near("target_lse", (double)got.lse[0], json_number_in(o, "target_lse"), HALF);
	got = run(&x, &(struct setting){ .dense = true, .level = 1 });
	near_list("draft_y", got.y, json_get(o, "draft_y"), HALF);
	near("draft_lse", (double)got.lse[0], json_number_in(o, "draft_lse"), HALF);

	test_case = "sparq_over_hier_int4";
	got = run(&x, SPARQ(3, 4, 2, ALL, SOFTMAX));
	single(&got, json_get(golden, "sparq_over_hier_int4/expected"), HALF);
}

static uint64_t total(const uint64_t planes[])
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < KV_PLANES; i++)
		sum += planes[i];
	return sum;
}

/* The formulas with q, o and the two sums of V counted in: 16 d bytes, or 4 d elements. */
static void check_bytes(void)
{
	const struct json *o = json_get(golden, "bytes_reference_point/bytes");
	const struct kv_kernels *f16 = kv_kernels_find("f16"), *hier = kv_kernels_find("hier4");
	const uint32_t d = 128, r = 16, k = 2048, s = 32768, tiles = 256;
	uint64_t planes[3][KV_PLANES] = { 0 };

	test_case = "bytes_reference_point";
	f16->bytes_k(d, s, tiles, 0, planes[0]);
	f16->bytes_v(d, s, tiles, 0, planes[0]);
	near("dense_fp16", (double)(total(planes[0]) + 2 * d * 2), json_number_in(o, "dense_fp16"),
	     0);
	f16->bytes_score(d, s, tiles, r, planes[1]);
	f16->bytes_k(d, k, tiles, 0, planes[1]);
	f16->bytes_v(d, k, tiles, 0, planes[1]);
	near("sparq_fp16_K_twice", (double)(total(planes[1]) + 4 * d * 2),
	     json_number_in(o, "sparq_fp16_K_twice"), 0);
	if (!hier)
		return;
	hier->bytes_score(d, s, tiles, r, planes[2]);
	hier->bytes_k(d, k, tiles, 0, planes[2]);
	hier->bytes_v(d, k, tiles, 0, planes[2]);
	near("sparq_score4_exact8", (double)(total(planes[2]) + 16 * d),
	     json_number_in(o, "sparq_score4_exact8"), 0);
}

int main(int argc, char **argv)
{
	golden = argc == 2 ? json_read(argv[1]) : NULL;
	if (!golden) {
		fprintf(stderr, "usage: test-golden FILE\n");
		return 2;
	}
	for (unsigned i = 0; kv_isa_at(i); i++) {
		if (!kv_isa_usable(kv_isa_at(i)) || kv_isa_limit(kv_isa_at(i)))
			continue;
		check_single();
		check_summaries();
		check_groups();
		check_sharded();
		check_degenerate();
		check_ties();
		check_mean();
		check_merge();
		check_tidal();
		check_hier();
		check_bytes();
		printf("%s: %u values, %u off", kv_isa_name(), checked, failed);
		if (by_device)
			printf(", %u steps by another device", by_device);
		putchar('\n');
	}
	json_free(golden);
	return failed > 0 || !checked;
}
