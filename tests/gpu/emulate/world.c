/* SPDX-License-Identifier: Apache-2.0 */
/* Steps on both sides: see world.h. */
#include "tests/gpu/emulate/world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/gpu/emulate/emulate.h"

#define GUARD 256u
#define GARBAGE 0xa5

static float uniform(uint64_t *state) /* -1 .. 1 */
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 11) / (double)(1ull << 52) - 1.0);
}

/* Heavy tails, as queries and keys have. */
static float heavy(uint64_t *state)
{
	float x = uniform(state);

	return x * x * x * 4 + uniform(state) * 0.3f;
}

const char *world_name(const struct world *w)
{
	static char name[400];
	const struct shape *x = &w->x;

	snprintf(name, sizeof(name),
		 "K %s V %s dtype %u d %u S %u g %u n_q %u sinks %u outliers %u %s%s%s%s%s%s"
		 "special %u exact %u %s %s(random %llu)",
		 x->k_format, x->v_format, (unsigned)x->dtype, x->dim, x->rows, x->group, x->n_q,
		 x->sinks, x->outliers, x->cut ? "cut " : "", x->ordered ? "ordered " : "",
		 x->parted ? "parted " : "", x->corrected ? "corrected " : "",
		 x->full ? "full " : "", x->draft ? "draft " : "", x->special, x->exact, x->policy,
		 x->sets, (unsigned long long)x->random);
	return name;
}

/* ---- making ------------------------------------------------------------------------- */

static bool make_space(struct world *w)
{
	const struct shape *x = &w->x;
	const struct kv_policy *policy = kv_policy_find(x->policy);
	struct kv_space_params p = { .heads = WORLD_HEADS * x->group,
				     .kv_heads = WORLD_HEADS,
				     .k_dim = x->dim,
				     .v_dim = x->dim,
				     .dtype = x->dtype,
				     .k_format = x->k_format,
				     .v_format = x->v_format,
				     .policy = policy,
				     .args = w->args,
				     .sinks = x->sinks,
				     .outliers = x->outliers };
	char why[KV_ERROR_TEXT], sets[sizeof(x->sets)], *save = NULL;

	kv_policy_defaults(policy, w->args);
	strcpy(sets, x->sets);
	for (char *s = strtok_r(sets, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		*strchr(s, '=') = '\0';
		if (kv_policy_set(policy, w->args, s, s + strlen(s) + 1, why))
			return false;
	}
	return kv_space_init(&w->space, &p, why) == 0;
}

static void append(struct world *w, uint32_t n, bool flush, uint64_t *random)
{
	size_t width = (size_t)2 * WORLD_HEADS * w->x.dim;
	float *x = malloc((n * width + 1) * sizeof(*x));
	char *packed = malloc(n * width * sizeof(*x) + 1);

	for (size_t i = 0; i < n * width; i++) {
		x[i] = i % width < width / 2 ? uniform(random) : uniform(random) + 0.5f;
		if (w->x.special && i % width < width / 2 && i / width % 61 == 7 && i % 7 == 0)
			x[i] = w->x.special == 1 || (w->x.special & *random >> 40 & 1) ? NAN
										       : INFINITY;
	}
	kv_from_f32(w->x.dtype, x, packed, n * width);
	if (flush)
		rig_append(&w->rig, packed, n, 96);
	else
		rig_write(&w->rig, packed, n);
	free(packed);
	free(x);
}

static void shuffle(uint8_t *channel, uint32_t n, uint64_t *random)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)((double)(uniform(random) + 1) / 2 * i + 0.5);

		channel[i] = channel[j];
		channel[j] = (uint8_t)i;
	}
}

static void make_tables(struct world *w, uint64_t *random)
{
	for (uint32_t h = 0; h < WORLD_HEADS && w->x.ordered; h++) {
		shuffle(w->channels[h].k, w->x.dim, random);
		shuffle(w->channels[h].v, w->x.dim, random);
		w->channels[h].n_outliers = w->x.outliers > h ? w->x.outliers - h : 0;
		w->table[h] = h == 0 || w->x.random % 4 ? &w->channels[h] : NULL;
	}
	w->rig.view.channels = w->x.ordered ? w->table : NULL;
}

static void make_corrections(struct world *w, uint64_t *random)
{
	size_t n = WORLD_HEADS * w->x.dim;

	if (!w->x.corrected)
		return;
	w->correction = malloc(n * sizeof(*w->correction));
	for (size_t i = 0; i < n; i++)
		w->correction[i] = (double)uniform(random) * 100;
	for (uint32_t i = 1; i < w->rig.view.n_extents; i += 2)
		w->rig.extent[i].correction = w->correction;
}

static bool make_rows(struct world *w)
{
	const struct shape *x = &w->x;
	uint32_t own = x->n_q <= x->rows ? x->n_q : 0, before = x->rows - own;
	uint64_t random = x->random * 2 + 1;

	if (rig_init(&w->rig, &w->space, 2 * x->rows + 2048, x->rollback))
		return false;
	make_tables(w, &random);
	append(w, before, true, &random);
	if (x->cut && before > 200) {
		uint32_t keep = x->sinks + (uint32_t)(x->random % (before - x->sinks));

		rig_cut(&w->rig, keep);
		append(w, before - keep, true, &random);
	}
	append(w, own, false, &random);
	make_corrections(w, &random);
	w->q = malloc((size_t)x->n_q * w->space.heads * x->dim * sizeof(*w->q));
	for (size_t i = 0; i < (size_t)x->n_q * w->space.heads * x->dim; i++)
		w->q[i] = heavy(&random);
	w->query = (struct kv_query){ .q = w->q,
				      .n_q = x->n_q,
				      .full = x->full,
				      .first_limit = own ? before + 1 : 0,
				      .level = x->draft };
	return true;
}

/* The second KV head's block of a page, to where parts say it is: the first of its own part. */
static void move_second(struct world *w, void *page, size_t bytes)
{
	memcpy((char *)page + w->parts.shift[1], (char *)page + bytes, bytes);
	memset((char *)page + bytes, 0xff, bytes);
}

static void part_pages(struct world *w);

/* What a policy that looks at all of K would have: no policy that is offered does. */
static void plan_exact(struct world *w)
{
	const enum kv_group_rule rule = w->x.random & 1 ? KV_GROUP_LOGITS : KV_GROUP_SOFTMAX;
	kv_val score;
	kv_sel rows;
	kv_part part;

	kv_plan_init(&w->plan);
	score = kv_plan_score(&w->plan);
	rows = kv_plan_topk(&w->plan, score,
			    (struct kv_topk){ .k = w->x.exact,
					      .recent = w->x.exact / 8,
					      .rule = rule,
					      .sealed_only = w->x.random & 2 });
	if (w->x.random & 2)
		rows = kv_plan_union(&w->plan, rows, kv_plan_recent(&w->plan));
	part = kv_plan_attend(&w->plan, rows);
	if (w->x.random & 4)
		part = kv_plan_mean_rest(&w->plan, part, score, KV_MEAN_REST);
	kv_plan_output(&w->plan, part);
}

struct world *world_new(const struct shape *x)
{
	struct world *w = calloc(1, sizeof(*w));

	w->x = *x;
	if (!make_space(w) || !make_rows(w) ||
	    kv_plan_step(&w->space, &w->rig.view, &w->query, 0, 1, false, &w->plan))
		return world_free(w);
	if (x->exact)
		plan_exact(w);
	part_pages(w);
	w->scratch_bytes = kv_exec_scratch_bytes(&w->space, &w->plan, &w->rig.view, &w->query);
	w->scratch = aligned_alloc(64, w->scratch_bytes * WORLD_HEADS + 64);
	w->item = (struct kv_gpu_item){ &w->space, &w->plan, &w->rig.view, &w->query, w->gpu };
	return w;
}

struct world *world_free(struct world *w)
{
	if (!w)
		return NULL;
	rig_deinit(&w->rig);
	free(w->correction);
	free(w->elsewhere);
	free(w->q);
	free(w->scratch);
	free(w);
	return NULL;
}

static void part_pages(struct world *w)
{
	struct kv_view *v = &w->rig.view;

	if (!w->x.parted)
		return;
	/* Every page's blocks of KV head 1 move by as much as the whole memory is long: so is what
	 * was there overwritten, that it cannot be read by mistake. */
	w->elsewhere = aligned_alloc(4096, ALIGN_UP(w->rig.bytes, 4096));
	memcpy(w->elsewhere, w->rig.memory, w->rig.bytes);
	w->parts.n = 2;
	w->parts.shift[1] = w->elsewhere - w->rig.memory;
	v->parts = &w->parts;
	v->parted = UINT32_MAX;
	for (uint32_t i = 0; i < v->n_extents; i++) {
		struct kv_extent *e = &w->rig.extent[i];

		e->parted = 1;
		move_second(w, e->base, kv_extent_bytes(&w->space, e->tiles));
	}
	move_second(w, v->sinks, kv_chunk_bytes(&w->space, KV_MAX_SINKS));
	for (unsigned i = 0; i < KV_MAX_CHUNKS; i++)
		if (v->chunk[i])
			move_second(w, v->chunk[i], kv_chunk_bytes(&w->space, KV_CHUNK_ROWS));
}

/* ---- running ------------------------------------------------------------------------------ */

void world_run_cpu(struct world *w)
{
	rig_attend(&w->rig, &w->plan, &w->query, w->scratch, false, w->cpu);
}

static uint64_t device_of(void *arg, const void *host)
{
	return (uint64_t)(uintptr_t)host;
}

static char *guarded(size_t n)
{
	size_t bytes = ALIGN_UP(n, KV_CUDA_ALIGN) + 2 * KV_CUDA_ALIGN;
	char *p = aligned_alloc(KV_CUDA_ALIGN, bytes);

	memset(p, GARBAGE, bytes);
	return p + KV_CUDA_ALIGN;
}

static bool guards_hold(const char *p, size_t n, const char *what)
{
	for (size_t i = 0; i < KV_CUDA_ALIGN; i++)
		if ((unsigned char)p[-1 - (ptrdiff_t)i] != GARBAGE ||
		    (unsigned char)p[n + i] != GARBAGE) {
			fprintf(stderr, "a store outside of the %s\n", what);
			return false;
		}
	return true;
}

static bool launch(const struct gpu_run *r, uint64_t seed)
{
	char why[EMULATE_WHY];

	for (uint32_t i = 0; i < r->batch.n_launches; i++) {
		const struct kv_cuda_launch *l = &r->batch.launch[i];
		struct emulate_grid grid = { l->grid_x, l->grid_y, l->threads, l->shared_bytes,
					     seed };
		emulate_kernel *kernel = emulate_find(l->kernel);

		if (kernel && emulate_run(kernel, r->device, &grid, why) == 0)
			continue;
		fprintf(stderr, "%s: %s\n", l->kernel, kernel ? why : "no such kernel");
		return false;
	}
	return guards_hold(r->device, r->batch.params_bytes, "parameters") &&
	       guards_hold(r->scratch, r->batch.scratch_bytes, "scratch") &&
	       guards_hold(r->output, r->batch.output_bytes, "output");
}

bool world_run(struct world *const *w, uint32_t n, uint64_t seed, struct gpu_run *ret)
{
	struct kv_gpu_item *item = malloc(n * sizeof(*item));
	struct gpu_run r = { 0 };
	struct kv_cuda_where where;
	char why[KV_GPU_WHY] = "";
	bool ok = true;

	for (uint32_t i = 0; i < n; i++) {
		item[i] = w[i]->item;
		if (kv_cuda_runs(&item[i], why)) {
			fprintf(stderr, "%s: %s\n", world_name(w[i]), why);
			ok = false;
		}
	}
	kv_cuda_measure(item, n, &r.batch);
	r.params = calloc(1, r.batch.params_bytes);
	r.device = guarded(r.batch.params_bytes);
	r.scratch = guarded(r.batch.scratch_bytes);
	r.output = guarded(r.batch.output_bytes);
	where = (struct kv_cuda_where){ (uintptr_t)r.device, (uintptr_t)r.scratch,
					(uintptr_t)r.output, device_of, NULL };
	ok = ok && kv_cuda_fill(item, n, &r.batch, &where, r.params) == 0;
	memcpy(r.device, r.params, r.batch.params_bytes);
	ok = ok && launch(&r, seed);
	if (ok)
		kv_cuda_collect(item, n, r.params, r.output);
	*ret = r;
	free(item);
	return ok;
}

void gpu_run_free(struct gpu_run *r)
{
	free(r->params);
	free(r->device - KV_CUDA_ALIGN);
	free(r->scratch - KV_CUDA_ALIGN);
	free(r->output - KV_CUDA_ALIGN);
}
