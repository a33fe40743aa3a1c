/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a node's memory can be read: as many pinned threads as the node has workers stream
 * through its pool for a fifth of a second, node after node, in a thread of its own. It is what a
 * step can be compared with. Whatever else runs meanwhile takes its part of the bandwidth, so it is
 * for an idle daemon.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numa/topo.h"

#define CALIBRATE_MS 200u /* of each node */
#define CALIBRATE_MAX_THREADS 64u
#define CALIBRATE_WHY_BYTES 160

struct calibrate_node {     /* what is to be measured */
	const void *memory; /* of that node; only read */
	size_t bytes;
	size_t cache_bytes; /* that lie before it; 0: not known */
	unsigned n_threads;
	int cpu[CALIBRATE_MAX_THREADS]; /* -1: not pinned */
};

struct calibrated {       /* what came of it */
	uint64_t bytes_s; /* read in a second; 0: `why` says why not */
	uint64_t taken_s; /* CLOCK_REALTIME */
	unsigned n_threads;
	char why[CALIBRATE_WHY_BYTES];
};

struct calibration;

/* Nodes are copied; their memory must stay until calibrate_free. -ENOMEM, -errno. */
int calibrate_start(const struct calibrate_node *node, unsigned n, struct calibration **ret);
/* Cuts short what is under way. NULL. */
struct calibration *calibrate_free(struct calibration *c);
/* Nodes that were measured so far, of how many; all of NULL's are. */
unsigned calibrate_done(const struct calibration *c, unsigned *ret_of);
static inline bool calibrate_runs(const struct calibration *c)
{
	unsigned of;

	return calibrate_done(c, &of) < of;
}
/* False: that node was not measured yet. */
bool calibrate_get(const struct calibration *c, unsigned node, struct calibrated *ret);

/* Last-level caches of these CPUs together, each once; 0: the machine does not tell. `root` is "/"
 * in life. */
size_t calibrate_cache_bytes(const char *root, const int *cpu, unsigned n);
