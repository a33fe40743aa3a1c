/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver API, found when it is asked for: libcuda.so.1 comes with the driver,
 * not with us, so that nothing of it is linked.
 */
#pragma once

#include <cuda.h>
#include <stdbool.h>

#define CUDA_DRIVER_LIBRARY "libcuda.so.1"
/* Of one major version, kernels of a later minor one run on drivers of an earlier one. */
#define CUDA_DRIVER_LEAST (CUDA_VERSION / 1000 * 1000)

/* Our name, and theirs: cuda.h makes the latter the symbol of the version that it describes. */
#define CUDA_DRIVER_FUNCTIONS(X)                                                                   \
	X(init, cuInit)                                                                            \
	X(version, cuDriverGetVersion)                                                             \
	X(error_name, cuGetErrorName)                                                              \
	X(error_text, cuGetErrorString)                                                            \
	X(device_count, cuDeviceGetCount)                                                          \
	X(device_get, cuDeviceGet)                                                                 \
	X(device_name, cuDeviceGetName)                                                            \
	X(device_attribute, cuDeviceGetAttribute)                                                  \
	X(device_bus_id, cuDeviceGetPCIBusId)                                                      \
	X(context_retain, cuDevicePrimaryCtxRetain)                                                \
	X(context_release, cuDevicePrimaryCtxRelease)                                              \
	X(context_set, cuCtxSetCurrent)                                                            \
	X(module_load, cuModuleLoadData)                                                           \
	X(module_unload, cuModuleUnload)                                                           \
	X(module_function, cuModuleGetFunction)                                                    \
	X(function_set, cuFuncSetAttribute)                                                        \
	X(memory_info, cuMemGetInfo)                                                               \
	X(granularity, cuMemGetAllocationGranularity)                                              \
	X(address_reserve, cuMemAddressReserve)                                                    \
	X(address_free, cuMemAddressFree)                                                          \
	X(create, cuMemCreate)                                                                     \
	X(release, cuMemRelease)                                                                   \
	X(map, cuMemMap)                                                                           \
	X(unmap, cuMemUnmap)                                                                       \
	X(set_access, cuMemSetAccess)                                                              \
	X(alloc, cuMemAlloc)                                                                       \
	X(free, cuMemFree)                                                                         \
	X(host_alloc, cuMemHostAlloc)                                                              \
	X(host_free, cuMemFreeHost)                                                                \
	X(host_register, cuMemHostRegister)                                                        \
	X(host_unregister, cuMemHostUnregister)                                                    \
	X(fill, cuMemsetD8Async)                                                                   \
	X(copy_in, cuMemcpyHtoDAsync)                                                              \
	X(copy_out, cuMemcpyDtoHAsync)                                                             \
	X(copy_within, cuMemcpyDtoDAsync)                                                          \
	X(stream_create, cuStreamCreate)                                                           \
	X(stream_destroy, cuStreamDestroy)                                                         \
	X(stream_wait, cuStreamSynchronize)                                                        \
	X(event_create, cuEventCreate)                                                             \
	X(event_destroy, cuEventDestroy)                                                           \
	X(event_record, cuEventRecord)                                                             \
	X(event_query, cuEventQuery)                                                               \
	X(event_elapsed, cuEventElapsedTime)                                                       \
	X(launch, cuLaunchKernel)                                                                  \
	X(graph_create, cuGraphCreate)                                                             \
	X(graph_destroy, cuGraphDestroy)                                                           \
	X(graph_add_kernel, cuGraphAddKernelNode)                                                  \
	X(graph_instantiate, cuGraphInstantiate)                                                   \
	X(graph_set_kernel, cuGraphExecKernelNodeSetParams)                                        \
	X(graph_launch, cuGraphLaunch)                                                             \
	X(graph_exec_destroy, cuGraphExecDestroy)

struct cuda_driver {
	void *library;
	bool runs; /* it was initialised */
	int found; /* version, as cuDriverGetVersion says it: 13000 is 13.0 */
#define X(name, symbol) __typeof__(symbol) *name;
	CUDA_DRIVER_FUNCTIONS(X)
#undef X
};
#define CUDA_DRIVER_NULL ((struct cuda_driver){ 0 })

/* Loads it and asks its version: no device is looked for. Errors as of the next. */
int cuda_driver_find(struct cuda_driver *ret, char *why);
/* Loads and initialises it. -ENODEV: there is none, or it finds no device; -ENOTSUP: too old;
 * `why` (KV_GPU_WHY bytes) says what was found and what to do. */
int cuda_driver_open(struct cuda_driver *ret, char *why);
void cuda_driver_close(struct cuda_driver *d);
/* Name of an error, for sentences. */
const char *cuda_driver_error(const struct cuda_driver *d, CUresult error);
