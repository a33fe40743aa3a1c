/* SPDX-License-Identifier: Apache-2.0 */
/* A device by its back end alone, without a daemon, and sequences on it. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/base.h"
#include "tests/bench/attend.h"
#include "tests/bench/device.h"

#define LANE_BYTES (64 * MIB)
#define COPY_MOST (4 * GIB)
#define HEADS 32u
#define DIM 128u
#define SINKS KV_MAX_SINKS
#define CHANNELS "32"
#define CHOSEN "128"

/* ---- device ------------------------------------------------------------------------- */

/* The driver of tests has functions of its own; another back end is one of tests. */
static bool pretends(const struct kv_gpu_backend *b)
{
	void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
	bool fake = strcmp(b->name, "cuda") || (driver && dlsym(driver, "fake_cuda_calls"));

	if (driver)
		dlclose(driver);
	return fake;
}

static int load(const char *path, struct bench_gpu *g, char *why)
{
	g->module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!g->module) {
		snprintf(why, KV_GPU_WHY, "no module: %.200s; --module names another", dlerror());
		return -ENODEV;
	}
	g->backend = dlsym(g->module, KV_GPU_SYMBOL);
	if (g->backend && g->backend->version == KV_GPU_VERSION)
		return 0;
	snprintf(why, KV_GPU_WHY, "%.150s is of another version", path);
	return -ENOTSUP;
}

static int open_device(const char *device, struct bench_gpu *g, char *why)
{
	char *end;
	unsigned long index = strncmp(device, "cuda:", 5) ? 99 : strtoul(device + 5, &end, 10);
	size_t copied;
	int r;

	if (index > 15 || !device[5] || *end) {
		snprintf(why, KV_GPU_WHY, "\"%.40s\": cuda:0 to cuda:15 are allowed", device);
		return -EINVAL;
	}
	r = g->backend->open((uint32_t)index, &g->gpu, why);
	if (r < 0)
		return r;
	g->backend->info(g->gpu, &g->info);
	g->pretends = pretends(g->backend);
	copied = MIN(g->info.free_bytes / 4, COPY_MOST) / MIB * MIB;
	r = g->backend->copy_bandwidth(g->gpu, copied, &g->copy_bytes_s);
	if (r == 0)
		r = g->backend->lane_open(g->gpu, LANE_BYTES, &g->lane);
	if (r < 0)
		snprintf(why, KV_GPU_WHY, "%s", g->backend->lost(g->gpu) ?: strerror(-r));
	return r;
}

int bench_gpu_open(const char *device, const char *module, struct bench_gpu *ret, char *why)
{
	CLEANUP(bench_gpu_deinit) struct bench_gpu g = BENCH_GPU_NULL;
	int r = load(module, &g, why);

	if (r == 0)
		r = open_device(device, &g, why);
	if (r < 0)
		return r;
	*ret = STEAL(g, BENCH_GPU_NULL);
	return 0;
}

void bench_gpu_deinit(struct bench_gpu *g)
{
	if (g->lane)
		g->backend->lane_close(g->lane);
	if (g->gpu)
		g->backend->close(g->gpu);
	if (g->module)
		dlclose(g->module);
	*g = BENCH_GPU_NULL;
}

/* ---- rows on the host --------------------------------------------------------------- */

static int make_space(struct device_rows *d, char *why)
{
	const struct kv_policy *policy = kv_policy_find(d->which->policy);
	bool sparq = !strcmp(d->which->policy, "sparq");
	struct kv_space_params p = {
		.heads = HEADS,
		.kv_heads = d->which->kv_heads,
		.k_dim = DIM,
		.v_dim = DIM,
		.dtype = KV_F16,
		.k_format = d->which->format,
		.v_format = d->which->format,
		.policy = policy,
		.args = d->args,
		.sinks = SINKS,
	};
	int r = 0;

	kv_policy_defaults(policy, d->args);
	if (sparq)
		r = kv_policy_set(policy, d->args, "r", CHANNELS, why);
	if (sparq && r == 0)
		r = kv_policy_set(policy, d->args, "k", CHOSEN, why);
	if (sparq && r == 0)
		r = kv_policy_set(policy, d->args, "dense_below", "0", why);
	return r < 0 ? r : kv_space_init(&d->space, &p, why);
}

static int fill(struct device_rows *d)
{
	struct bench_noise noise;
	int r = rig_init_on(&d->rig, &d->space, d->which->rows, 16, RIG_SHARED);

	if (r < 0)
		return r;
	r = bench_noise_init(&noise, &d->space, BENCH_BLOCK_ROWS);
	for (uint32_t row = 0; row < d->which->rows && r == 0; row += BENCH_BLOCK_ROWS) {
		uint32_t n = MIN(BENCH_BLOCK_ROWS, d->which->rows - row);

		bench_noise_next(&noise, n);
		rig_append(&d->rig, noise.packed, n, BENCH_BLOCK_ROWS);
	}
	bench_noise_deinit(&noise);
	return r;
}

/* A few channels carry most of |q|, as those of models do. */
static int make_queries(struct device_rows *d)
{
	size_t n = (size_t)d->which->batch * HEADS * DIM;
	uint64_t state = 7;

	d->q = calloc(n, sizeof(*d->q));
	for (size_t i = 0; d->q && i < n; i++) {
		float x;

		state = state * 6364136223846793005u + 1442695040888963407u;
		x = (float)(int32_t)(state >> 32) * 0x1p-31f;
		d->q[i] = 4 * x * x * x;
	}
	return d->q ? 0 : -ENOMEM;
}

/* ---- the same rows at many places ------------------------------------------------------ */

/* So many that four times the device's cache are read between two uses of a line. */
static int count_sets(struct device_rows *d, char *why)
{
	struct bench_gpu *g = d->gpu;
	size_t set = d->rig.bytes * d->which->batch, most;
	uint64_t cold = 4 * MAX(g->info.l2_bytes, MIB), reads = d->rig.used / 16;

	g->backend->info(g->gpu, &g->info);
	most = MIN(g->info.free_bytes, g->info.memory_bytes) / 10 * 9 / set;
	reads = MAX(reads * d->which->batch, 1ull);
	if (most == 0) {
		snprintf(why, KV_GPU_WHY, "its rows take %.1f GiB, and %.1f are free on the device",
			 (double)set / (double)GIB, (double)g->info.free_bytes / (double)GIB);
		return -ENOMEM;
	}
	d->n_sets = (unsigned)MIN(cold / reads + 2, most);
	return 0;
}

/* mremap of 0 bytes of a shared mapping is the same memory once more. */
static int map_again(struct device_rows *d)
{
	size_t n = (size_t)d->n_sets * d->which->batch;

	d->arena_bytes = n * d->rig.bytes;
	d->arena = mmap(NULL, d->arena_bytes, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->arena == MAP_FAILED) {
		d->arena = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		if (mremap(d->rig.memory, 0, d->rig.bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
			   d->arena + i * d->rig.bytes) == MAP_FAILED)
			return -ENOMEM;
	return 0;
}

static void *moved(const struct device_rows *d, size_t i, const void *p)
{
	return p ? d->arena + i * d->rig.bytes + ((const char *)p - d->rig.memory) : NULL;
}

static void make_view(struct device_rows *d, size_t i)
{
	const struct kv_view *from = &d->rig.view;
	struct kv_extent *extent = &d->extent[i * from->n_extents];
	struct kv_view *to = &d->view[i];

	*to = *from;
	to->extent = extent;
	to->sinks = moved(d, i, from->sinks);
	for (unsigned k = 0; k < KV_MAX_CHUNKS; k++)
		to->chunk[k] = moved(d, i, from->chunk[k]);
	for (uint32_t k = 0; k < from->n_extents; k++) {
		extent[k] = from->extent[k];
		extent[k].base = moved(d, i, from->extent[k].base);
	}
}

static int make_items(struct device_rows *d)
{
	uint32_t batch = d->which->batch;
	size_t n = (size_t)d->n_sets * batch;
	int r;

	d->extent = calloc(n * d->rig.view.n_extents + 1, sizeof(*d->extent));
	d->view = calloc(n, sizeof(*d->view));
	d->query = calloc(batch, sizeof(*d->query));
	d->item = calloc(n, sizeof(*d->item));
	d->result = calloc((size_t)batch * d->space.kv_heads, sizeof(*d->result));
	if (!d->extent || !d->view || !d->query || !d->item || !d->result)
		return -ENOMEM;
	for (uint32_t i = 0; i < batch; i++)
		d->query[i] = (struct kv_query){ .q = d->q + (size_t)i * HEADS * DIM,
						 .n_q = 1,
						 .first_limit = d->which->rows };
	r = kv_plan_step(&d->space, &d->rig.view, &d->query[0], 0, 1, false, &d->plan);
	for (size_t i = 0; i < n; i++) {
		make_view(d, i);
		d->item[i] = (struct kv_gpu_item){
			.space = &d->space,
			.plan = &d->plan,
			.view = &d->view[i],
			.query = &d->query[i % batch],
			.result = &d->result[i % batch * d->space.kv_heads],
		};
	}
	return r;
}

/* ---- on the device ------------------------------------------------------------------------ */

static int flush(struct bench_gpu *g)
{
	int r = g->backend->submit(g->lane, NULL, 0);

	while (r == 0)
		r = g->backend->poll(g->lane);
	return r < 0 ? r : 0;
}

static int copy_sequence(struct device_rows *d, size_t i)
{
	struct bench_gpu *g = d->gpu;
	size_t end = ALIGN_UP(d->rig.used, 4096);
	int r = 0;

	for (size_t at = 0; at < end && r == 0;) {
		size_t n = MIN(end - at, MIB);

		r = g->backend->copy_in(g->lane, d->arena + i * d->rig.bytes + at, n);
		if (r == -ENOSPC)
			r = flush(g);
		else
			at += n;
	}
	return r;
}

static int bring(struct device_rows *d)
{
	struct bench_gpu *g = d->gpu;
	int r = g->backend->mirror(g->gpu, d->arena, d->arena_bytes, &d->mirror);

	if (r == 0)
		r = g->backend->map(d->mirror, 0, d->arena_bytes);
	for (size_t i = 0; r == 0 && i < (size_t)d->n_sets * d->which->batch; i++)
		r = copy_sequence(d, i);
	return r == 0 ? flush(g) : r;
}

int device_rows_init(struct device_rows *d, struct bench_gpu *g, const struct bench_case *c,
		     char *why)
{
	int r;

	*d = (struct device_rows){ .gpu = g, .which = c };
	r = make_space(d, why);
	if (r == 0)
		r = g->backend->serves(g->gpu, &d->space, why);
	if (r == 0)
		r = fill(d);
	if (r == 0)
		r = make_queries(d);
	if (r == 0)
		r = count_sets(d, why);
	if (r == 0)
		r = map_again(d);
	if (r == 0)
		r = make_items(d);
	if (r == 0)
		r = bring(d);
	if (r < 0 && !why[0])
		snprintf(why, KV_GPU_WHY, "%s", g->backend->lost(g->gpu) ?: strerror(-r));
	return r;
}

void device_rows_deinit(struct device_rows *d)
{
	if (d->mirror)
		d->gpu->backend->unmirror(d->mirror);
	if (d->arena)
		munmap(d->arena, d->arena_bytes);
	rig_deinit(&d->rig);
	free(d->extent);
	free(d->view);
	free(d->query);
	free(d->item);
	free(d->result);
	free(d->q);
	*d = (struct device_rows){ .gpu = NULL };
}
