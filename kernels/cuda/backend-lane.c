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

#include "kernels/cuda/backend.h"
#include "kernels/cuda/scatter.h"

#define LANE_ALIGN 256u
#define LANE_MAX_RUNS 16384u

struct kv_gpu_lane {
	struct kv_gpu *gpu;
	CUstream stream;
	CUevent begun, kernels_done, done;
	bool busy;
	float milliseconds;
	size_t bytes, used; /* of `in` */
	char *in;           /* pinned */
	CUdeviceptr in_device;
	uint32_t n_runs;
	struct cuda_run run[LANE_MAX_RUNS];
};

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
	r = CUDA_TRY(g, stream_create, &l->stream, CU_STREAM_NON_BLOCKING);
	if (r == 0)
		r = make_events(l);
	if (r == 0)
		r = CUDA_TRY(g, host_alloc, (void **)&l->in, l->bytes, 0);
	if (r == 0)
		r = CUDA_TRY(g, alloc, &l->in_device, l->bytes);
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
	return cuda_fail(why, EOPNOTSUPP, "policy %s: this build has no kernels for it",
			 s->policy->name);
}

bool cuda_runs(const struct kv_gpu_item *item)
{
	return false;
}

/* ---- a batch --------------------------------------------------------------------------- */

static int launch(struct kv_gpu_lane *l, CUfunction kernel, const uint32_t grid[3],
		  const uint32_t block[3], uint32_t shared, CUdeviceptr argument)
{
	void *arguments[] = { &argument };

	return CUDA_MUST(l->gpu, launch, kernel, grid[0], grid[1], grid[2], block[0], block[1],
			 block[2], shared, l->stream, arguments, NULL);
}

static int launch_scatter(struct kv_gpu_lane *l, size_t at)
{
	const uint32_t grid[] = { l->n_runs, 1, 1 }, block[] = { CUDA_SCATTER_THREADS, 1, 1 };

	return launch(l, l->gpu->kernel[CUDA_KERNEL_SCATTER], grid, block, 0, l->in_device + at);
}

static int start(struct kv_gpu_lane *l, size_t runs_at)
{
	int r = 0;

	if (l->used)
		r = CUDA_MUST(l->gpu, copy_in, l->in_device, l->in, l->used, l->stream);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->begun, l->stream);
	if (r == 0 && l->n_runs)
		r = launch_scatter(l, runs_at);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->kernels_done, l->stream);
	if (r == 0)
		r = CUDA_MUST(l->gpu, event_record, l->done, l->stream);
	return r;
}

int cuda_submit(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n)
{
	size_t runs_at = 0;
	int r = cuda_enter(l->gpu);

	assert(!l->busy);
	if (r < 0)
		return r;
	if (l->n_runs)
		runs_at = put_runs(l);
	r = start(l, runs_at);
	if (r < 0)
		return r;
	l->busy = true;
	return 0;
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
