/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a plan for one KV head of one item.
 *
 * A plan has one expensive stage, which is cut into shares: its scoring, or
 * without one its attention. finish() then walks the operations in order.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "kernels/channels.h"
#include "kernels/exec-private.h"
#include "kernels/plan-private.h"
#include "shm/base.h"

/* ---- the plan of a step ---------------------------------------------------- */

static struct kv_step step_of(const struct kv_space *s, const struct kv_view *view,
			      const struct kv_query *query)
{
	uint64_t limit = (uint64_t)query->first_limit + query->n_q - 1;
	uint32_t rows = query->full || limit > view->rows ? view->rows : (uint32_t)limit;
	uint32_t sealed = view->rows - view->tail_rows - view->n_sinks;
	struct kv_step step = {
		.prefill = query->n_q > KV_MAX_DECODE_Q,
		.full = query->full,
		.rows = rows,
		.n_q = query->n_q,
		.group = s->group,
		.k_dim = s->k_dim,
		.v_dim = s->v_dim,
	};

	step.sinks = MIN(view->n_sinks, rows);
	step.sealed = MIN(sealed, rows - step.sinks);
	step.tail = rows - step.sinks - step.sealed;
	return step;
}

/* What this executor can run: at most one scoring and one ranking, exactly one attention, no policy
 * state. */
static int check_runs(const struct kv_plan *p)
{
	unsigned scores = 0, ranks = 0, attends = 0;

	for (unsigned i = 0; i < p->n_ops; i++)
		switch (p->op[i].kind) {
		case KV_OP_SCORE:
		case KV_OP_SCORE_DIMS:
			scores++;
			break;
		case KV_OP_TOPK:
			ranks++;
			break;
		case KV_OP_ATTEND:
			attends++;
			break;
		case KV_OP_ALL:
		case KV_OP_RANGE:
		case KV_OP_WINDOW:
		case KV_OP_UNION:
		case KV_OP_MEAN_REST:
		case KV_OP_OUTPUT:
			break;
		default:
			return -EOPNOTSUPP;
		}
	return scores <= 1 && ranks <= 1 && attends == 1 ? 0 : -EOPNOTSUPP;
}

int kv_plan_step(const struct kv_space *s, const struct kv_view *view, const struct kv_query *query,
		 uint32_t layer, uint32_t layers, bool dense, struct kv_plan *ret)
{
	struct kv_step step = step_of(s, view, query);
	struct kv_plan plan;
	char why[KV_ERROR_TEXT];
	int r;

	if (query->level && (s->k->levels <= query->level || s->v->levels <= query->level))
		return -EOPNOTSUPP;
	step.layer = layer;
	step.layers = layers;
	kv_plan_init(&plan);
	if (dense || query->level) /* a draft reads the upper planes of every row */
		kv_plan_output(&plan, kv_plan_attend(&plan, kv_plan_all(&plan)));
	else
		s->policy->plan(&plan, &step, s->args);
	r = kv_plan_check(&plan, why, sizeof(why));
	r = r ? r : check_runs(&plan);
	if (!r)
		*ret = plan;
	return r;
}

/* ---- state ----------------------------------------------------------------- */

/* The most rows that a selection made without scores has: shares are counted before there is
 * memory to list them in. */
static uint64_t most_rows(const struct state *s, const struct kv_plan *p, unsigned op)
{
	const struct kv_op *x = &p->op[op];
	uint64_t rows = s->visible;

	if (x->kind == KV_OP_RANGE)
		rows = x->n[1];
	if (x->kind == KV_OP_WINDOW)
		rows = (uint64_t)x->n[0] + x->n[1];
	if (x->kind == KV_OP_UNION)
		rows = most_rows(s, p, x->a) + most_rows(s, p, x->b);
	return MIN(rows, s->visible);
}

static uint64_t attended_rows(const struct state *s, const struct kv_plan *p)
{
	for (unsigned i = 0; i < p->n_ops; i++)
		if (p->op[i].kind == KV_OP_ATTEND)
			return most_rows(s, p, p->op[i].a);
	return 0;
}

static enum kv_exec_mode mode_of(const struct kv_plan *p)
{
	for (unsigned i = 0; i < p->n_ops; i++)
		if (p->op[i].kind == KV_OP_SCORE || p->op[i].kind == KV_OP_SCORE_DIMS)
			return KV_EXEC_SCORE;
	return KV_EXEC_ATTEND;
}

static void describe_topk(struct state *s, const struct kv_op *op)
{
	struct ranked x = exec_select_ranked(s, op);

	s->rank_first = x.first;
	s->rank_end = x.end;
	s->rank_k = x.k;
	s->low_end = x.first;
	s->high_first = x.end;
	s->softmax = s->heads > 1 && op->n[2] == KV_GROUP_SOFTMAX;
	s->keeps = x.k == x.end - x.first || (uint64_t)s->heads * s->visible <= KEEP_SCORES;
	s->whole = s->softmax && s->heads <= KV_RANK_HEADS && s->map.space->k->k_score_rank;
}

/* Rows that are chosen whatever their rank: alpha asks for their scores, wherever they lie. */
static void describe_unranked(struct state *s, const struct kv_op *op)
{
	struct edges x;

	if (op->kind == KV_OP_ALL || op->kind == KV_OP_RANGE)
		s->keeps = true;
	if (op->kind != KV_OP_WINDOW)
		return;
	x = exec_select_edges(s, op);
	s->low_end = MAX(s->low_end, x.first);
	s->high_first = MIN(s->high_first, s->visible - x.recent);
}

static void describe(struct state *s, const struct kv_plan *p)
{
	s->mode = mode_of(p);
	s->keeps = true;
	for (unsigned i = 0; i < p->n_ops; i++) {
		if (p->op[i].kind == KV_OP_SCORE_DIMS)
			s->r = MIN(p->op[i].n[0], s->map.space->k_dim);
		if (p->op[i].kind == KV_OP_MEAN_REST && p->op[i].n[0] != KV_MEAN_OFF)
			s->mean = true;
		if (p->op[i].kind == KV_OP_TOPK)
			describe_topk(s, &p->op[i]);
	}
	for (unsigned i = 0; i < p->n_ops; i++)
		describe_unranked(s, &p->op[i]);
	s->sums = s->mean ? s->n_q : 0;
	s->whole &= !s->keeps && s->r;
	s->many = s->heads > FEW_HEADS && !s->sums && !s->query->level;
}

static void cut_blocks(struct state *s)
{
	uint32_t sinks = MIN(s->map.view->n_sinks, s->visible);

	s->body_end = MAX(MIN(s->map.view->rows - s->map.view->tail_rows, s->visible), sinks);
	s->head_blocks = sinks > 0;
	s->body_blocks = (uint32_t)DIV_UP(s->body_end - sinks, SCORE_BLOCK);
	s->blocks = s->head_blocks + s->body_blocks +
		    (uint32_t)DIV_UP(s->visible - s->body_end, SCORE_BLOCK);
}

static void count_shares(struct state *s, const struct kv_plan *p)
{
	if (s->mode == KV_EXEC_ATTEND) {
		exec_attend_cut(s, attended_rows(s, p));
		return;
	}
	cut_blocks(s);
	s->shares = MAX(DIV_UP(s->body_blocks, SHARE_BLOCKS), 1u);
	s->ranges = 1;
}

static void state_init(struct state *s, const struct kv_space *space, const struct kv_plan *plan,
		       const struct kv_view *view, const struct kv_query *query, uint32_t head)
{
	assert(query->n_q);
	memset(s, 0, sizeof(*s));
	s->query = query;
	s->n_q = query->n_q;
	s->group = space->group;
	s->heads = query->n_q * space->group;
	kv_map_init(&s->map, space, view, head);
	s->visible = exec_limit(s, query->n_q - 1);
	describe(s, plan);
	count_shares(s, plan);
}

uint64_t kv_exec_scratch_bytes(const struct kv_space *s, const struct kv_plan *plan,
			       const struct kv_view *view, const struct kv_query *query)
{
	struct state state;

	state_init(&state, s, plan, view, query, 0);
	return exec_lay_out(&state, plan, NULL);
}

/* A head's query, from the caller's layout, times scale. */
void exec_scale_head(const struct state *s, uint32_t head, float *ret_q)
{
	const struct kv_space *space = s->map.space;
	size_t dim = space->k_dim, query = head / s->group;
	size_t of_query = s->map.head * s->group + head % s->group;

	kv_channels_scale(s->map.channels, space->k_dim, space->scale,
			  s->query->q + (query * space->heads + of_query) * dim, ret_q);
}

/* ---- running --------------------------------------------------------------- */

void kv_exec_init(struct kv_exec *e, const struct kv_space *s, const struct kv_plan *plan,
		  const struct kv_view *view, const struct kv_query *query, uint32_t head,
		  void *scratch)
{
	struct state *state = scratch;

	state_init(state, s, plan, view, query, head);
	exec_lay_out(state, plan, scratch);
	*e = (struct kv_exec){ .space = s,
			       .plan = plan,
			       .view = view,
			       .query = query,
			       .head = head,
			       .shares = state->shares,
			       .scratch = scratch };
	for (uint32_t h = 0; h < state->heads && state->q; h++)
		exec_scale_head(state, h, state->q + (size_t)h * s->k_dim);
	if (state->mode == KV_EXEC_SCORE)
		exec_score_prepare(state);
	for (unsigned i = 0; i < plan->n_ops && state->mode == KV_EXEC_ATTEND; i++)
		exec_select(state, plan, i);
}

const struct run_list *exec_attended(const struct kv_exec *e)
{
	const struct state *s = e->scratch;
	unsigned i = 0;

	while (e->plan->op[i].kind != KV_OP_ATTEND)
		i++;
	return &s->sel[e->plan->op[i].a];
}

void kv_exec_share(struct kv_exec *e, uint32_t share)
{
	struct state *s = e->scratch;

	assert(share < s->shares);
	if (s->mode == KV_EXEC_SCORE)
		exec_score_share(s, share);
	else
		exec_attend_share(s, exec_attended(e), share);
}

static void attend_selected(struct state *s, const struct run_list *rows)
{
	const struct attend what = {
		.rows = rows, .n = rows->rows, .n_q = s->n_q, .sums = s->sums
	};

	exec_score_alpha(s, rows);
	if (s->many)
		exec_attend_many(s, &what, &s->part[0]);
	else
		exec_attend(s, &what, &s->part[0], &s->work[0]);
}

/* The operations after the scoring, in their order. */
static void walk(struct state *s, const struct kv_plan *p)
{
	const struct run_list *rows = NULL;

	for (unsigned i = 0; i < p->n_ops; i++)
		switch (p->op[i].kind) {
		case KV_OP_SCORE:
		case KV_OP_SCORE_DIMS:
			exec_score_reduce(s);
			break;
		case KV_OP_ATTEND:
			rows = &s->sel[p->op[i].a];
			attend_selected(s, rows);
			break;
		case KV_OP_MEAN_REST:
			exec_mean(s, rows, (enum kv_mean)p->op[i].n[0]);
			break;
		default:
			exec_select(s, p, i);
		}
}

static void report(struct kv_exec *e, struct state *s)
{
	struct kv_result *r = &e->result;
	uint32_t dim = s->map.space->v_dim;

	r->y = s->part[0].y;
	r->lse = s->part[0].lse;
	r->n_selected = exec_attended(e)->rows;
	r->n_scored = s->mode == KV_EXEC_SCORE ? s->visible : 0;
	r->alpha_min = s->alpha[0];
	for (uint32_t h = 0; h < s->heads; h++) {
		if (s->map.channels)
			kv_channels_restore(s->map.channels, dim, r->y + (size_t)h * dim);
		r->alpha_min = s->alpha[h] < r->alpha_min ? s->alpha[h] : r->alpha_min;
		r->alpha_sum += (double)s->alpha[h];
	}
	exec_bytes(s, exec_attended(e), r);
}

void kv_exec_finish(struct kv_exec *e)
{
	struct state *s = e->scratch;

	e->result = (struct kv_result){ 0 };
	for (uint32_t h = 0; h < s->heads; h++)
		s->alpha[h] = 1;
	if (s->mode == KV_EXEC_SCORE)
		walk(s, e->plan);
	if (s->mode == KV_EXEC_ATTEND)
		exec_attend_merge(s);
	report(e, s);
}
