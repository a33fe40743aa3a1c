/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic between a node's memory and its processors, counted by hardware. What can count it
 * differs from machine to machine, and most virtual machines have nothing: each source is a file of
 * its own, and one that is not there says why. Nothing here ever says 0 for what it does not know.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "numa/topo.h"

#define BANDWIDTH_SOURCES 4u
#define BANDWIDTH_WHY_BYTES 96
#define BANDWIDTH_UNKNOWN UINT64_MAX

struct perf_event_attr;

/* The machine, or a recorded one in tests. */
struct bandwidth_machine {
	int root; /* directory: "/" in life */
	const struct topo *topo;
	int (*perf_open)(struct perf_event_attr *attr, int cpu); /* a descriptor, -errno */
	ssize_t (*read)(int fd, void *to, size_t n);
};

struct bandwidth_count { /* bytes since it was opened; BANDWIDTH_UNKNOWN: it does not tell this */
	uint64_t read_bytes, write_bytes;
	uint64_t total_bytes; /* both, where it cannot tell them apart */
};
#define BANDWIDTH_NOTHING                                                                          \
	((struct bandwidth_count){ BANDWIDTH_UNKNOWN, BANDWIDTH_UNKNOWN, BANDWIDTH_UNKNOWN })

struct bandwidth; /* a source that was opened for a node */

/* Every `why` has BANDWIDTH_WHY_BYTES and says what is missing and, if it can be had, how. */
struct bandwidth_source {
	const char *name;
	/* 0: the machine has it. -ENODEV, -errno. */
	int (*probe)(const struct bandwidth_machine *m, char *why);
	int (*open)(const struct bandwidth_machine *m, unsigned node, struct bandwidth **ret,
		    char *why);
	int (*read)(const struct bandwidth_machine *m, struct bandwidth *b,
		    struct bandwidth_count *ret, char *why);
	void (*close)(struct bandwidth *b);
};

extern const struct bandwidth_source bandwidth_resctrl, bandwidth_imc, bandwidth_amd, bandwidth_cmn;
extern const struct bandwidth_source *const bandwidth_sources[BANDWIDTH_SOURCES];

/* The running machine; `root` is a descriptor of "/". */
struct bandwidth_machine bandwidth_machine_here(int root, const struct topo *t);
