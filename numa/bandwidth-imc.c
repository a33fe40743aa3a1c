/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory controllers of Intel: uncore_imc_* of servers count CAS commands, 64 bytes each; those of
 * clients, and the free running ones, count data. Where a machine has both kinds, the first.
 */
#include <errno.h>
#include <stdio.h>

#include "numa/bandwidth-perf.h"
#include "shm/base.h"

static const struct perf_event cas[] = {
	{ PERF_READ, "cas_count_read", NULL, 64 },
	{ PERF_WRITE, "cas_count_write", NULL, 64 },
	{ PERF_READ, "data_reads", NULL, 64 },
	{ PERF_WRITE, "data_writes", NULL, 64 },
};
static const struct perf_event running[] = {
	{ PERF_READ, "data_read", NULL, 64 },
	{ PERF_WRITE, "data_write", NULL, 64 },
};
static const struct perf_pmus controllers = { "uncore_imc", "free_running", cas, ARRAY_SIZE(cas) };
static const struct perf_pmus free_running = { "uncore_imc_free_running", NULL, running,
					       ARRAY_SIZE(running) };

static const struct perf_pmus *choose(const struct bandwidth_machine *m)
{
	return perf_count_pmus(m, &controllers) > 0 ? &controllers : &free_running;
}

static int probe(const struct bandwidth_machine *m, char *why)
{
	if (perf_count_pmus(m, choose(m)) > 0)
		return 0;
	snprintf(why, BANDWIDTH_WHY_BYTES, "no uncore_imc: not of Intel, or a virtual machine");
	return -ENODEV;
}

static int open_imc(const struct bandwidth_machine *m, unsigned node, struct bandwidth **ret,
		    char *why)
{
	return perf_open_node(m, choose(m), node, ret, why);
}

const struct bandwidth_source bandwidth_imc = {
	.name = "imc",
	.probe = probe,
	.open = open_imc,
	.read = perf_read_node,
	.close = perf_close_node,
};
