/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every property that somebody above relies on:
 *
 * - the daemon: results do not depend on who runs which share, bit for bit
 * - users: y and lse are those of the rows said to be selected; alpha too
 * - policies: forced rows are in, k is exact, the best are chosen
 * - reports: bytes are the formulas of sparq-formats(7)
 */
#include "tests/kernels/exec-check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "shm/base.h"
#include "tests/kernels/crew.h"
#include "tests/kernels/exec-bytes.h"
#include "tests/kernels/exec-reference.h"

#define KV_HEADS 2u
#define GUARD 64u /* bytes on both sides of the scratch */
#define GUARD_BYTE 0x5a
#define ALPHA_REL 2e-5
/* Where a kernel may round coefficients (score_max_rel in table.h): a few times what is seen. */
#define ROUNDED_REL 2e-2
/* Of y where it may round weights (v_max_rel): 2^-16 of the largest, a part of their sum. */
#define ROUNDED_Y 4e-5
#define ROUNDED_DRAFT 2e-3 /* score_max_rel: of y and lse */

struct run_of {
	const struct shape *x;
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	struct rig rig;
	struct kv_channels channels[KV_HEADS];
	const struct kv_channels *table[KV_HEADS];
	struct bytes_apart apart; /* of the KV head being checked */
	struct kv_query query;
	struct kv_plan plan;
	float *sent, *q;           /* f32, as rounded to dtype */
	char *memory[2], *scratch; /* in the first, between guards */
	uint64_t scratch_bytes;
	struct kv_result result[KV_HEADS];
	unsigned failed;
};

PRINTF_LIKE(2, 3) static void complain(struct run_of *t, const char *format, ...)
{
	const struct shape *x = t->x;
	va_list args;

	if (t->failed++ > 4)
		return;
	fprintf(stderr,
		"%s K %s V %s dtype %u d %u S %u g %u n_q %u sinks %u rollback %u "
		"%s%s%s%s%soutliers %u %s %s: ",
		kv_isa_name(), x->k_format, x->v_format, (unsigned)x->dtype, x->dim, x->rows,
		x->group, x->n_q, x->sinks, x->rollback, x->cut ? "cut " : "",
		x->settled ? "settled " : "", x->full ? "full " : "", x->draft ? "draft " : "",
		x->ordered ? "ordered " : "", x->outliers, x->policy, x->sets);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* ---- input ----------------------------------------------------------------- */

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

/* Heavy tails, as queries and keys have: what SparQ lives on. */
static float heavy(uint64_t *state)
{
	float x = uniform(state);

	return x * x * x * 4 + uniform(state) * 0.3f;
}

static void round_to(enum kv_dtype t, float *x, size_t n)
{
	char *packed = malloc(n * sizeof(*x) + 1);

	kv_from_f32(t, x, packed, n);
	kv_to_f32(t, packed, x, n);
	free(packed);
}

static void make_input(struct run_of *t)
{
	const struct shape *x = t->x;
	size_t width = (size_t)2 * KV_HEADS * x->dim, n = x->rows * width;
	size_t n_q = (size_t)x->n_q * KV_HEADS * x->group * x->dim;
	uint64_t random = x->random;

	t->sent = malloc((n + 1) * sizeof(*t->sent));
	t->q = malloc(n_q * sizeof(*t->q));
	for (size_t i = 0; i < n; i++)
		t->sent[i] = i % width < width / 2 ? uniform(&random) : uniform(&random) + 0.5f;
	for (size_t i = 0; i < n_q; i++)
		t->q[i] = heavy(&random);
	if (x->random % 16 == 0)
		memset(t->q, 0, x->dim * sizeof(*t->q)); /* a zero query */
	round_to(x->dtype, t->sent, n);
}

static void append(struct run_of *t, uint32_t first, uint32_t n, bool flush)
{
	size_t width = (size_t)2 * KV_HEADS * t->x->dim;
	char *packed = malloc(n * width * sizeof(float) + 1);

	kv_from_f32(t->x->dtype, t->sent + first * width, packed, n * width);
	if (flush)
		rig_append(&t->rig, packed, n, 96);
	else
		rig_write(&t->rig, packed, n);
	free(packed);
}

static bool make_space(struct run_of *t)
{
	const struct shape *x = t->x;
	const struct kv_policy *policy = kv_policy_find(x->policy);
	struct kv_space_params p = { .heads = KV_HEADS * x->group,
				     .kv_heads = KV_HEADS,
				     .k_dim = x->dim,
				     .v_dim = x->dim,
				     .dtype = x->dtype,
				     .k_format = x->k_format,
				     .v_format = x->v_format,
				     .policy = policy,
				     .args = t->args,
				     .sinks = x->sinks,
				     .outliers = x->outliers };
	char why[KV_ERROR_TEXT], sets[sizeof(x->sets)], *save = NULL;

	kv_policy_defaults(policy, t->args);
	strcpy(sets, x->sets);
	for (char *w = strtok_r(sets, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		*strchr(w, '=') = '\0';
		if (kv_policy_set(policy, t->args, w, w + strlen(w) + 1, why))
			complain(t, "%s", why);
	}
	if (kv_space_init(&t->space, &p, why))
		complain(t, "%s", why);
	return !t->failed;
}

static void shuffle(uint8_t *channel, uint32_t n, uint64_t *random)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)((double)(uniform(random) + 1) / 2 * i + 0.5);

		channel[i] = channel[j];
		channel[j] = (uint8_t)i;
	}
}

/* The last KV head has no table when the seed says so. */
static void make_tables(struct run_of *t)
{
	uint64_t random = t->x->random ^ 0x7ab1e;
	char why[KV_ERROR_TEXT];

	for (uint32_t h = 0; h < KV_HEADS && t->x->ordered; h++) {
		struct kv_channels *c = &t->channels[h];

		shuffle(c->k, t->x->dim, &random);
		shuffle(c->v, t->x->dim, &random);
		c->n_outliers = t->x->outliers > h ? t->x->outliers - h : 0;
		if (kv_channels_check(&t->space, c, why))
			complain(t, "%s", why);
		t->table[h] = h == 0 || t->x->random % 4 ? c : NULL;
	}
	t->rig.view.channels = t->x->ordered ? t->table : NULL;
}

/* Rows appended in entries; some are cut off and written again; the last ones are the step's. */
static bool make_rows(struct run_of *t)
{
	const struct shape *x = t->x;
	uint32_t own = x->n_q <= x->rows ? x->n_q : 0, before = x->rows - own;

	if (rig_init(&t->rig, &t->space, x->rows + 4096, x->rollback))
		return false;
	make_tables(t);
	append(t, 0, before, true);
	if (x->cut && before > 200) {
		uint32_t keep = x->sinks + (uint32_t)(x->random % (before - x->sinks));

		rig_cut(&t->rig, keep);
		append(t, keep, before - keep, true);
	}
	append(t, before, own, false);
	if (x->settled)
		rig_flush(&t->rig);
	t->query = (struct kv_query){
		.q = t->q, .n_q = x->n_q, .full = x->full, .first_limit = own ? before + 1 : 0
	};
	return true;
}

static double score_rel(const struct run_of *t, double rel)
{
	return t->space.k->levels > 1 ? ROUNDED_REL : rel;
}

/* ---- selection ------------------------------------------------------------- */

static const struct state *state_at(const struct run_of *t, const char *scratch, uint32_t head)
{
	return (const struct state *)(const void *)(scratch + head * t->scratch_bytes);
}

static const struct run_list *selected(const struct run_of *t, uint32_t head)
{
	unsigned i = 0;

	while (t->plan.op[i].kind != KV_OP_ATTEND)
		i++;
	return &state_at(t, t->scratch, head)->sel[t->plan.op[i].a];
}

static void mark_selected(struct run_of *t, uint32_t head, bool *chosen)
{
	const struct run_list *rows = selected(t, head);
	uint32_t end = 0, total = 0;

	memset(chosen, 0, t->x->rows + 1);
	for (uint32_t i = 0; i < rows->n; i++) {
		const struct run *x = &rows->run[i];

		if (x->n == 0 || (i && x->first <= end) || x->first + x->n > t->x->rows)
			complain(t, "run %u: rows %u+%u", i, x->first, x->n);
		memset(chosen + x->first, 1, x->n);
		end = x->first + x->n;
		total += x->n;
	}
	if (total != rows->rows || t->result[head].n_selected != total)
		complain(t, "%u rows selected, %u said", total, t->result[head].n_selected);
}

/* ---- scores ---------------------------------------------------------------- */

struct scores {                 /* of all heads of a KV head */
	double *a, *lse, *rank; /* [heads][rows], [heads], [rows] */
};

static const struct kv_op *find_op(const struct kv_plan *p, enum kv_op_kind kind)
{
	for (unsigned i = 0; i < p->n_ops; i++)
		if (p->op[i].kind == kind)
			return &p->op[i];
	return NULL;
}

static uint32_t limit_of(const struct run_of *t, uint32_t query)
{
	return t->x->full ? t->x->rows : MIN(t->query.first_limit + query, t->x->rows);
}

/* Head h of a KV head: query h / group. */
static void ref_query_of(const struct run_of *t, uint32_t head, uint32_t h, double *q,
			 struct ref_query *ret)
{
	uint32_t g = t->x->group, dim = t->x->dim, query = h / g;
	const float *from = t->q + ((size_t)query * KV_HEADS * g + head * g + h % g) * dim;

	for (uint32_t c = 0; c < dim; c++)
		q[c] = (double)from[c];
	*ret = (struct ref_query){ q, 1 / sqrt((double)dim), limit_of(t, query) };
}

static bool is_apart(const struct run_of *t, uint32_t head, uint32_t channel)
{
	for (uint32_t i = 0; i < t->apart.all; i++)
		if (t->table[head]->k[i] == channel)
			return true;
	return false;
}

static void make_scores(struct run_of *t, uint32_t head, const struct ref_rows *rows,
			struct scores *s)
{
	uint32_t heads = t->x->n_q * t->x->group, n = t->x->rows, channel[KV_MAX_DIM];
	uint32_t r = MIN(find_op(&t->plan, KV_OP_SCORE_DIMS)->n[0], t->x->dim);
	bool logits = find_op(&t->plan, KV_OP_TOPK)->n[2] == KV_GROUP_LOGITS;
	double sums[KV_MAX_DIM] = { 0 }, q[KV_MAX_DIM];
	struct ref_query x;

	for (uint32_t h = 0; h < heads; h++) {
		ref_query_of(t, head, h, q, &x);
		for (uint32_t c = 0; c < t->x->dim; c++)
			sums[c] += fabs(q[c]);
	}
	ref_channels(sums, t->x->dim, r, channel);
	for (uint32_t j = 0; j < r; j++)
		t->apart.scored += is_apart(t, head, channel[j]);
	memset(s->rank, 0, n * sizeof(*s->rank));
	for (uint32_t h = 0; h < heads; h++) {
		double *a = s->a + (size_t)h * n;

		ref_query_of(t, head, h, q, &x);
		s->lse[h] = ref_scores(rows, &x, channel, r, a);
		for (uint32_t i = 0; i < x.limit; i++)
			s->rank[i] += heads == 1 || logits ? a[i] : exp(a[i] - s->lse[h]);
	}
}

/* Forced rows in, exactly k of the candidates, none left out that is clearly better. */
static void check_choice(struct run_of *t, const struct scores *s, const bool *chosen)
{
	const struct kv_op *topk = find_op(&t->plan, KV_OP_TOPK);
	const struct kv_view *v = &t->rig.view;
	uint32_t n = t->x->rows, first = topk->n[3] ? v->n_sinks : 0;
	uint32_t end = topk->n[3] ? n - v->tail_rows : n, k = MIN(topk->n[0], end - first);
	uint32_t forced = MIN(topk->n[1], k), count = 0, extra = 0;
	double worst_in = INFINITY, best_out = -INFINITY, room;

	for (uint32_t i = 0; i < n; i++) {
		bool candidate = i >= first && i < end;
		bool must = i < v->n_sinks || (topk->n[3] && i >= end) ||
			    (i >= end - forced && i < end);

		if (must && !chosen[i])
			complain(t, "row %u is missing", i);
		count += candidate && chosen[i];
		extra += candidate && chosen[i] && i < v->n_sinks;
		if (candidate && i < end - forced && chosen[i] && i >= v->n_sinks)
			worst_in = MIN(worst_in, s->rank[i]);
		if (candidate && i < end - forced && !chosen[i])
			best_out = MAX(best_out, s->rank[i]);
	}
	if (count < k || count > k + extra)
		complain(t, "%u rows for k = %u", count, k);
	room = fabs(best_out) * score_rel(t, 1e-4) + 1e-9;
	if (topk->n[2] == KV_GROUP_LOGITS || t->x->group * t->x->n_q == 1)
		room = score_rel(t, 1e-4) * (1 + fabs(best_out));
	if (count < end - first && best_out > worst_in + room)
		complain(t, "%g was left out for %g", best_out, worst_in);
}

/* ---- values ---------------------------------------------------------------- */

static double value_rel(const struct run_of *t)
{
	if (t->space.v->plain && t->space.k->plain)
		return 1e-5;
	if (strcmp(kv_isa_name(), "avx512"))
		return 1e-5;
	return t->x->draft && t->space.k->levels > 1 ? ROUNDED_DRAFT : ROUNDED_Y;
}

static void check_y(struct run_of *t, uint32_t h, const float *got, const double *want)
{
	double error = 0, norm = 0;

	for (uint32_t c = 0; c < t->x->dim; c++) {
		error += ((double)got[c] - want[c]) * ((double)got[c] - want[c]);
		norm += want[c] * want[c];
	}
	if (!(sqrt(error) <= value_rel(t) * (sqrt(norm) + 1)))
		complain(t, "head %u: y is off by %g of %g", h, sqrt(error), sqrt(norm));
}

static double alpha_of(const struct scores *s, uint32_t h, uint32_t n, uint32_t limit,
		       const bool *chosen)
{
	double alpha = 0;

	for (uint32_t i = 0; i < limit; i++)
		alpha += chosen[i] ? exp(s->a[(size_t)h * n + i] - s->lse[h]) : 0;
	return alpha;
}

static void check_head(struct run_of *t, uint32_t head, uint32_t h, const struct ref_rows *rows,
		       const struct scores *s, const bool *chosen)
{
	const struct kv_op *mean = find_op(&t->plan, KV_OP_MEAN_REST);
	double q[KV_MAX_DIM], y[KV_MAX_DIM], m[KV_MAX_DIM], lse, alpha = 1;
	const struct kv_result *r = &t->result[head];
	double said = (double)state_at(t, t->scratch, head)->alpha[h];
	struct ref_query x;

	ref_query_of(t, head, h, q, &x);
	lse = ref_attend(rows, &x, chosen, y);
	if (s)
		alpha = alpha_of(s, h, t->x->rows, x.limit, chosen);
	if (x.limit && fabs(said - alpha) > score_rel(t, ALPHA_REL) * alpha + 1e-6)
		complain(t, "head %u: alpha %g, not %g", h, said, alpha);
	if (mean && mean->n[0] != KV_MEAN_OFF &&
	    ref_mean(rows, x.limit, chosen, mean->n[0] == KV_MEAN_REST, m))
		for (uint32_t c = 0; c < t->x->dim; c++)
			y[c] = said * y[c] + (1 - said) * m[c];
	check_y(t, h, r->y + (size_t)h * t->x->dim, y);
	if (!(r->lse[h] == (float)lse ||
	      fabs((double)r->lse[h] - lse) <= value_rel(t) * (1 + fabs(lse))))
		complain(t, "head %u: lse %g, not %g", h, (double)r->lse[h], lse);
}

static void check_bytes(struct run_of *t, uint32_t head, const bool *chosen)
{
	static const char *const plane[KV_PLANES] = { "score",      "K",      "V upper", "V lower",
						      "parameters", "recent", "state",   "other" };
	uint64_t want[KV_PLANES] = { 0 };

	bytes_expected(&t->rig, &t->plan, &t->query, t->apart, chosen, want);
	for (unsigned i = 0; i < KV_PLANES; i++)
		if (t->result[head].bytes[i] != want[i])
			complain(t, "%s: %llu bytes, not %llu", plane[i],
				 (unsigned long long)t->result[head].bytes[i],
				 (unsigned long long)want[i]);
}

static void check_kv_head(struct run_of *t, uint32_t head)
{
	uint32_t heads = t->x->n_q * t->x->group, n = t->x->rows;
	bool scored = find_op(&t->plan, KV_OP_SCORE_DIMS), *chosen = malloc(n + 1);
	struct scores s = { malloc(((size_t)heads * n + 1) * sizeof(double)),
			    malloc(heads * sizeof(double)), malloc((n + 1) * sizeof(double)) };
	struct ref_rows rows;

	t->apart = (struct bytes_apart){ 0 };
	if (t->table[head] && t->rig.view.channels && !t->space.k->plain)
		t->apart.all = t->table[head]->n_outliers;
	ref_decode(&t->rig, head, t->query.level, limit_of(t, 0), t->sent, &rows);
	mark_selected(t, head, chosen);
	if (scored && n) {
		make_scores(t, head, &rows, &s);
		check_choice(t, &s, chosen);
	}
	for (uint32_t h = 0; h < heads; h++)
		check_head(t, head, h, &rows, scored && n ? &s : NULL, chosen);
	check_bytes(t, head, chosen);
	ref_free(&rows);
	free(chosen);
	free(s.a);
	free(s.lse);
	free(s.rank);
}

/* ---- the whole ------------------------------------------------------------- */

/* Bit for bit: who ran which share when, and what lay in the scratch, leave no trace. */
static void check_crew(struct run_of *t, unsigned workers, char *scratch)
{
	size_t heads = (size_t)t->x->n_q * t->x->group;
	struct kv_result result[KV_HEADS];

	memset(scratch, 0xff, KV_HEADS * t->scratch_bytes);
	crew_attend(&t->rig, &t->plan, &t->query, scratch, workers, t->x->random + workers, result);
	for (uint32_t h = 0; h < KV_HEADS; h++) {
		const char *what = crew_differs(&t->result[h], &result[h], heads, t->x->dim);

		if (what)
			complain(t, "%u workers: %s of another", workers, what);
	}
}

static bool make_plan(struct run_of *t)
{
	int r;

	t->query.level = t->x->draft;
	r = kv_plan_step(&t->space, &t->rig.view, &t->query, 0, 1, false, &t->plan);
	if (r && t->x->draft && (t->space.k->levels < 2 || t->space.v->levels < 2)) {
		t->query.level = 0;
		r = kv_plan_step(&t->space, &t->rig.view, &t->query, 0, 1, false, &t->plan);
	}
	if (r)
		complain(t, "kv_plan_step: %s", strerror(-r));
	return !r;
}

static char *scratch_new(const struct run_of *t)
{
	size_t bytes = KV_HEADS * t->scratch_bytes;
	char *p = aligned_alloc(64, bytes + 2 * GUARD);

	memset(p, GUARD_BYTE, bytes + 2 * GUARD);
	return p;
}

static void check_guards(struct run_of *t, const char *p)
{
	const char *end = p + GUARD + KV_HEADS * t->scratch_bytes;

	for (unsigned i = 0; i < GUARD; i++)
		if (p[i] != GUARD_BYTE || end[i] != GUARD_BYTE)
			complain(t, "bytes outside the scratch changed");
}

static void run(struct run_of *t)
{
	t->scratch_bytes = kv_exec_scratch_bytes(&t->space, &t->plan, &t->rig.view, &t->query);
	if (t->scratch_bytes % 64)
		complain(t, "scratch of %llu bytes", (unsigned long long)t->scratch_bytes);
	t->memory[0] = scratch_new(t);
	t->memory[1] = scratch_new(t);
	t->scratch = t->memory[0] + GUARD;
	memset(t->scratch, 0x00, KV_HEADS * t->scratch_bytes);
	rig_attend(&t->rig, &t->plan, &t->query, t->scratch, t->x->random % 2, t->result);
	for (unsigned workers = 1; workers <= 4; workers *= 2)
		check_crew(t, workers, t->memory[1] + GUARD);
	for (uint32_t h = 0; h < KV_HEADS; h++)
		check_kv_head(t, h);
	check_guards(t, t->memory[0]);
	check_guards(t, t->memory[1]);
}

bool exec_check(const struct shape *x)
{
	struct run_of t = { .x = x };

	if (make_space(&t)) {
		make_input(&t);
		if (make_rows(&t) && make_plan(&t))
			run(&t);
		rig_deinit(&t.rig);
	}
	free(t.sent);
	free(t.q);
	free(t.memory[0]);
	free(t.memory[1]);
	return !t.failed;
}
