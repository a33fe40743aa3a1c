/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPU's kernels under the emulator against the CPU's executor on scalar rows:
 * the daemon hands the same step to either.
 *
 *   test-cuda [--shapes N] [--seed S]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/params.h"
#include "kernels/exec-private.h"
#include "kernels/table.h"
#include "shm/base.h"
#include "tests/gpu/emulate/world.h"

static unsigned failed, ties;

static double distance(const float *a, const float *b, uint32_t n, double *ret_norm)
{
	double error = 0, norm = 0;

	for (uint32_t i = 0; i < n; i++) {
		double d = (double)a[i] - (double)b[i];

		if (!isfinite(a[i]) && !isfinite(b[i]))
			continue;
		error += d * d;
		norm += (double)b[i] * (double)b[i];
	}
	*ret_norm = sqrt(norm);
	return sqrt(error);
}

/* As much as vectors of the CPU may round (exec-check.c). */
static double tolerance(const struct world *w)
{
	return w->x.draft ? 2e-3 : 4e-5;
}

static void check_alpha(struct world *w, const struct kv_result *g, const struct kv_result *c)
{
	double sum = fabs(g->alpha_sum - c->alpha_sum), heads = w->x.n_q * w->x.group;

	if (g->n_scored != c->n_scored && failed++ < 20)
		fprintf(stderr, "%s: %u rows scored, not %u\n", world_name(w), g->n_scored,
			c->n_scored);
	if (!(sum <= 3e-5 * heads) && failed++ < 20)
		fprintf(stderr, "%s: alpha %g in all, not %g\n", world_name(w), g->alpha_sum,
			c->alpha_sum);
	if (fabsf(g->alpha_min - c->alpha_min) > 3e-5f && failed++ < 20)
		fprintf(stderr, "%s: alpha %g at least, not %g\n", world_name(w),
			(double)g->alpha_min, (double)c->alpha_min);
}

/* ---- selections --------------------------------------------------------------------- */

static const struct state *cpu_state(const struct world *w, uint32_t head)
{
	const char *scratch = w->scratch;

	return (const struct state *)(const void *)(scratch + head * w->scratch_bytes);
}

/* What ranked the row there. */
static double cpu_rank(const struct state *s, uint32_t row)
{
	double rank = 0;

	for (uint32_t h = 0; h < s->heads; h++) {
		double a = (double)s->a[h * s->a_stride + row];

		if (row < exec_limit(s, h / s->group))
			rank += s->softmax ? exp(a - (double)s->score_lse[h]) : a;
	}
	return rank;
}

static void mark_gpu(const struct gpu_run *r, uint32_t at, uint32_t head, unsigned char *chosen)
{
	const struct kv_cuda_params *p = (const void *)r->params;
	const struct kv_cuda_item *x = (const void *)(r->params + p->items);
	const struct kv_cuda_unit *unit = (const void *)(r->params + p->units);
	const struct kv_cuda_space *s = (const void *)(r->params + p->spaces);
	struct kv_cuda_state state;
	const char *from;

	x += at;
	unit += x->units;
	state = kv_cuda_state_of(x, s[x->space].dim);
	from = r->scratch + x->state + head * x->state_bytes;
	for (unsigned of = 0; of < 2; of++) {
		uint32_t n = ((const uint32_t *)(const void *)(from + state.n))[of];
		const uint32_t *list = (const void *)(from + state.list[of]);

		for (uint32_t i = 0; i < n; i++)
			chosen[unit[list[i] / KV_CUDA_UNIT_ROWS].first_row +
			       list[i] % KV_CUDA_UNIT_ROWS] += 2;
	}
}

/* The same rows, but for those whose ranks differ by no more than sums in another order do. Rows
 * that stand for one another then make other values: whether the rest can be compared. */
static bool check_selection(struct world *w, const struct gpu_run *r, uint32_t at, uint32_t head)
{
	const struct state *s = cpu_state(w, head);
	unsigned char *chosen = calloc(w->x.rows + 1, 1);
	const struct run_list *rows = NULL;
	double worst_in = INFINITY, best_out = -INFINITY;
	unsigned differ = 0, in = 0;

	for (unsigned i = 0; i < w->plan.n_ops; i++)
		if (w->plan.op[i].kind == KV_OP_ATTEND)
			rows = &s->sel[w->plan.op[i].a];
	for (uint32_t i = 0; i < rows->n; i++)
		memset(chosen + rows->run[i].first, 1, rows->run[i].n);
	mark_gpu(r, at, head, chosen);
	for (uint32_t row = 0; row < w->x.rows; row++) {
		if (chosen[row] > 3 && failed++ < 20)
			fprintf(stderr, "%s: row %u is chosen twice\n", world_name(w), row);
		differ += chosen[row] == 1;
		in += chosen[row] == 2;
		if (s->keeps && chosen[row] == 2)
			worst_in = MIN(worst_in, cpu_rank(s, row));
		if (s->keeps && chosen[row] == 1)
			best_out = MAX(best_out, cpu_rank(s, row));
	}
	free(chosen);
	ties += differ > 0;
	for (uint32_t h = 0; h < s->heads; h++)
		if (s->score_lse[h] > 80) /* of an infinite score: beside it no other has a rank */
			return !differ && !in;
	if (in != differ && failed++ < 20)
		fprintf(stderr, "%s: KV head %u: %u rows too few, %u too many\n", world_name(w),
			head, differ, in);
	if (differ > 2 || (differ && !(best_out <= worst_in + fabs(worst_in) * 1e-5)))
		if (failed++ < 20)
			fprintf(stderr, "%s: KV head %u: %u rows are others (%.9g for %.9g)\n",
				world_name(w), head, differ, worst_in, best_out);
	return !differ;
}

/* ---- values --------------------------------------------------------------------------- */

static void check_values(struct world *w, uint32_t head)
{
	const struct kv_result *g = &w->gpu[head], *c = &w->cpu[head];
	uint32_t heads = w->x.n_q * w->x.group;

	for (uint32_t h = 0; h < heads; h++) {
		double norm,
			error = distance(g->y + h * w->x.dim, c->y + h * w->x.dim, w->x.dim, &norm);
		double lse = fabs((double)g->lse[h] - (double)c->lse[h]);

		if (!(error <= tolerance(w) * (norm + 1)) && failed++ < 20)
			fprintf(stderr, "%s: KV head %u head %u: y is off by %g of %g\n",
				world_name(w), head, h, error, norm);
		if (g->lse[h] != c->lse[h] &&
		    !(lse <= tolerance(w) * (1 + fabs((double)c->lse[h]))) && failed++ < 20)
			fprintf(stderr, "%s: KV head %u head %u: lse %g, not %g\n", world_name(w),
				head, h, (double)g->lse[h], (double)c->lse[h]);
	}
	if (g->n_selected != c->n_selected && failed++ < 20)
		fprintf(stderr, "%s: %u rows, not %u\n", world_name(w), g->n_selected,
			c->n_selected);
	check_alpha(w, g, c);
	if (w->x.n_q * w->x.group <= 16 && memcmp(g->bytes, c->bytes, sizeof(g->bytes)) &&
	    failed++ < 20)
		for (unsigned i = 0; i < KV_PLANES; i++)
			fprintf(stderr, "%s: plane %u: %llu bytes, not %llu\n", world_name(w), i,
				(unsigned long long)g->bytes[i], (unsigned long long)c->bytes[i]);
}

/* What else is in a batch leaves no trace: answers must not depend on who else asks. */
static void check_alone(struct world *w, const struct gpu_run *r, uint32_t at, uint64_t seed)
{
	const struct kv_cuda_params *p = (const void *)r->params;
	const struct kv_cuda_item *x = (const void *)(r->params + p->items);
	struct gpu_run alone;

	if (world_run(&w, 1, seed + 3, &alone) &&
	    memcmp(r->output + x[at].output, alone.output, alone.batch.output_bytes) &&
	    failed++ < 20)
		fprintf(stderr, "%s: other bits alone\n", world_name(w));
	gpu_run_free(&alone);
}

static void check(struct world *const *w, uint32_t n, uint64_t seed)
{
	struct gpu_run r, other;

	if (!world_run(w, n, seed, &r)) {
		failed++;
		fprintf(stderr, "%s\n", world_name(w[0]));
		gpu_run_free(&r);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		world_run_cpu(w[i]);
		for (uint32_t h = 0; h < WORLD_HEADS; h++)
			if (!w[i]->cpu[h].n_scored || check_selection(w[i], &r, i, h))
				check_values(w[i], h);
	}
	if (seed % 4 == 0) { /* in another order: the same bits */
		world_run(w, n, seed * 31 + 5, &other);
		if (memcmp(r.output, other.output, r.batch.output_bytes) && failed++ < 20)
			fprintf(stderr, "%s: other bits in another order\n", world_name(w[0]));
		gpu_run_free(&other);
	}
	if (n > 1 && seed % 2 == 0)
		check_alone(w[n - 1], &r, n - 1, seed);
	gpu_run_free(&r);
}

static uint32_t pick(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33) % n;
}

static void make_sparq(struct shape *x, uint64_t *s)
{
	static const char *const means[] = { "off", "all", "rest", "auto" };
	uint32_t k = 1 + pick(s, 200);

	x->draft = false;
	snprintf(x->sets, sizeof(x->sets),
		 "r=%u k=%u l=%u group_rule=%s mean=%s tail=%s dense_below=0",
		 1 + pick(s, pick(s, 8) ? 40 : x->dim), k, pick(s, 2) ? k / 4 : pick(s, k + 1),
		 pick(s, 3) ? "softmax" : "logits", means[pick(s, 4)],
		 pick(s, 2) ? "all" : "select");
}

/* Prompts, drafts of many tokens, and many heads that share one. */
static void make_many(struct shape *x, uint64_t *s)
{
	static const uint32_t groups[] = { 1, 5, 8, 24, 71, 128 };

	x->rows = pick(s, 900);
	x->group = groups[pick(s, ARRAY_SIZE(groups))];
	x->n_q = 1 + pick(s, x->group > 8 ? 4 : 40);
}

static struct shape random_shape(uint64_t *s)
{
	static const char *const formats[] = { "f32", "f16", "bf16", "int8", "int4", "hier4" };
	static const uint32_t dims[] = { 64, 80, 96, 112, 128, 192, 256 };
	static const uint32_t groups[] = { 1, 2, 3, 4, 5, 6, 7, 8, 16 };
	static const char *const windows[] = { "sinks=4 recent=200 ", "recent=37 ", "" };
	struct shape x = { .dim = dims[pick(s, ARRAY_SIZE(dims))],
			   .rows = pick(s, pick(s, 4) ? 700 : 2600),
			   .group = groups[pick(s, ARRAY_SIZE(groups))],
			   .n_q = pick(s, 3) ? 1 : 1 + pick(s, 4),
			   .sinks = pick(s, 2) ? 16 : pick(s, 17),
			   .rollback = pick(s, 2) * 128,
			   .dtype = (enum kv_dtype)pick(s, 3),
			   .k_format = formats[pick(s, ARRAY_SIZE(formats))],
			   .v_format = formats[pick(s, ARRAY_SIZE(formats))],
			   .policy = "dense",
			   .cut = pick(s, 3) == 0,
			   .ordered = pick(s, 3) == 0,
			   .parted = pick(s, 4) == 0,
			   .corrected = pick(s, 4) == 0,
			   .full = pick(s, 8) == 0,
			   .draft = pick(s, 4) == 0,
			   .special = pick(s, 6) ? 0 : 1 + pick(s, 3),
			   .random = pick(s, 1u << 30) };

	if (pick(s, 2))
		x.v_format = x.k_format;
	if (x.special && strncmp(x.k_format, "f", 1) && strcmp(x.k_format, "bf16"))
		x.special = 1; /* an infinity makes its group's other numbers meaningless */
	if (x.ordered)
		x.outliers = pick(s, 9);
	if (pick(s, 10) == 0) { /* so many that most groups are passed over */
		x.rows = 3000 + pick(s, 6000);
		x.group = 1 + pick(s, 4);
		x.n_q = 1;
	}
	if (pick(s, 12) == 0) /* more heads than a block of scores has coefficients of */
		make_many(&x, s);
	if (pick(s, 4) == 0) {
		x.policy = "window";
		strcpy(x.sets, windows[pick(s, ARRAY_SIZE(windows))]);
	} else if (pick(s, 3)) {
		x.policy = "sparq";
		make_sparq(&x, s);
	}
	if (pick(s, 10) == 0) {
		x.exact = 1 + pick(s, 200);
		x.draft = false;
	}
	return x;
}

static struct world *random_world(uint64_t *s, bool vectors)
{
	struct world *w = NULL;

	while (!w) {
		struct shape x = random_shape(s);

		/* hier4 is scored in integers: what the CPU's vectors do as well. */
		if (vectors != !strcmp(x.k_format, "hier4"))
			continue;
		w = world_new(&x);
		x.draft = false; /* not every format has levels */
		w = w ? w : world_new(&x);
	}
	return w;
}

/* One item, or several of other caches and lengths. How many. */
static uint32_t check_batch(uint64_t *s, unsigned long seed)
{
	struct world *w[5];
	uint32_t n = pick(s, 3) ? 1 : 2 + pick(s, 4);
	bool vectors = pick(s, 3) == 0;

	kv_isa_limit(vectors ? NULL : "scalar");
	for (uint32_t i = 0; i < n; i++)
		w[i] = random_world(s, vectors);
	check(w, n, seed);
	for (uint32_t i = 0; i < n; i++)
		world_free(w[i]);
	return n;
}

int main(int argc, char **argv)
{
	unsigned long shapes = 40, done = 0, seed = 1;
	uint64_t s;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--shapes"))
			shapes = strtoul(argv[i + 1], NULL, 0);
		if (!strcmp(argv[i], "--seed"))
			seed = strtoul(argv[i + 1], NULL, 0);
	}
	s = seed;
	while (done < shapes && failed < 20)
		done += check_batch(&s, done);
	printf("%lu shapes, %u off, %u selections with ties of rounding (seed %lu)\n", done, failed,
	       ties, seed);
	return failed > 0;
}
