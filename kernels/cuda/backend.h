/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Insides of the CUDA back end (kernels/gpu.h), shared by its files.
 *
 * The device's primary context is made current by each call on the thread that makes it, so any
 * thread may call. An error that is not for want of memory ends the device: the driver repeats most
 * of them for every call that follows, and what the others leave undone is not known.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "kernels/cuda/driver.h"
#include "kernels/cuda/nvml.h"
#include "kernels/gpu.h"
#include "shm/base.h"

#define CUDA_MAX_MIRRORS 64u /* arenas of a pool */

/* Writes the sentence and gives back -error. */
#define cuda_fail(why, error, ...) (snprintf((why), KV_GPU_WHY, __VA_ARGS__), -(error))

enum cuda_kernel {
	CUDA_KERNEL_SCATTER, /* small changes, from a lane's memory to where they belong */
	CUDA_KERNEL_ATTEND_8,
	CUDA_KERNEL_ATTEND_16,
	CUDA_KERNEL_ATTEND_32,
	CUDA_KERNEL_SCORE,
	CUDA_KERNEL_CHOOSE,
	CUDA_KERNELS
};

enum { CUDA_WELL, CUDA_LOSING, CUDA_LOST };

struct kv_gpu {
	struct cuda_driver driver;
	struct nvml nvml;
	CUdevice device;
	CUcontext context;
	CUmodule module;
	CUfunction kernel[CUDA_KERNELS];
	CUstream stream; /* of what `map` zeroes */
	CUmemAllocationProp memory;
	size_t granule;
	struct kv_gpu_info info;

	_Atomic uint32_t state; /* LOST: `why` is whole */
	char why[KV_GPU_WHY];

	pthread_mutex_t mutex; /* of changes to what follows */
	_Atomic uint32_t n_mirrors;
	struct kv_gpu_mirror *_Atomic mirror[CUDA_MAX_MIRRORS];
};

struct kv_gpu_mirror {
	struct kv_gpu *gpu;
	const char *host;
	size_t bytes, reserved;
	CUdeviceptr device;
	uint8_t *mapped; /* [reserved / granule] */
};

/* 0, -ENOMEM, or -EIO with the device lost by what failed; `what` names the call. */
int cuda_check(struct kv_gpu *g, CUresult r, const char *what);
#define CUDA_TRY(g, name, ...) cuda_check((g), (g)->driver.name(__VA_ARGS__), #name)
/* So does one for want of memory where there is no way back. 0 or -EIO. */
int cuda_must(struct kv_gpu *g, CUresult r, const char *what);
#define CUDA_MUST(g, name, ...) cuda_must((g), (g)->driver.name(__VA_ARGS__), #name)
/* The context is this thread's. -EIO: lost. */
int cuda_enter(struct kv_gpu *g);

/* ---- backend-open.c ---- */
extern const char *const cuda_kernel_names[CUDA_KERNELS];
int cuda_probe(char *ret_driver, char *why);
int cuda_open(uint32_t index, struct kv_gpu **ret, char *why);
struct kv_gpu *cuda_close(struct kv_gpu *g);
void cuda_info(const struct kv_gpu *g, struct kv_gpu_info *ret);
const char *cuda_lost(const struct kv_gpu *g);

/* ---- backend-memory.c ---- */
int cuda_mirror(struct kv_gpu *g, const void *host, size_t bytes, struct kv_gpu_mirror **ret);
struct kv_gpu_mirror *cuda_unmirror(struct kv_gpu_mirror *m);
size_t cuda_granule(const struct kv_gpu *g);
int cuda_map(struct kv_gpu_mirror *m, size_t at, size_t bytes);
void cuda_unmap(struct kv_gpu_mirror *m, size_t at, size_t bytes);
int cuda_pin(struct kv_gpu *g, void *host, size_t bytes);
void cuda_unpin(struct kv_gpu *g, void *host);
/* Where the copy of a byte of a mirrored arena is; 0: it is in none. */
CUdeviceptr cuda_address(const struct kv_gpu *g, const void *host);

/* ---- backend-copy.c ---- */
int cuda_copy_bandwidth(struct kv_gpu *g, size_t bytes, double *ret_bytes_s);

/* ---- backend-lane.c ---- */
int cuda_serves(const struct kv_gpu *g, const struct kv_space *s, char *why);
bool cuda_runs(const struct kv_gpu_item *item);
int cuda_lane_open(struct kv_gpu *g, size_t bytes, struct kv_gpu_lane **ret);
struct kv_gpu_lane *cuda_lane_close(struct kv_gpu_lane *l);
int cuda_copy_in(struct kv_gpu_lane *l, const void *from, size_t n);
int cuda_submit(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n);
int cuda_poll(struct kv_gpu_lane *l);
float cuda_milliseconds(const struct kv_gpu_lane *l);
