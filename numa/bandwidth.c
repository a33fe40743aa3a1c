/* SPDX-License-Identifier: Apache-2.0 */
/* The list of sources, and the machine that they look at in life. */
#include "numa/bandwidth.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct bandwidth_source *const bandwidth_sources[BANDWIDTH_SOURCES] = {
	&bandwidth_resctrl,
	&bandwidth_imc,
	&bandwidth_amd,
	&bandwidth_cmn,
};

static int perf_open(struct perf_event_attr *attr, int cpu)
{
	long fd = syscall(SYS_perf_event_open, attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

struct bandwidth_machine bandwidth_machine_here(int root, const struct topo *t)
{
	return (struct bandwidth_machine){
		.root = root, .topo = t, .perf_open = perf_open, .read = read
	};
}
