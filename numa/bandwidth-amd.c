/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AMD: amd_umc_* (Zen 4 and later, Linux 6.7) count CAS commands of a memory controller, 64 bytes
 * each, reads and writes apart; amd_df of Zen to Zen 3 counts what a memory channel of the data
 * fabric moves, both together. The kernel names neither's events, so they are spelt out, as AMD's
 * Processor Programming References give them.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "numa/bandwidth-perf.h"
#include "numa/sysfs.h"
#include "shm/base.h"

static const struct perf_event umc_events[] = {
	{ PERF_READ, "umc_cas_cmd.rd", "event=0x0a,rdwrmask=0x1", 64 },
	{ PERF_WRITE, "umc_cas_cmd.wr", "event=0x0a,rdwrmask=0x2", 64 },
};
#define CHANNEL(n, event)                                                                          \
	{                                                                                          \
		PERF_TOTAL, "dram_channel_data_controller_" #n, "event=" #event ",umask=0x38", 64  \
	}
static const struct perf_event df_events[] = {
	CHANNEL(0, 0x07),  CHANNEL(1, 0x47),  CHANNEL(2, 0x87),  CHANNEL(3, 0xc7),
	CHANNEL(4, 0x107), CHANNEL(5, 0x147), CHANNEL(6, 0x187), CHANNEL(7, 0x1c7),
};
static const struct perf_pmus umc = { "amd_umc_", NULL, umc_events, ARRAY_SIZE(umc_events) };
static const struct perf_pmus df = { "amd_df", NULL, df_events, ARRAY_SIZE(df_events) };

/* Events of the data fabric have other numbers from Zen 4 on, and its kernels a wider umask: a
 * count of something else is worse than none. */
static bool has_old_fabric(const struct bandwidth_machine *m)
{
	char umask[64];

	return sysfs_text(m->root, "sys/bus/event_source/devices/amd_df/format/umask", umask,
			  sizeof(umask)) == 0 &&
	       !strcmp(umask, "config:8-15\n");
}

static const struct perf_pmus *choose(const struct bandwidth_machine *m)
{
	return perf_count_pmus(m, &umc) > 0 ? &umc : &df;
}

static int probe(const struct bandwidth_machine *m, char *why)
{
	if (perf_count_pmus(m, &umc) > 0 || has_old_fabric(m))
		return 0;
	if (perf_count_pmus(m, &df) > 0)
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "no amd_umc: from Zen 4 on it takes Linux 6.7 to count");
	else
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "no amd_umc or amd_df: not of AMD, or a virtual machine");
	return -ENODEV;
}

static int open_amd(const struct bandwidth_machine *m, unsigned node, struct bandwidth **ret,
		    char *why)
{
	return perf_open_node(m, choose(m), node, ret, why);
}

const struct bandwidth_source bandwidth_amd = {
	.name = "umc",
	.probe = probe,
	.open = open_amd,
	.read = perf_read_node,
	.close = perf_close_node,
};
