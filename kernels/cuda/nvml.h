/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the management library that comes with the driver, the one figure that the
 * driver API does not have: for what part of the time the device's memory was
 * read or written. It is an average over a period of the driver's choice, up to a second.
 */
#pragma once

#define NVML_LIBRARY "libnvidia-ml.so.1"

struct nvml { /* of one device */
	void *library;
	void *device;
	int (*utilisation)(void *device, unsigned ret[2]); /* processors, memory: percent */
	int (*shutdown)(void);
	char why[160]; /* what it lacks; "": nothing */
};

/* Never fails: what is not there is said when it is asked. */
void nvml_open(struct nvml *ret, const char *bus_id);
void nvml_close(struct nvml *n);
/* 0..1. -EOPNOTSUPP with `why` (KV_GPU_WHY bytes). Any thread. */
int nvml_memory_busy(const struct nvml *n, float *ret, char *why);
