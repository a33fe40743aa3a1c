/* SPDX-License-Identifier: Apache-2.0 */
/* What the module exports: see kernels/gpu.h. */
#include <errno.h>
#include <stdio.h>

#include "kernels/cuda/backend.h"

static int dram_busy(struct kv_gpu *g, float *ret, char *why)
{
	return nvml_memory_busy(&g->nvml, ret, why);
}

extern const struct kv_gpu_backend kv_gpu_backend;
__attribute__((visibility("default"))) const struct kv_gpu_backend kv_gpu_backend = {
	.version = KV_GPU_VERSION,
	.name = "cuda",
	.probe = cuda_probe,
	.open = cuda_open,
	.close = cuda_close,
	.info = cuda_info,
	.lost = cuda_lost,
	.serves = cuda_serves,
	.runs = cuda_runs,
	.mirror = cuda_mirror,
	.unmirror = cuda_unmirror,
	.granule = cuda_granule,
	.map = cuda_map,
	.unmap = cuda_unmap,
	.pin = cuda_pin,
	.unpin = cuda_unpin,
	.lane_open = cuda_lane_open,
	.lane_close = cuda_lane_close,
	.copy_in = cuda_copy_in,
	.submit = cuda_submit,
	.poll = cuda_poll,
	.milliseconds = cuda_milliseconds,
	.dram_busy = dram_busy,
	.copy_bandwidth = cuda_copy_bandwidth,
};
