/* SPDX-License-Identifier: Apache-2.0 */
/* One line of the table of `sparq-bench device`: batches of one step each, timed by events. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/bench/bench.h"
#include "tests/bench/device.h"

#define MOST_SAMPLES 2000u
#define LEAST_SAMPLES 3u
#define WARM 2u

static int run(struct device_rows *d, unsigned set, double *ret_step_ms)
{
	const struct kv_gpu_backend *b = d->gpu->backend;
	double begin = bench_now_ns();
	int r = b->submit(d->gpu->lane, &d->item[(size_t)set * d->which->batch], d->which->batch);

	while (r == 0)
		r = b->poll(d->gpu->lane);
	*ret_step_ms = (bench_now_ns() - begin) / 1e6;
	return r < 0 ? r : 0;
}

static int time_batches(struct device_rows *d, double seconds, struct device_figures *ret)
{
	FREE_MEMORY double *kernel = calloc(2 * (size_t)MOST_SAMPLES, sizeof(*kernel));
	double *step = kernel + MOST_SAMPLES, begin, ms;
	unsigned n = 0;
	int r = kernel ? 0 : -ENOMEM;

	for (unsigned i = 0; i < WARM && r == 0; i++)
		r = run(d, i % d->n_sets, &ms);
	begin = bench_now_ns();
	while (r == 0 && n < MOST_SAMPLES &&
	       (n < LEAST_SAMPLES || bench_now_ns() - begin < seconds * 1e9)) {
		r = run(d, (n + WARM) % d->n_sets, &step[n]);
		kernel[n++] = (double)d->gpu->backend->milliseconds(d->gpu->lane);
	}
	if (r < 0)
		return r;
	ret->kernel_ms = bench_median(kernel, n);
	ret->least_ms = kernel[0];
	ret->step_ms = bench_median(step, n);
	ret->samples = n;
	ret->sets = d->n_sets;
	return 0;
}

static uint64_t bytes_read(const struct device_rows *d)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < (size_t)d->which->batch * d->space.kv_heads; i++)
		for (unsigned p = 0; p < KV_PLANES; p++)
			sum += d->result[i].bytes[p];
	return sum;
}

/* ---- is it the same? ------------------------------------------------------------------ */

static double difference(const struct device_rows *d, const struct kv_result *here)
{
	double off = 0, size = 0;

	for (uint32_t h = 0; h < d->space.kv_heads; h++)
		for (uint32_t i = 0; i < d->space.group * d->space.v_dim; i++) {
			double x = (double)here[h].y[i], y = (double)d->result[h].y[i];

			off += (x - y) * (x - y);
			size += x * x;
		}
	return sqrt(off / size);
}

/* Of the batch's first sequence, by this machine's processor. */
static int compare(struct device_rows *d, double *ret)
{
	uint64_t bytes = kv_exec_scratch_bytes(&d->space, &d->plan, &d->rig.view, &d->query[0]);
	FREE_MEMORY struct kv_result *here = calloc(d->space.kv_heads, sizeof(*here));
	FREE_MEMORY void *scratch = aligned_alloc(64, bytes * d->space.kv_heads);

	if (!here || !scratch)
		return -ENOMEM;
	rig_attend(&d->rig, &d->plan, &d->query[0], scratch, false, here);
	*ret = difference(d, here);
	return 0;
}

int device_measure(struct bench_gpu *g, const struct bench_case *c, double seconds,
		   struct device_figures *ret)
{
	struct device_figures f = { .which = c };
	struct device_rows rows;
	int r = device_rows_init(&rows, g, c, f.why);

	if (r == 0)
		r = time_batches(&rows, seconds, &f);
	if (r == 0)
		r = compare(&rows, &f.error);
	if (r == 0)
		f.bytes = bytes_read(&rows);
	if (r < 0 && !f.why[0])
		snprintf(f.why, sizeof(f.why), "%s",
			 r == -ENOSPC ? "a lane has not enough memory for such a batch"
				      : g->backend->lost(g->gpu) ?: strerror(-r));
	device_rows_deinit(&rows);
	*ret = f;
	return g->backend->lost(g->gpu) ? -EIO : 0;
}
