/* SPDX-License-Identifier: Apache-2.0 */
/* How busy the memory is: see nvml.h. */
#include "kernels/cuda/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/gpu.h"

/* Symbols of version 2 are those that every driver we run on has. */
struct start {
	int (*init)(void);
	int (*by_bus_id)(const char *bus_id, void **ret);
};

static void *find(struct nvml *n, const char *symbol)
{
	void *at = dlsym(n->library, symbol);

	if (!at && !n->why[0])
		snprintf(n->why, sizeof(n->why), NVML_LIBRARY " has no %s", symbol);
	return at;
}

static void start(struct nvml *n, const char *bus_id)
{
	struct start s;
	int r;

	*(void **)&s.init = find(n, "nvmlInit_v2");
	*(void **)&s.by_bus_id = find(n, "nvmlDeviceGetHandleByPciBusId_v2");
	*(void **)&n->utilisation = find(n, "nvmlDeviceGetUtilizationRates");
	*(void **)&n->shutdown = find(n, "nvmlShutdown");
	if (n->why[0])
		return;
	r = s.init();
	if (r) {
		n->shutdown = NULL;
		snprintf(n->why, sizeof(n->why), NVML_LIBRARY ": nvmlInit: error %d", r);
		return;
	}
	r = s.by_bus_id(bus_id, &n->device);
	if (r)
		snprintf(n->why, sizeof(n->why), NVML_LIBRARY ": device %s: error %d", bus_id, r);
}

void nvml_open(struct nvml *ret, const char *bus_id)
{
	*ret = (struct nvml){ .library = dlopen(NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL) };
	if (ret->library)
		start(ret, bus_id);
	else
		snprintf(ret->why, sizeof(ret->why), "%s", dlerror());
}

void nvml_close(struct nvml *n)
{
	if (n->library && n->shutdown)
		n->shutdown();
	if (n->library)
		dlclose(n->library);
	*n = (struct nvml){ 0 };
}

int nvml_memory_busy(const struct nvml *n, float *ret, char *why)
{
	unsigned percent[2];
	int r;

	if (!n->library || n->why[0]) {
		snprintf(why, KV_GPU_WHY, "%s", n->why);
		return -EOPNOTSUPP;
	}
	r = n->utilisation(n->device, percent);
	if (r) {
		snprintf(why, KV_GPU_WHY, NVML_LIBRARY ": nvmlDeviceGetUtilizationRates: error %d",
			 r);
		return -EOPNOTSUPP;
	}
	*ret = (float)percent[1] / 100;
	return 0;
}
