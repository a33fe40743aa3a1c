/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: a stream, and memory that host and device have in common.
 *
 *   host   [ changed bytes ... | runs | parameters ]  --one copy-->  device, the same
 *   device scatter: each run to its place; kernels of the batch     --one copy-->  host: results
 *
 * What is changed is taken at once, so the host's bytes may change again before
 * the device has them. Between `submit` and the end of the batch the memory is the device's.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/backend-graph.h"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/scatter.h"

#define LANE_ALIGN 256u
#define LANE_MAX_RUNS 16384u
/* Scores of all rows of a batch: 4 bytes for each of a query's heads. */
#define LEAST_SCRATCH (64 * MIB)
#define MOST_SCRATCH GIB

struct kv_gpu_lane {
	struct kv_gpu *gpu;
	CUstream stream;
	CUevent begun, kernels_done, done;
	struct cuda_graphs graphs;
	bool busy;
	float milliseconds;
	size_t bytes, used; /* of `in` */
	char *in;           /* pinned */
	CUdeviceptr in_device;
	char *out; /* pinned */
	CUdeviceptr out_device, scratch;
	size_t scratch_bytes;
	/* the batch that is under way */
	const struct kv_gpu_item *item;
	uint32_t n_items;
	size_t params_at;
	struct kv_cuda_batch batch;
	uint32_t n_runs;
	struct cuda_run run[LANE_MAX_RUNS];
};

_Static_assert(KV_CUDA_LAUNCHES + 1 <= CUDA_GRAPH_NODES, "a batch is one graph");
_Static_assert(LANE_ALIGN == KV_CUDA_ALIGN, "the parameters lie in the lane's memory");

/* ---- making ----------------------------------------------------------------------- */

static int make_events(struct kv_gpu_lane *l)
{
	int r = CUDA_TRY(l->gpu, event_create, &l->begun, CU_EVENT_DEFAULT);

	if (r == 0)
		r = CUDA_TRY(l->gpu, event_create, &l->kernels_done, CU_EVENT_DEFAULT);
	if (r == 0)
		r = CUDA_TRY(l->gpu, event_create, &l->done, CU_EVENT_DISABLE_TIMING);
	return r;
}

int cuda_lane_open(struct kv_gpu *g, size_t bytes, struct kv_gpu_lane **ret)
{
	FREE_MEMORY struct kv_gpu_lane *l = calloc(1, sizeof(*l));
	int r = cuda_enter(g);

	if (r < 0)
		return r;
	if (!l)
		return -ENOMEM;
	l->gpu = g;
	/* And the runs, at their most. */
	l->bytes = ALIGN_UP(bytes, LANE_ALIGN) + sizeof(struct cuda_scatter) + sizeof(l->run);
	l->scratch_bytes = MIN(MAX(g->info.memory_bytes / 32, LEAST_SCRATCH), MOST_SCRATCH);
	r = CUDA_TRY(g, stream_create, &l->stream, CU_STREAM_NON_BLOCKING);
	if (r == 0)
		r = make_events(l);
	if (r == 0)
		r = CUDA_TRY(g, host_alloc, (void **)&l->in, l->bytes, 0);
	if (r == 0)
		r = CUDA_TRY(g, alloc, &l->in_device, l->bytes);
	if (r == 0)
		r = CUDA_TRY(g, host_alloc, (void **)&l->out, l->bytes, 0);
	if (r == 0)
		r = CUDA_TRY(g, alloc, &l->out_device, l->bytes);
	if (r == 0)
		r = CUDA_TRY(g, alloc, &l->scratch, l->scratch_bytes);
	if (r < 0) {
		cuda_lane_close(STEAL_PTR(l));
		return r;
	}
	*ret = STEAL_PTR(l);
	return 0;
}

struct kv_gpu_lane *cuda_lane_close(struct kv_gpu_lane *l)
{
	const struct cuda_driver *d;

	if (!l)
		return NULL;
	d = &l->gpu->driver;
	d->context_set(l->gpu->context);
	if (l->stream) {
		d->stream_wait(l->stream);
		d->stream_destroy(l->stream);
	}
	cuda_graphs_free(l->gpu, &l->graphs);
	if (l->begun)
		d->event_destroy(l->begun);
	if (l->kernels_done)
		d->event_destroy(l->kernels_done);
	if (l->done)
		d->event_destroy(l->done);
	if (l->in)
		d->host_free(l->in);
	if (l->in_device)
		d->free(l->in_device);
	if (l->out)
		d->host_free(l->out);
	if (l->out_device)
		d->free(l->out_device);
	if (l->scratch)
		d->free(l->scratch);
	free(l);
	return NULL;
}

/* ---- changed bytes ------------------------------------------------------------------ */

static size_t room(const struct kv_gpu_lane *l)
{
	size_t runs = sizeof(struct cuda_scatter) + sizeof(l->run);

	return l->bytes - runs - l->used;
}

int cuda_copy_in(struct kv_gpu_lane *l, const void *from, size_t n)
{
	uint32_t runs = (uint32_t)DIV_UP(n, CUDA_RUN_BYTES);
	CUdeviceptr to = cuda_address(l->gpu, from);

	assert(n % CUDA_RUN_ALIGN == 0 && to % CUDA_RUN_ALIGN == 0 && to);
	if (atomic_load(&l->gpu->state) != CUDA_WELL)
		return -EIO;
	if (l->busy || n > room(l) || runs > LANE_MAX_RUNS - l->n_runs)
		return -ENOSPC;
	memcpy(l->in + l->used, from, n);
	for (size_t at = 0; at < n; at += CUDA_RUN_BYTES)
		l->run[l->n_runs++] = (struct cuda_run){
			.to = to + at,
			.at = (uint32_t)(l->used + at),
			.n = (uint32_t)MIN(n - at, CUDA_RUN_BYTES),
		};
	l->used += n;
	return 0;
}

/* The runs, behind the bytes; their place. */
static size_t put_runs(struct kv_gpu_lane *l)
{
	size_t at = ALIGN_UP(l->used, CUDA_RUN_ALIGN);
	struct cuda_scatter *s = (struct cuda_scatter *)(l->in + at);

	s->lane = l->in_device;
	s->runs = l->n_runs;
	s->rsv = 0;
	memcpy(s->run, l->run, l->n_runs * sizeof(*l->run));
	l->used = at + sizeof(*s) + l->n_runs * sizeof(*l->run);
	return at;
}

int cuda_serves(const struct kv_gpu *g, const struct kv_space *s, char *why)
{
	return kv_cuda_serves(s, why);
}

bool cuda_runs(const struct kv_gpu_item *item)
{
	char why[KV_GPU_WHY];

	return kv_cuda_runs(item, why) == 0;
}

/* ---- a batch --------------------------------------------------------------------------- */

static enum cuda_kernel find_kernel(const char *name)
{
	enum cuda_kernel i = 0;

	while (i + 1 < CUDA_KERNELS && strcmp(cuda_kernel_names[i], name))
		i++;
	return i;
}

static int launch_all(struct kv_gpu_lane *l, size_t runs_at)
{
	struct cuda_launch launch[KV_CUDA_LAUNCHES + 1];
	uint32_t n = 0;

	if (l->n_runs)
		launch[n++] = (struct cuda_launch){ .kernel = CUDA_KERNEL_SCATTER,
						    .grid = { l->n_runs, 1 },
						    .threads = CUDA_SCATTER_THREADS,
						    .argument = l->in_device + runs_at };
	for (uint32_t i = 0; i < l->batch.n_launches; i++) {
		const struct kv_cuda_launch *x = &l->batch.launch[i];

		launch[n++] = (struct cuda_launch){ .kernel = find_kernel(x->kernel),
						    .grid = { x->grid_x, x->grid_y },
						    .threads = x->threads,
						    .shared = x->shared_bytes,
						    .argument = l->in_device + l->params_at };
	}
	return cuda_graphs_launch(l->gpu, &l->graphs, l->stream, launch, n);
}

static uint64_t device_of(void *arg, const void *host)
{
	return cuda_address(arg, host);
}

/* The parameters, behind the runs. */
static int put_params(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n)
{
	const struct kv_cuda_where where = {
		.params = l->in_device + l->params_at,
		.scratch = l->scratch,
		.output = l->out_device,
		.device_of = device_of,
		.arg = l->gpu,
	};
	int r = kv_cuda_fill(item, n, &l->batch, &where, l->in + l->params_at);

	if (r == 0)
		l->used = l->params_at + l->batch.params_bytes;
	return r;
}

/* Are they more than the lane holds, behind what is there? */
static bool is_too_much(const struct kv_gpu_lane *l)
{
	const struct kv_cuda_batch *b = &l->batch;

	return l->params_at > l->bytes || b->params_bytes > l->bytes - l->params_at ||
	       b->scratch_bytes > l->scratch_bytes || b->output_bytes > l->bytes;
}

static int start(struct kv_gpu_lane *l, size_t runs_at)
{
	int r = 0;

	if (l->used)
		r = CUDA_MUST(l->gpu, copy_in, l->in_device, l->in, l->used, l->stream);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->begun, l->stream);
	if (r == 0)
		r = launch_all(l, runs_at);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->kernels_done, l->stream);
	if (r == 0 && l->batch.output_bytes)
		r = CUDA_MUST(l->gpu, copy_out, l->out, l->out_device, l->batch.output_bytes,
			      l->stream);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->done, l->stream);
	return r;
}

int cuda_submit(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n)
{
	size_t runs_at = 0, used = l->used;
	int r = cuda_enter(l->gpu);

	if (r < 0)
		return r;
	assert(!l->busy);
	if (l->n_runs)
		runs_at = put_runs(l);
	l->params_at = ALIGN_UP(l->used, LANE_ALIGN);
	l->batch = (struct kv_cuda_batch){ 0 };
	l->item = item;
	l->n_items = n;
	if (n)
		kv_cuda_measure(item, n, &l->batch);
	if (n)
		r = is_too_much(l) ? -ENOSPC : put_params(l, item, n);
	if (r == 0)
		r = start(l, runs_at);
	l->busy = r == 0;
	/* The bytes that were brought are there for a smaller batch. */
	if (r < 0)
		l->used = used;
	return r;
}

static int ask(struct kv_gpu_lane *l)
{
	CUresult r = l->gpu->driver.event_query(l->done);

	if (r == CUDA_ERROR_NOT_READY)
		return 0;
	return cuda_must(l->gpu, r, "event_query") < 0 ? -EIO : 1;
}

int cuda_poll(struct kv_gpu_lane *l)
{
	int r = cuda_enter(l->gpu);

	assert(l->busy);
	if (r == 0)
		r = ask(l);
	if (r != 1)
		return r;
	if (l->n_items)
		kv_cuda_collect(l->item, l->n_items, l->in + l->params_at, l->out);
	l->busy = false;
	l->used = 0;
	l->n_runs = 0;
	r = CUDA_MUST(l->gpu, event_elapsed, &l->milliseconds, l->begun, l->kernels_done);
	return r < 0 ? r : 1;
}

float cuda_milliseconds(const struct kv_gpu_lane *l)
{
	return l->milliseconds;
}
