/* SPDX-License-Identifier: Apache-2.0 */
/* A device: its context, its kernels, and its end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/image.h"
#include "kernels/cuda/params.h"

const char *const cuda_kernel_names[CUDA_KERNELS] = {
	[CUDA_KERNEL_SCATTER] = "kv_cuda_scatter",
	[CUDA_KERNEL_ATTEND_8] = "kv_cuda_attend_8",
	[CUDA_KERNEL_ATTEND_16] = "kv_cuda_attend_16",
	[CUDA_KERNEL_ATTEND_32] = "kv_cuda_attend_32",
	[CUDA_KERNEL_SCORE] = "kv_cuda_score",
	[CUDA_KERNEL_CHOOSE] = "kv_cuda_choose",
};

/* ---- errors --------------------------------------------------------------------- */

static void lose(struct kv_gpu *g, const char *what, CUresult r)
{
	uint32_t well = CUDA_WELL;

	if (!atomic_compare_exchange_strong(&g->state, &well, CUDA_LOSING))
		return;
	snprintf(g->why, sizeof(g->why), "%s %s: %s: %s", g->info.name, g->info.bus_id, what,
		 cuda_driver_error(&g->driver, r));
	/* What is read after LOST was seen is whole. */
	atomic_store(&g->state, CUDA_LOST);
}

int cuda_check(struct kv_gpu *g, CUresult r, const char *what)
{
	if (r == CUDA_SUCCESS)
		return 0;
	if (r == CUDA_ERROR_OUT_OF_MEMORY)
		return -ENOMEM;
	lose(g, what, r);
	return -EIO;
}

int cuda_must(struct kv_gpu *g, CUresult r, const char *what)
{
	if (r == CUDA_SUCCESS)
		return 0;
	lose(g, what, r);
	return -EIO;
}

int cuda_enter(struct kv_gpu *g)
{
	if (atomic_load(&g->state) != CUDA_WELL)
		return -EIO;
	return CUDA_TRY(g, context_set, g->context);
}

const char *cuda_lost(const struct kv_gpu *g)
{
	return atomic_load(&g->state) == CUDA_LOST ? g->why : NULL;
}

/* ---- what it is ------------------------------------------------------------------ */

static CUresult read_capability(struct kv_gpu *g, int *ret_virtual_memory, int *ret_l2)
{
	const struct {
		CUdevice_attribute what;
		int *at;
	} wanted[] = {
		{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, (int *)&g->info.major },
		{ CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, (int *)&g->info.minor },
		{ CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, ret_virtual_memory },
		{ CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, ret_l2 },
	};
	CUresult r = CUDA_SUCCESS;

	for (size_t i = 0; r == CUDA_SUCCESS && i < ARRAY_SIZE(wanted); i++)
		r = g->driver.device_attribute(wanted[i].at, wanted[i].what, g->device);
	return r;
}

static int find_device(struct kv_gpu *g, uint32_t index, char *why)
{
	struct kv_gpu_info *info = &g->info;
	int n = 0, virtual_memory = 0, l2 = 0;
	CUresult r;

	r = g->driver.device_count(&n);
	if (r == CUDA_SUCCESS && index >= (uint32_t)n)
		return cuda_fail(why, ENODEV, "cuda:%u: the driver finds %d device%s", index, n,
				 n == 1 ? "" : "s");
	if (r == CUDA_SUCCESS)
		r = g->driver.device_get(&g->device, (int)index);
	if (r == CUDA_SUCCESS)
		r = g->driver.device_name(info->name, sizeof(info->name), g->device);
	if (r == CUDA_SUCCESS)
		r = g->driver.device_bus_id(info->bus_id, sizeof(info->bus_id), g->device);
	if (r == CUDA_SUCCESS)
		r = read_capability(g, &virtual_memory, &l2);
	if (r != CUDA_SUCCESS)
		return cuda_fail(why, ENODEV, "cuda:%u: %s", index,
				 cuda_driver_error(&g->driver, r));
	info->l2_bytes = (uint64_t)MAX(l2, 0);
	/* As sysfs has it. */
	for (char *c = info->bus_id; *c; c++)
		if (*c >= 'A' && *c <= 'F')
			*c += 'a' - 'A';
	snprintf(info->driver, sizeof(info->driver), "%d.%d", g->driver.found / 1000,
		 g->driver.found % 1000 / 10);
	if (!virtual_memory)
		return cuda_fail(why, ENOTSUP, "cuda:%u (%s): it has no virtual memory management",
				 index, info->name);
	return 0;
}

/* ---- making ---------------------------------------------------------------------- */

static int fail_open(struct kv_gpu *g, CUresult r, const char *what, char *why)
{
	int error = r == CUDA_ERROR_OUT_OF_MEMORY ? ENOMEM : EIO;

	return cuda_fail(why, error, "cuda:%u (%s): %s: %s", (unsigned)g->device, g->info.name,
			 what, cuda_driver_error(&g->driver, r));
}

static int make_context(struct kv_gpu *g, char *why)
{
	CUresult r = g->driver.context_retain(&g->context, g->device);

	if (r != CUDA_SUCCESS) {
		g->context = NULL;
		return fail_open(g, r, "no context", why);
	}
	r = g->driver.context_set(g->context);
	return r == CUDA_SUCCESS ? 0 : fail_open(g, r, "no context", why);
}

static int load_kernels(struct kv_gpu *g, char *why)
{
	CUresult r = g->driver.module_load(&g->module, cuda_image);

	if (r == CUDA_ERROR_NO_BINARY_FOR_GPU || r == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
	    r == CUDA_ERROR_INVALID_PTX || r == CUDA_ERROR_INVALID_IMAGE)
		return cuda_fail(why, ENOTSUP,
				 "cuda:%u (%s): compute capability %u.%u, and this build has "
				 "kernels for sm_%s (gpu_arch)",
				 (unsigned)g->device, g->info.name, g->info.major, g->info.minor,
				 CUDA_ARCHS);
	if (r != CUDA_SUCCESS)
		return fail_open(g, r, "kernels", why);
	for (unsigned i = 0; i < CUDA_KERNELS; i++) {
		r = g->driver.module_function(&g->kernel[i], g->module, cuda_kernel_names[i]);
		/* More than 48 KiB a block only who says so gets. */
		if (r == CUDA_SUCCESS && i != CUDA_KERNEL_SCATTER)
			r = g->driver.function_set(g->kernel[i],
						   CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
						   KV_CUDA_SHARED);
		if (r != CUDA_SUCCESS)
			return fail_open(g, r, cuda_kernel_names[i], why);
	}
	return 0;
}

static int look_at_memory(struct kv_gpu *g, char *why)
{
	size_t room, all;
	CUresult r;

	g->memory = (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = g->device },
	};
	r = g->driver.granularity(&g->granule, &g->memory, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	if (r == CUDA_SUCCESS)
		r = g->driver.memory_info(&room, &all);
	if (r == CUDA_SUCCESS)
		r = g->driver.stream_create(&g->stream, CU_STREAM_NON_BLOCKING);
	if (r != CUDA_SUCCESS)
		return fail_open(g, r, "memory", why);
	g->info.memory_bytes = all;
	return 0;
}

int cuda_probe(char *ret_driver, char *why)
{
	struct cuda_driver d;
	int r = cuda_driver_find(&d, why);

	if (r < 0)
		return r;
	snprintf(ret_driver, KV_GPU_DRIVER, "CUDA %d.%d", d.found / 1000, d.found % 1000 / 10);
	cuda_driver_close(&d);
	return 0;
}

/* Launches go one by one where a driver has no graphs; all else of it works. */
static int look_at_graphs(struct kv_gpu *g, char *why)
{
	CUgraph graph;
	CUresult r = g->driver.graph_create(&graph, 0);

	if (r == CUDA_ERROR_NOT_SUPPORTED)
		snprintf(g->info.plain, sizeof(g->info.plain), "cuGraphCreate: %s",
			 cuda_driver_error(&g->driver, r));
	else if (r != CUDA_SUCCESS)
		return fail_open(g, r, "graphs", why);
	else
		g->driver.graph_destroy(graph);
	return 0;
}

int cuda_open(uint32_t index, struct kv_gpu **ret, char *why)
{
	FREE_MEMORY struct kv_gpu *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return cuda_fail(why, ENOMEM, "out of memory");
	r = cuda_driver_open(&g->driver, why);
	if (r < 0)
		return r;
	pthread_mutex_init(&g->mutex, NULL);
	r = find_device(g, index, why);
	if (r == 0)
		r = make_context(g, why);
	if (r == 0)
		r = load_kernels(g, why);
	if (r == 0)
		r = look_at_memory(g, why);
	if (r == 0)
		r = look_at_graphs(g, why);
	if (r < 0) {
		cuda_close(STEAL_PTR(g));
		return r;
	}
	nvml_open(&g->nvml, g->info.bus_id);
	*ret = STEAL_PTR(g);
	return 0;
}

/* Of a lost device everything fails, and there is nobody to tell. */
struct kv_gpu *cuda_close(struct kv_gpu *g)
{
	if (!g)
		return NULL;
	nvml_close(&g->nvml);
	if (g->context)
		g->driver.context_set(g->context);
	if (g->stream)
		g->driver.stream_destroy(g->stream);
	if (g->module)
		g->driver.module_unload(g->module);
	if (g->context) {
		g->driver.context_set(NULL);
		g->driver.context_release(g->device);
	}
	cuda_driver_close(&g->driver);
	pthread_mutex_destroy(&g->mutex);
	free(g);
	return NULL;
}

void cuda_info(const struct kv_gpu *g, struct kv_gpu_info *ret)
{
	size_t room = 0, all;

	*ret = g->info;
	if (g->driver.context_set(g->context) == CUDA_SUCCESS &&
	    g->driver.memory_info(&room, &all) == CUDA_SUCCESS)
		ret->free_bytes = room;
	else
		ret->free_bytes = UINT64_MAX;
}
