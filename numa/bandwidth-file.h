/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hardware counts, from the program that may ask it to those that may not: sparqd-bandwidth(8)
 * puts a file in place of the one before, whole, once a second; sparqd reads it. On one machine
 * only, and of one build: the layout is checked and not promised.
 */
#pragma once

#include "numa/bandwidth.h"

#define BANDWIDTH_FILE "/run/sparqd-bandwidth/counters"
#define BANDWIDTH_EVERY_S 1u
#define BANDWIDTH_STALE_S 5u /* its writer has ended, or hangs */

struct bandwidth_entry {
	char name[16];
	char why[BANDWIDTH_WHY_BYTES]; /* "": it counts */
	struct bandwidth_count count;
};

struct bandwidth_file {
	uint64_t magic;
	uint32_t layout, n_nodes;
	uint64_t written_ns; /* CLOCK_MONOTONIC */
	struct {
		int32_t node; /* the kernel's number */
		uint32_t rsv;
		struct bandwidth_entry source[BANDWIDTH_SOURCES];
	} node[TOPO_MAX_NODES];
};

/* magic, layout; the rest is the caller's, and sources have their names. */
void bandwidth_file_init(struct bandwidth_file *f, const struct topo *t);
/* In place of the one that is there: who reads sees one or the other. -errno. */
int bandwidth_file_write(const char *path, const struct bandwidth_file *f);
/* Checked whole. -errno, -EPROTO, -ESTALE if its writer is away, with `why` (BANDWIDTH_WHY_BYTES):
 * what is missing and how it can be had. */
int bandwidth_file_read(const char *path, uint64_t now_ns, struct bandwidth_file *ret, char *why);
