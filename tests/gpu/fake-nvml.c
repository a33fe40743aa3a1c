/* SPDX-License-Identifier: Apache-2.0 */
/* A libnvidia-ml.so.1 for tests: FAKE_NVML is the percentage that it says, or "fail". */
#include <stdlib.h>
#include <string.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret);
int nvmlDeviceGetUtilizationRates(void *device, unsigned ret[2]);

int nvmlInit_v2(void)
{
	return 0;
}

int nvmlShutdown(void)
{
	return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret)
{
	*ret = NULL;
	return strncmp(bus_id, "0000:a", 6) ? 2 : 0;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned ret[2])
{
	const char *knob = getenv("FAKE_NVML");

	if (knob && !strcmp(knob, "fail"))
		return 3; /* not supported */
	ret[0] = 99;
	ret[1] = knob ? (unsigned)atoi(knob) : 0;
	return 0;
}
