/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arm's mesh interconnects: arm_cmn_* count the requests that the home nodes, which have the
 * system cache, send to memory controllers; 64 bytes each, reads and writes together.
 */
#include <errno.h>
#include <stdio.h>

#include "numa/bandwidth-perf.h"
#include "shm/base.h"

static const struct perf_event events[] = {
	{ PERF_TOTAL, "hnf_mc_reqs", NULL, 64 },     /* CMN-600 to CMN-700 */
	{ PERF_TOTAL, "hns_mc_reqs_all", NULL, 64 }, /* CMN S3 */
};
static const struct perf_pmus meshes = { "arm_cmn_", NULL, events, ARRAY_SIZE(events) };

static int probe(const struct bandwidth_machine *m, char *why)
{
	if (perf_count_pmus(m, &meshes) > 0)
		return 0;
	snprintf(why, BANDWIDTH_WHY_BYTES,
		 "no arm_cmn: not an Arm mesh, no driver for it, or a virtual machine");
	return -ENODEV;
}

static int open_cmn(const struct bandwidth_machine *m, unsigned node, struct bandwidth **ret,
		    char *why)
{
	return perf_open_node(m, &meshes, node, ret, why);
}

const struct bandwidth_source bandwidth_cmn = {
	.name = "cmn",
	.probe = probe,
	.open = open_cmn,
	.read = perf_read_node,
	.close = perf_close_node,
};
