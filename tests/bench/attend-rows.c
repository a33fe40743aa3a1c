/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences for `sparq-bench attend`: enough equal ones that what a step reads
 * is in no cache when its turn comes again.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/bench/attend.h"

#define COLD_BYTES (256 * MIB)
#define MOST_RIGS 256u

static float uniform(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

/* Heavy tails, as queries have: a few channels carry most of |q|. */
static float heavy(uint64_t *state)
{
	float x = uniform(state);

	return 4 * x * x * x;
}

static int make_space(struct bench_rows *b, const struct bench_shape *shape, char *why)
{
	const struct kv_policy *policy = kv_policy_find(shape->policy);
	struct kv_space_params p = {
		.heads = shape->heads,
		.kv_heads = shape->kv_heads,
		.k_dim = shape->dim,
		.v_dim = shape->dim,
		.dtype = KV_F16,
		.k_format = shape->format,
		.v_format = shape->format,
		.policy = policy,
		.args = b->args,
		.sinks = KV_MAX_SINKS,
	};
	bool sparq = !strcmp(shape->policy, "sparq");
	int r = 0;

	if (!policy) {
		snprintf(why, KV_ERROR_TEXT, "no policy \"%s\"", shape->policy);
		return -EINVAL;
	}
	kv_policy_defaults(policy, b->args);
	if (sparq && shape->r)
		r = kv_policy_set(policy, b->args, "r", shape->r, why);
	if (sparq && shape->k && !r)
		r = kv_policy_set(policy, b->args, "k", shape->k, why);
	return r ? r : kv_space_init(&b->space, &p, why);
}

static void fill(struct rig *rig, uint32_t rows)
{
	const struct kv_space *s = rig->space;
	size_t width = (size_t)2 * s->kv_heads * s->k_dim, n = 512 * width;
	float *x = malloc(n * sizeof(*x));
	char *packed = malloc(n * kv_dtype_bytes(s->dtype));
	uint64_t random = 1;

	for (uint32_t row = 0; row < rows; row += 512) {
		uint32_t count = MIN(512, rows - row);

		for (size_t i = 0; i < count * width; i++)
			x[i] = uniform(&random);
		kv_from_f32(s->dtype, x, packed, count * width);
		rig_append(rig, packed, count, 512);
	}
	free(packed);
	free(x);
}

static size_t available_bytes(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (size_t)kib * KIB;
}

/* What one step reads of a sequence decides how many make it cold, not how long it is. */
static uint64_t step_bytes(const struct bench_rows *b)
{
	struct kv_query query = { .q = b->q, .n_q = 1, .first_limit = b->rig[0].view.rows };
	struct kv_result *result = calloc(b->space.kv_heads, sizeof(*result));
	struct kv_plan plan;
	uint64_t sum = 0;
	void *scratch;

	kv_plan_step(&b->space, &b->rig[0].view, &query, 0, 1, false, &plan);
	scratch = aligned_alloc(64,
				b->space.kv_heads * kv_exec_scratch_bytes(&b->space, &plan,
									  &b->rig[0].view, &query));
	rig_attend(&b->rig[0], &plan, &query, scratch, false, result);
	for (uint32_t h = 0; h < b->space.kv_heads; h++)
		for (unsigned i = 0; i < KV_PLANES; i++)
			sum += result[h].bytes[i];
	free(scratch);
	free(result);
	return sum;
}

static unsigned rigs_wanted(const struct bench_rows *b, uint32_t rows)
{
	size_t each = rig_bytes(&b->space, rows), most = available_bytes() / 2 / each;
	size_t want = COLD_BYTES / step_bytes(b) + 1;

	return (unsigned)MAX(MIN(MIN(want, most), MOST_RIGS), (size_t)1);
}

static void make_queries(struct bench_rows *b)
{
	size_t n = (size_t)BENCH_QUERIES * b->space.heads * b->space.k_dim;
	uint64_t random = 7;

	b->q = malloc(n * sizeof(*b->q));
	for (size_t i = 0; i < n; i++)
		b->q[i] = heavy(&random);
}

int bench_rows_init(struct bench_rows *b, const struct bench_shape *shape, char *why)
{
	int r;

	*b = (struct bench_rows){ 0 };
	r = make_space(b, shape, why);
	if (r)
		return r;
	make_queries(b);
	b->rig = calloc(MOST_RIGS, sizeof(*b->rig));
	r = rig_init(&b->rig[0], &b->space, shape->rows, 16);
	if (!r) {
		fill(&b->rig[0], shape->rows);
		b->n = rigs_wanted(b, shape->rows);
	}
	for (unsigned i = 1; i < b->n && !r; i++)
		r = rig_clone(&b->rig[i], &b->rig[0]);
	if (r)
		snprintf(why, KV_ERROR_TEXT, "no memory for %u rows", shape->rows);
	return r;
}

void bench_rows_deinit(struct bench_rows *b)
{
	for (unsigned i = 0; b->rig && i < MOST_RIGS; i++)
		rig_deinit(&b->rig[i]);
	free(b->rig);
	free(b->q);
}
