/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences for `sparq-bench attend`: enough equal ones that what a step reads
 * is in no cache when its turn comes again.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/table.h"
#include "shm/base.h"
#include "tests/bench/attend.h"

#define MOST_RIGS 256u
#define COLD_TIMES 4 /* the last-level cache: twice would do if it forgot the oldest first */

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

/* ---- what a cache is made of ---------------------------------------------------- */

static bool has_upper_planes(const char *format)
{
	const struct kv_kernels *k = kv_kernels_find(format);

	return k && k->levels > 1;
}

int bench_format_parse(const char *word, unsigned level, struct bench_format *ret, char *why)
{
	struct bench_format f = { 0 };
	size_t length = strlen(word), k;

	if (length >= sizeof(f.name) - 2) {
		snprintf(why, KV_ERROR_TEXT, "no format \"%.40s...\"", word);
		return -EINVAL;
	}
	if (length > 2 && !strcmp(word + length - 2, "/U")) {
		f.level = 1;
		length -= 2;
	}
	k = strcspn(word, "/");
	k = MIN(k, length);
	snprintf(f.k, sizeof(f.k), "%.*s", (int)k, word);
	snprintf(f.v, sizeof(f.v), "%.*s", (int)(k < length ? length - k - 1 : k),
		 k < length ? word + k + 1 : word);
	if (level && (has_upper_planes(f.k) || has_upper_planes(f.v)))
		f.level = 1;
	snprintf(f.name, sizeof(f.name), "%.*s%s", (int)length, word, f.level ? "/U" : "");
	*ret = f;
	return 0;
}

/* Of the policy, and the same as text for a daemon; only sparq has r and k. */
static int set_arg(struct bench_rows *b, const struct kv_policy *policy, const char *key,
		   uint32_t value, char *why)
{
	size_t used = strlen(b->policy_options);
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	snprintf(b->policy_options + used, sizeof(b->policy_options) - used, " %s=%s", key, text);
	return kv_policy_set(policy, b->args, key, text, why);
}

static int make_args(struct bench_rows *b, const struct kv_policy *policy, char *why)
{
	const struct attend_options *o = b->shape.options;
	int r = 0;

	kv_policy_defaults(policy, b->args);
	if (strcmp(b->shape.policy, "sparq"))
		return 0;
	if (o->r)
		r = set_arg(b, policy, "r", o->r, why);
	if (o->k && !r)
		r = set_arg(b, policy, "k", o->k, why);
	if (b->shape.sparse && !r)
		r = set_arg(b, policy, "dense_below", 0, why);
	return r;
}

static int no_policy(const char *name, char *why)
{
	const struct kv_policy *p;
	size_t used = (size_t)snprintf(why, KV_ERROR_TEXT, "policy \"%.40s\": allowed are ", name);

	for (unsigned i = 0; (p = kv_policy_at(i, true)); i++)
		used += (size_t)snprintf(why + used, KV_ERROR_TEXT - used, "%s%s", i ? ", " : "",
					 p->name);
	return -EINVAL;
}

static int make_space(struct bench_rows *b, char *why)
{
	const struct attend_options *o = b->shape.options;
	const struct kv_policy *policy = kv_policy_find(b->shape.policy);
	struct kv_space_params p = {
		.heads = o->heads,
		.kv_heads = o->kv_heads,
		.k_dim = o->dim,
		.v_dim = o->dim,
		.dtype = KV_F16,
		.k_format = b->shape.format.k,
		.v_format = b->shape.format.v,
		.policy = policy,
		.args = b->args,
		.sinks = KV_MAX_SINKS,
	};
	int r;

	if (!policy)
		return no_policy(b->shape.policy, why);
	r = make_args(b, policy, why);
	r = r ? r : kv_space_init(&b->space, &p, why);
	if (!r && b->shape.format.level && b->space.k->levels < 2 && b->space.v->levels < 2) {
		snprintf(why, KV_ERROR_TEXT, "%s has no upper planes to be read alone",
			 b->shape.format.k);
		return -EINVAL;
	}
	return r;
}

/* ---- rows ------------------------------------------------------------------------- */

static size_t row_floats(const struct kv_space *s)
{
	return (size_t)2 * s->kv_heads * s->k_dim;
}

int bench_noise_init(struct bench_noise *n, const struct kv_space *s, uint32_t most)
{
	*n = (struct bench_noise){ .space = s, .most = most, .state = 1 };
	n->x = malloc(most * row_floats(s) * sizeof(*n->x));
	n->packed = malloc(most * row_floats(s) * kv_dtype_bytes(s->dtype));
	return n->x && n->packed ? 0 : -ENOMEM;
}

void bench_noise_next(struct bench_noise *n, uint32_t rows)
{
	size_t floats = rows * row_floats(n->space);

	assert(rows <= n->most);
	for (size_t i = 0; i < floats; i++)
		n->x[i] = uniform(&n->state);
	kv_from_f32(n->space->dtype, n->x, n->packed, floats);
}

void bench_noise_deinit(struct bench_noise *n)
{
	free(n->x);
	free(n->packed);
}

static int fill(struct rig *rig, uint32_t rows)
{
	struct bench_noise noise;
	int r = bench_noise_init(&noise, rig->space, BENCH_BLOCK_ROWS);

	for (uint32_t row = 0; row < rows && !r; row += BENCH_BLOCK_ROWS) {
		uint32_t n = MIN(BENCH_BLOCK_ROWS, rows - row);

		bench_noise_next(&noise, n);
		rig_append(rig, noise.packed, n, BENCH_BLOCK_ROWS);
	}
	bench_noise_deinit(&noise);
	return r;
}

static int make_queries(struct bench_rows *b)
{
	size_t n =
		(size_t)BENCH_QUERIES * b->shape.options->queries * b->space.heads * b->space.k_dim;
	uint16_t *half = malloc(n * sizeof(*half));
	uint64_t random = 7;

	b->q = malloc(n * sizeof(*b->q));
	if (b->q && half) {
		for (size_t i = 0; i < n; i++)
			b->q[i] = heavy(&random);
		kv_from_f32(KV_F16, b->q, half, n);
		kv_to_f32(KV_F16, half, b->q, n);
	}
	free(half);
	return b->q && half ? 0 : -ENOMEM;
}

/* ---- how many are cold -------------------------------------------------------------- */

/* The number that a one-line file begins with, or that follows `key` in it; 0: none. */
static unsigned long kib_of(const char *path, const char *key)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen(path, "r");

	while (f && !kib && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kib = strtoul(line + strlen(key), NULL, 10);
	if (f)
		fclose(f);
	return kib;
}

/* Of the last level; 32 MiB where the system does not say. */
static size_t cache_bytes(void)
{
	static const char path[] = "/sys/devices/system/cpu/cpu0/cache/index3/size";
	unsigned long kib = kib_of(path, "");

	return kib ? kib * KIB : 32 * MIB;
}

/* What one step reads of a sequence decides how many make it cold, not how long it is. */
static int step_bytes(struct bench_rows *b, uint64_t *ret)
{
	uint64_t planes[KV_PLANES];
	struct bench_step step;
	struct crew *alone;
	int r = crew_start(1, &alone);

	if (r)
		return r;
	b->n = 1;
	if (bench_step_init(&step, b, false)) {
		bench_step_run(&step, alone, 0);
		*ret = bench_step_bytes(&step, planes);
	} else {
		r = -ENOMEM;
	}
	bench_step_deinit(&step);
	crew_stop(alone);
	return r;
}

static int count_rigs(struct bench_rows *b)
{
	const struct attend_options *o = b->shape.options;
	size_t cold = o->cold_mib ? o->cold_mib * MIB : COLD_TIMES * cache_bytes(), want, most;
	size_t available = kib_of("/proc/meminfo", "MemAvailable:") * KIB / 2;
	uint64_t bytes;
	int r = step_bytes(b, &bytes);

	if (r)
		return r;
	want = cold / bytes + 1;
	most = MIN(available, o->memory_mib * MIB) / b->rig[0].used / (o->through_daemon ? 2 : 1);
	b->n = (unsigned)MAX(MIN(MIN(want, most), MOST_RIGS), (size_t)1);
	if (b->n < want && b->n * bytes < 2 * cache_bytes())
		fprintf(stderr,
			"sparq-bench: %u rows, %s %s: memory for %u of %zu sequences only: "
			"a step may find some of its lines in the cache\n",
			b->shape.rows, b->shape.policy, b->shape.format.name, b->n, want);
	return 0;
}

static void say_no_memory(const struct bench_shape *shape, char *why)
{
	if (shape->pages == RIG_HUGE)
		snprintf(why, KV_ERROR_TEXT,
			 "too few huge pages for %u rows: reserve more with "
			 "\"sysctl vm.nr_hugepages=N\", 2 MiB each, or lower --cold or --memory",
			 shape->rows);
	else
		snprintf(why, KV_ERROR_TEXT, "no memory for %u rows", shape->rows);
}

int bench_rows_init(struct bench_rows *b, const struct bench_shape *shape, char *why)
{
	int r;

	*b = (struct bench_rows){ .shape = *shape };
	r = make_space(b, why);
	if (r)
		return r;
	r = make_queries(b);
	b->rig = calloc(MOST_RIGS, sizeof(*b->rig));
	if (!r && b->rig)
		r = rig_init_on(&b->rig[0], &b->space, shape->rows, 16, shape->pages);
	if (!r)
		r = b->rig ? fill(&b->rig[0], shape->rows) : -ENOMEM;
	if (!r)
		r = count_rigs(b);
	for (unsigned i = 1; i < b->n && !r; i++)
		r = rig_clone(&b->rig[i], &b->rig[0]);
	if (r)
		say_no_memory(shape, why);
	return r;
}

void bench_rows_deinit(struct bench_rows *b)
{
	for (unsigned i = 0; b->rig && i < MOST_RIGS; i++)
		rig_deinit(&b->rig[i]);
	free(b->rig);
	free(b->q);
	*b = (struct bench_rows){ 0 };
}
