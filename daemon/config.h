/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqd.conf(5): "key = value" lines, # comments. One table drives parser,
 * defaults, --dump-config and the check that the page names each key.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/spread.h"

#define CONFIG_PATH_MAX 108
#define CONFIG_TEXT_MAX 256
#define CONFIG_WHY_BYTES 240 /* of every `why` below */

/* Of which reserved pages the pool is wanted. Not 0: of some. */
enum huge_pages { HUGE_NO, HUGE_YES, HUGE_2M, HUGE_1G };

struct config {
	char socket[CONFIG_PATH_MAX];  /* sessions */
	char control[CONFIG_PATH_MAX]; /* varlink */
	uint64_t pool_bytes;           /* over all nodes; 0: a quarter of memory */
	enum huge_pages huge_pages;    /* HUGE_YES: the largest that lie ready */
	char reserve_huge_pages[CONFIG_TEXT_MAX]; /* by sparqd-hugepages(8) */
	enum spread placement;         /* of caches that do not say */
	uint32_t pool_parts;           /* of each node */
	char numa_nodes[CONFIG_TEXT_MAX]; /* that the pool has parts of; "": those with CPUs */
	bool rebalance;                /* pages are moved between nodes */
	uint64_t rebalance_rate;       /* bytes of them in a second */
	uint32_t rebalance_full;       /* percent of a node */
	uint64_t catalogue_bytes;
	uint32_t workers; /* 0: one per usable CPU */
	bool pin_workers;
	char isa[16];     /* "" or a limit for the kernels */
	uint32_t spin_us; /* 0: measured at start */
	uint32_t max_caches, max_sequences, max_rows;
	uint32_t max_sessions; /* of the daemon */
	uint64_t user_bytes;   /* quota per uid; 0: the pool */
	uint32_t user_sessions, user_queues, user_caches, user_sequences;
	uint32_t user_session_rate; /* new sessions a second, per uid; 0: no limit */
	uint64_t arena_bytes_max;   /* of one session */
	uint64_t segment_bytes;     /* of all sessions; 0: as many as the pool has */
	char spill_dir[CONFIG_PATH_MAX]; /* "": nothing is spilled */
	uint64_t spill_bytes;            /* of that directory; 0: no limit */
	uint64_t user_spill_bytes;       /* of it per uid; 0: all of it */
	uint32_t spill_idle_s;           /* 0: nothing is spilled ahead of need */
	uint32_t spill_depth;            /* pieces under way, each way */
	uint32_t audit;             /* one step in so many; 0: none */
	char cuda_module[CONFIG_PATH_MAX];
	uint64_t device_bytes;      /* copies of rows, of each device; 0: of what is free */
	uint64_t user_device_bytes; /* rows of caches on devices; 0: no limit but user_bytes */
	uint32_t timeout_us;        /* default of an entry, 0: none */
	uint32_t reattach_s;        /* of what a restart found and nobody took up */
	uint32_t keeper_watchdog_s; /* sparqd --keeper; 0: none */
	int log_level;
};

void config_defaults(struct config *c);
/* Text of a file: -EINVAL with "FILE:LINE: ..." in `why`, naming key, value and what is
 * allowed. Unknown keys are errors. Pure; fuzzed. */
int config_parse(struct config *c, const char *file, const char *text, size_t n, char *why);
int config_read(struct config *c, const char *path, char *why);
/* One key from the command line: "key=value". */
int config_set(struct config *c, const char *assignment, char *why);
/* All keys with their values and what they are for, as a file; how many bytes it needs. */
size_t config_dump(const struct config *c, char *ret, size_t n);
/* Takes over the keys that a reload may change. -EINVAL, and nothing taken over, if another key
 * differs: `why` names it. */
int config_reload(struct config *running, const struct config *fresh, char *why);
/* Calls for each key whose value is another one, with both as texts. */
void config_compare(const struct config *before, const struct config *after,
		    void (*changed)(void *arg, const char *key, const char *before,
				    const char *after),
		    void *arg);
