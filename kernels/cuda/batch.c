/* SPDX-License-Identifier: Apache-2.0 */
/* From items to parameters and launches: see batch.h. */
#include "kernels/cuda/batch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/batch-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

#define FEW_UNITS 64u  /* shares of an attention: as many, before they are larger */
#define LARGE_SHARE 8u /* units */
#define PART_ROUNDS 4u /* units that a warp scores, at most */
#define ROUND_UNITS 256u
#define MANY_CHOICES 128u /* KV heads of all items: as many blocks as the device has processors */
#define CHOOSE_PARTS 16u  /* of one KV head, at most ... */
#define CHOOSE_UNITS 8u   /* ... with so many units each */
#define PARTS_BYTES (32 * MIB) /* of an item's shares */

static const size_t element[KV_CUDA_ARRAYS] = {
	[KV_CUDA_SPACES] = sizeof(struct kv_cuda_space),
	[KV_CUDA_ITEMS] = sizeof(struct kv_cuda_item),
	[KV_CUDA_LAYOUTS] = sizeof(struct kv_cuda_layout),
	[KV_CUDA_BLOCKS] = sizeof(struct kv_cuda_block),
	[KV_CUDA_ADDRESSES] = sizeof(uint64_t),
	[KV_CUDA_UNITS] = sizeof(struct kv_cuda_unit),
	[KV_CUDA_TABLES] = sizeof(struct kv_cuda_table),
	[KV_CUDA_QUERIES] = sizeof(float),
	[KV_CUDA_CORRECTIONS] = sizeof(double),
	[KV_CUDA_COUNTERS] = sizeof(uint32_t),
};

void *batch_push(struct writer *w, enum kv_cuda_array what, uint32_t n)
{
	char *base = w->base[what];
	size_t at = w->n[what] * element[what];

	w->n[what] += n;
	return base ? base + at : NULL;
}

/* ---- caches ------------------------------------------------------------------------------ */

static int find_format(const char *name)
{
	static const char *const formats[KV_CUDA_FORMATS] = {
		[KV_CUDA_F32] = "f32",   [KV_CUDA_F16] = "f16",   [KV_CUDA_BF16] = "bf16",
		[KV_CUDA_INT8] = "int8", [KV_CUDA_INT4] = "int4", [KV_CUDA_HIER4] = "hier4",
	};

	for (int i = 0; i < KV_CUDA_FORMATS; i++)
		if (!strcmp(formats[i], name))
			return i;
	return -EOPNOTSUPP;
}

int kv_cuda_serves(const struct kv_space *s, char *why)
{
	const struct kv_kernels *const half[] = { s->k, s->v };

	for (unsigned i = 0; i < ARRAY_SIZE(half); i++)
		if (find_format(half[i]->format) < 0) {
			snprintf(why, KV_GPU_WHY, "%c_format=%s: there are no kernels for it",
				 "kv"[i], half[i] -> format);
			return -EOPNOTSUPP;
		}
	return 0;
}

/* The plane that has K by channel. */
static uint32_t channels_plane(const struct kv_space *s)
{
	int format = find_format(s->k->format);

	if (format == KV_CUDA_HIER4)
		return 0;
	if (!(s->needs & KV_NEED_K_CHANNELS))
		return KV_CUDA_NONE;
	return format <= KV_CUDA_BF16 ? 1 : 2;
}

/* Where no row is in a tile, none has to be by channel. */
static bool scores_rows(const struct kv_gpu_item *item, const struct choice *c)
{
	return c->exact || channels_plane(item->space) != KV_CUDA_NONE || !item->view->n_extents;
}

static size_t query_bytes(const struct kv_gpu_item *item)
{
	return (size_t)item->query->n_q * item->space->heads * item->space->k_dim * sizeof(float);
}

int kv_cuda_runs(const struct kv_gpu_item *item, char *why)
{
	struct choice c;
	int r = kv_cuda_serves(item->space, why);

	if (r < 0)
		return r;
	if (query_bytes(item) > KV_GPU_QUERY_BYTES) {
		snprintf(why, KV_GPU_WHY,
			 "%u queries of %u heads, %zu bytes: a step has at most %zu",
			 item->query->n_q, item->space->heads, query_bytes(item),
			 (size_t)KV_GPU_QUERY_BYTES);
		return -EOPNOTSUPP;
	}
	r = choice_make(item, &c, why);
	if (r == 0 && c.scored && !scores_rows(item, &c)) {
		snprintf(why, KV_GPU_WHY, "scores by %u channels: the cache has no K by channel",
			 c.r);
		return -EOPNOTSUPP;
	}
	return r;
}

static struct kv_cuda_half half_of(const char *format, const struct kv_plane *plane, unsigned n,
				   unsigned rows)
{
	struct kv_cuda_half h = { .format = (uint32_t)find_format(format),
				  .stride = (uint32_t)plane[rows].bytes / KV_TILE_ROWS };
	size_t at = 0;

	for (unsigned i = 0; i < n; i++) {
		h.plane[i] = (uint32_t)at;
		at += plane[i].runs * plane[i].bytes;
	}
	return h;
}

static void put_space(const struct kv_space *s, struct kv_cuda_space *ret)
{
	struct kv_plane plane[KV_MAX_PLANES];
	unsigned n;

	*ret = (struct kv_cuda_space){ .heads = s->heads,
				       .kv_heads = s->kv_heads,
				       .group = s->group,
				       .dim = s->k_dim,
				       .scale = s->scale,
				       .channels = channels_plane(s) };
	n = s->k->k_planes(s->k_dim, s->needs, plane);
	ret->k = half_of(s->k->format, plane, n, s->k->levels > 1 ? 1 : 0);
	n = s->v->v_planes(s->v_dim, s->needs, plane);
	ret->v = half_of(s->v->format, plane, n, 0);
	n = s->plain->v_planes(s->v_dim, 0, plane);
	ret->sent = half_of(s->plain->format, plane, n, 0);
}

uint32_t batch_space(struct writer *w, const struct kv_space *s)
{
	struct kv_cuda_space *to;
	uint32_t n = w->n[KV_CUDA_SPACES];

	for (uint32_t i = 0; i < n; i++)
		if (w->space[i] == s)
			return i;
	w->space[n] = s;
	to = batch_push(w, KV_CUDA_SPACES, 1);
	if (to)
		put_space(s, to);
	return n;
}

/* ---- items --------------------------------------------------------------------------------- */

uint32_t batch_tables(struct writer *w, const struct kv_gpu_item *item)
{
	const struct kv_space *s = item->space;
	uint32_t at = w->n[KV_CUDA_TABLES];
	struct kv_cuda_table *to;

	if (!item->view->channels)
		return KV_CUDA_NONE;
	to = batch_push(w, KV_CUDA_TABLES, s->kv_heads);
	for (uint32_t h = 0; to && h < s->kv_heads; h++) {
		const struct kv_channels *t = item->view->channels[h];

		memset(&to[h], 0, sizeof(to[h]));
		if (!t)
			continue;
		to[h].some = 1;
		to[h].n_outliers = kv_outliers_of(s, t);
		memcpy(to[h].k, t->k, s->k_dim);
		memcpy(to[h].v, t->v, s->v_dim);
	}
	return at;
}

static uint32_t put_queries(struct writer *w, const struct kv_gpu_item *item)
{
	const struct kv_space *s = item->space;
	uint32_t n = item->query->n_q * s->heads * s->k_dim, at = w->n[KV_CUDA_QUERIES];
	float *to = batch_push(w, KV_CUDA_QUERIES, n);

	if (to)
		memcpy(to, item->query->q, n * sizeof(*to));
	return at;
}

/* Few items leave most of the device idle while one block chooses: then more of them do. */
static uint32_t choose_parts(const struct writer *w, const struct kv_cuda_item *x)
{
	if (!x->k || w->choices >= MANY_CHOICES)
		return 0;
	return MIN(x->n_units / CHOOSE_UNITS, MIN(CHOOSE_PARTS, MANY_CHOICES / w->choices));
}

static void put_scores(struct writer *w, struct kv_cuda_item *x, const struct choice *c)
{
	uint32_t rounds = MIN(PART_ROUNDS, MAX(1u, DIV_UP(x->n_units, ROUND_UNITS)));

	x->exact = c->exact;
	x->r = c->r;
	x->k = c->k;
	x->rank_first = c->rank_first;
	x->rank_end = c->rank_end;
	x->softmax = c->softmax;
	x->mean = c->mean;
	x->sums = c->mean ? x->n_q : 0;
	x->part_units = KV_CUDA_WARPS * rounds;
	x->score_parts = MAX(1u, DIV_UP(x->n_units, x->part_units));
	x->choose_parts = choose_parts(w, x);
	x->n_runs = c->n_runs;
	x->fixed = c->fixed;
	x->fixed_sent = c->fixed_sent;
	memcpy(x->run, c->run, sizeof(x->run));
}

/* Blocks of heads fill the device as shares do, and each share has a part of every head. */
static uint32_t most_shares(const struct kv_cuda_item *x, const struct kv_space *s)
{
	uint64_t part = (uint64_t)(x->heads + x->sums) * (s->v_dim + 2) * sizeof(float);
	uint64_t most = MIN(KV_CUDA_MAX_SHARES / kv_cuda_head_blocks(x),
			    PARTS_BYTES / (part * s->kv_heads));

	return MAX(1u, (uint32_t)most);
}

static void put_shares(struct kv_cuda_item *x, const struct kv_space *s)
{
	uint32_t rows = 512 / kv_cuda_lanes(s->k_dim);
	uint32_t n = x->by_list ? DIV_UP(x->k + x->fixed, rows) + 1 : x->n_units;
	uint32_t least = DIV_UP(n, most_shares(x, s));

	x->share_units = x->by_list ? 1 : MIN(LARGE_SHARE, DIV_UP(n, FEW_UNITS));
	x->share_units = MAX(1u, MAX(x->share_units, least));
	x->shares = MAX(1u, DIV_UP(n, x->share_units));
}

static void put_memory(struct writer *w, struct kv_cuda_item *x, const struct kv_space *s)
{
	uint64_t rows = (uint64_t)x->shares * (x->heads + x->sums);

	x->partial_bytes = ALIGN_UP(rows * (s->v_dim + 2) * sizeof(float), KV_CUDA_ALIGN);
	x->partial = w->scratch;
	w->scratch += x->partial_bytes * s->kv_heads;
	if (x->by_list) {
		x->state_bytes = ALIGN_UP(kv_cuda_state_of(x, s->k_dim).bytes, KV_CUDA_ALIGN);
		x->state = w->scratch;
		w->scratch += x->state_bytes * s->kv_heads;
	}
	x->output_bytes = kv_cuda_y_at(x->heads) + x->heads * s->v_dim * sizeof(float);
	x->output_bytes = ALIGN_UP(x->output_bytes, 64);
	x->output = w->output;
	w->output += x->output_bytes * s->kv_heads;
}

/* What the launches must cover. */
static void cover(struct writer *w, const struct kv_cuda_item *x, const struct kv_space *s)
{
	struct kv_cuda_space space;
	uint32_t lanes = kv_cuda_lanes(s->k_dim), i = lanes / 16;
	uint32_t blocks = kv_cuda_head_blocks(x) * x->shares * s->kv_heads;

	put_space(s, &space);
	w->attend_x[i] = MAX(w->attend_x[i], blocks);
	w->attend_shared[i] = MAX(w->attend_shared[i],
				  kv_cuda_stage_of(&space, x->by_list, KV_CUDA_SHARED).total);
	if (!x->by_list)
		return;
	w->score_x = MAX(w->score_x, s->kv_heads * (x->score_parts + (x->sums ? 1 : 0)));
	w->choose_x = MAX(w->choose_x, s->kv_heads * x->choose_parts);
	w->score_shared = MAX(w->score_shared, kv_cuda_score_shared(x, s->k_dim));
}

static void put_counters(struct writer *w, struct kv_cuda_item *x, uint32_t n)
{
	uint32_t *to;

	x->counters = w->n[KV_CUDA_COUNTERS];
	to = batch_push(w, KV_CUDA_COUNTERS, n);
	if (to)
		memset(to, 0, n * sizeof(*to));
}

static void put_item(struct writer *w, const struct kv_gpu_item *item)
{
	const struct kv_space *s = item->space;
	const struct kv_query *q = item->query;
	struct kv_cuda_item x = { .space = batch_space(w, s),
				  .n_q = q->n_q,
				  .heads = q->n_q * s->group,
				  .level = q->level,
				  .rows = item->view->rows,
				  .first_limit = q->first_limit,
				  .full = q->full };
	char why[KV_GPU_WHY];
	struct kv_cuda_item *to;
	struct choice c;

	if (choice_make(item, &c, why) < 0) {
		w->error = -EOPNOTSUPP;
		return;
	}
	x.visible = c.visible;
	x.by_list = c.scored;
	x.q = put_queries(w, item);
	x.table = batch_tables(w, item);
	batch_pages(w, item, &c, &x);
	if (c.scored)
		put_scores(w, &x, &c);
	put_shares(&x, s);
	put_counters(w, &x, s->kv_heads * kv_cuda_counters(&x));
	put_memory(w, &x, s);
	cover(w, &x, s);
	to = batch_push(w, KV_CUDA_ITEMS, 1);
	if (to)
		*to = x;
}

/* ---- the batch --------------------------------------------------------------------------------
 */

static size_t array_bytes(const uint32_t *n, unsigned i)
{
	return ALIGN_UP(n[i] * element[i], 16);
}

size_t batch_bytes(const uint32_t *n)
{
	size_t bytes = ALIGN_UP(sizeof(struct kv_cuda_params), 16);

	for (unsigned i = 0; i < KV_CUDA_ARRAYS; i++)
		bytes += array_bytes(n, i);
	return bytes;
}

void batch_place(struct writer *w, const uint32_t *n, struct kv_cuda_params *p)
{
	uint32_t *const at[KV_CUDA_ARRAYS] = {
		[KV_CUDA_SPACES] = &p->spaces,           [KV_CUDA_ITEMS] = &p->items,
		[KV_CUDA_LAYOUTS] = &p->layouts,         [KV_CUDA_BLOCKS] = &p->blocks,
		[KV_CUDA_ADDRESSES] = &p->addresses,     [KV_CUDA_UNITS] = &p->units,
		[KV_CUDA_TABLES] = &p->tables,           [KV_CUDA_QUERIES] = &p->q,
		[KV_CUDA_CORRECTIONS] = &p->corrections, [KV_CUDA_COUNTERS] = &p->counters,
	};
	size_t used = ALIGN_UP(sizeof(*p), 16);

	*p = (struct kv_cuda_params){ .scratch = w->where->scratch, .output = w->where->output };
	for (unsigned i = 0; i < KV_CUDA_ARRAYS; i++) {
		*at[i] = (uint32_t)used;
		w->base[i] = (char *)p + used;
		used += array_bytes(n, i);
	}
}

static void add_launch(struct kv_cuda_batch *b, const char *kernel, uint32_t x, uint32_t y,
		       uint32_t shared)
{
	if (x)
		b->launch[b->n_launches++] =
			(struct kv_cuda_launch){ kernel, x, y, KV_CUDA_THREADS, shared };
}

/* KV heads that choose rows. */
static uint32_t count_choices(const struct kv_gpu_item *item, uint32_t n)
{
	uint32_t choices = 0;

	for (uint32_t i = 0; i < n; i++)
		for (unsigned op = 0; op < item[i].plan->n_ops; op++)
			if (item[i].plan->op[op].kind == KV_OP_TOPK)
				choices += item[i].space->kv_heads;
	return choices;
}

void kv_cuda_measure(const struct kv_gpu_item *item, uint32_t n, struct kv_cuda_batch *ret)
{
	static const char *const attend[] = { "kv_cuda_attend_8", "kv_cuda_attend_16",
					      "kv_cuda_attend_32" };
	struct writer w = { .choices = count_choices(item, n) };
	struct kv_cuda_batch b = { 0 };

	for (uint32_t i = 0; i < n; i++)
		put_item(&w, &item[i]);
	memcpy(b.n, w.n, sizeof(b.n));
	b.params_bytes = batch_bytes(w.n);
	b.scratch_bytes = w.scratch;
	b.output_bytes = w.output;
	add_launch(&b, "kv_cuda_score", w.score_x, n, w.score_shared);
	add_launch(&b, "kv_cuda_choose", w.choose_x, n, w.score_shared);
	for (unsigned i = 0; i < ARRAY_SIZE(attend); i++)
		add_launch(&b, attend[i], w.attend_x[i], n, w.attend_shared[i]);
	*ret = b;
}

int kv_cuda_fill(const struct kv_gpu_item *item, uint32_t n, const struct kv_cuda_batch *batch,
		 const struct kv_cuda_where *where, void *params)
{
	struct writer w = { .where = where, .choices = count_choices(item, n) };
	struct kv_cuda_params *p = params;

	batch_place(&w, batch->n, p);
	p->n_items = n;
	for (uint32_t i = 0; i < n && !w.error; i++)
		put_item(&w, &item[i]);
	return w.error;
}
