/* SPDX-License-Identifier: Apache-2.0 */
/* What the device's memory can do at most: a copy within it, timed by events on a stream of its
 * own. */
#include <stdlib.h>

#include "kernels/cuda/backend.h"

#define TIMES 15u

struct copying {
	struct kv_gpu *gpu;
	CUdeviceptr from, to;
	CUevent begun, done;
};

static int make(struct copying *c, size_t bytes)
{
	int r = CUDA_TRY(c->gpu, alloc, &c->from, bytes);

	if (r == 0)
		r = CUDA_TRY(c->gpu, alloc, &c->to, bytes);
	if (r == 0)
		r = CUDA_TRY(c->gpu, event_create, &c->begun, CU_EVENT_DEFAULT);
	if (r == 0)
		r = CUDA_TRY(c->gpu, event_create, &c->done, CU_EVENT_DEFAULT);
	/* Memory that nobody has written may be one page everywhere. */
	if (r == 0)
		r = CUDA_TRY(c->gpu, fill, c->from, 1, bytes, c->gpu->stream);
	return r;
}

static void copying_deinit(struct copying *c)
{
	const struct cuda_driver *d = &c->gpu->driver;

	if (c->from)
		d->free(c->from);
	if (c->to)
		d->free(c->to);
	if (c->begun)
		d->event_destroy(c->begun);
	if (c->done)
		d->event_destroy(c->done);
}

static int copy(const struct copying *c, size_t bytes, float *ret_ms)
{
	struct kv_gpu *g = c->gpu;
	int r = CUDA_MUST(g, event_record, c->begun, g->stream);

	if (r == 0)
		r = CUDA_MUST(g, copy_within, c->to, c->from, bytes, g->stream);
	if (r == 0)
		r = CUDA_MUST(g, event_record, c->done, g->stream);
	if (r == 0)
		r = CUDA_MUST(g, stream_wait, g->stream);
	return r == 0 ? CUDA_MUST(g, event_elapsed, ret_ms, c->begun, c->done) : r;
}

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

int cuda_copy_bandwidth(struct kv_gpu *g, size_t bytes, double *ret_bytes_s)
{
	CLEANUP(copying_deinit) struct copying c = { .gpu = g };
	float ms[TIMES];
	int r = cuda_enter(g);

	if (r == 0)
		r = make(&c, bytes);
	if (r == 0)
		r = copy(&c, bytes, &ms[0]); /* its first use of the pages */
	for (unsigned i = 0; r == 0 && i < TIMES; i++)
		r = copy(&c, bytes, &ms[i]);
	if (r < 0)
		return r;
	qsort(ms, TIMES, sizeof(ms[0]), by_size);
	*ret_bytes_s = 2 * (double)bytes / ((double)ms[TIMES / 2] * 1e-3);
	return 0;
}
