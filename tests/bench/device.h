/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `sparq-bench device` share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/gpu.h"
#include "tests/kernels/rig.h"

struct device_options {
	const char *device, *module;
	uint32_t shrink;
	double seconds;
	bool json;
};

/* ---- device-rows.c: a device, and sequences on it ----------------------------------- */

struct bench_gpu {
	void *module;
	const struct kv_gpu_backend *backend;
	struct kv_gpu *gpu;
	struct kv_gpu_lane *lane;
	struct kv_gpu_info info;
	double copy_bytes_s; /* measured in this run */
	bool pretends;       /* a driver of tests: its figures are of nothing */
};
#define BENCH_GPU_NULL ((struct bench_gpu){ .module = NULL })
/* "cuda:N" by the module. -errno with `why` (KV_GPU_WHY bytes). */
int bench_gpu_open(const char *device, const char *module, struct bench_gpu *ret, char *why);
void bench_gpu_deinit(struct bench_gpu *g);

struct bench_case { /* a line of the table */
	const char *policy, *format;
	uint32_t rows, batch, kv_heads;
};

/* Sets of equal sequences, visited in turn so that nothing of a step is in a cache: their rows are
 * once in the host's memory, at as many places, and as often on the device. */
struct device_rows {
	struct bench_gpu *gpu;
	const struct bench_case *which;
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	struct rig rig;
	char *arena; /* n_sets * batch times rig.bytes */
	size_t arena_bytes;
	struct kv_gpu_mirror *mirror;
	unsigned n_sets;
	struct kv_extent *extent; /* [n_sets * batch][n_extents] */
	struct kv_view *view;
	float *q; /* [batch][heads][dim] */
	struct kv_plan plan;
	struct kv_query *query;
	struct kv_gpu_item *item; /* [n_sets][batch] */
	struct kv_result *result; /* [batch][kv_heads] */
};
int device_rows_init(struct device_rows *d, struct bench_gpu *g, const struct bench_case *c,
		     char *why);
void device_rows_deinit(struct device_rows *d);

/* ---- device-time.c -------------------------------------------------------------------- */

struct device_figures {
	const struct bench_case *which;
	char why[KV_GPU_WHY];      /* there are none; "": there are */
	double kernel_ms, step_ms; /* medians: by the device's clock; from call to answer */
	double least_ms;           /* by the device's clock */
	uint64_t bytes;            /* that a step reads */
	uint32_t samples, sets;
	double error; /* of o against this machine's processor, relative to its size */
};
/* -EIO: the device is lost; what else is missing `why` of the figures says. */
int device_measure(struct bench_gpu *g, const struct bench_case *c, double seconds,
		   struct device_figures *ret);

/* ---- device-show.c ---------------------------------------------------------------------- */

void device_show(const struct device_options *o, const struct bench_gpu *g,
		 const struct device_figures *f, unsigned n);
