/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `sparq-bench fork` share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/sparq-abi.h"
#include "tests/bench/option.h"

#define FORK_COLD_BYTES ((size_t)64 << 20)

struct fork_options {
	const char *format, *daemon, *options;
	uint32_t rows, layers, kv_heads, dim, rounds, mebibytes;
	bool through_daemon, json;
};

/* Of one call, in us; `cold`: after other memory went through the caches. */
struct fork_figure {
	double median, least, cold;
};

struct fork_figures {
	struct fork_figure records; /* a fork of no rows */
	struct fork_figure sealed;  /* of the rows in tiles */
	struct fork_figure all;     /* and of the tail */
	struct fork_figure drop;
	struct fork_figure draft;  /* a truncate by a row, in the tail */
	struct fork_figure below;  /* a truncate to the middle of the last sealed tile */
	struct fork_figure append; /* the first row of all layers after a fork: pages are copied */
	struct fork_figure prefix;  /* a sequence that begins with what its token ids name */
	struct fork_figure remote; /* a fork by a control call; least 0: not measured */
};

/* The cache that is asked for. */
struct sparq_msg_cache_create fork_request(const struct fork_options *o);

/* In this process, on a store of the daemon's without a daemon: rows have no contents. -errno. */
int fork_here(const struct fork_options *o, struct fork_figures *ret);
/* By a client of a daemon, with rows that were appended. -errno; it said why. */
int fork_remote(const struct fork_options *o, struct fork_figure *ret);
