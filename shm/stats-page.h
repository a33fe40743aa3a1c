/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page: what the daemon counts, for programs that watch it.
 *
 * A memfd that the daemon alone writes. It shows every user, so it is handed out, read-only, to
 * root, to members of sparq-admin and to the user sparqd-exporter only (SPARQ_MSG_STATS). It is not
 * installed: programs outside this tree take the figures from sparqd-exporter(8) or from
 * `sparqctl metrics`, whose names stay.
 *
 *   header | section CONTROL | NODE | WORKER | USER | CACHE | SEQUENCE
 *
 * A section is an array of blocks of one kind, a multiple of SPARQ_LINE_BYTES apart. A block has
 * one writer at a time, which makes `seq` odd before it writes and even after; a reader that sees
 * an odd number, or another one after it has copied, copies again. Counters only grow; they begin
 * at 0 with every daemon, whose generation the header has. What is not known is absent, by a flag
 * or an id of 0, never a figure of 0.
 */
#pragma once

#include <stdint.h>

#include "shm/sparq-abi.h"

#define STATS_MAGIC 0x5354415453515053ull
#define STATS_LAYOUT 1u
#define STATS_POLICIES 16u /* most that are told apart; the names are in the header */
#define STATS_FORMATS 16u
#define STATS_BUCKETS 24u /* of a step's time: powers of two of a microsecond, from below 2 on */
#define STATS_SOURCES 4u  /* hardware counters of a node */
#define STATS_TEXT 96u

enum stats_kind {
	STATS_CONTROL, /* one block: what the control thread counts */
	STATS_NODE,    /* by index in the topology */
	STATS_WORKER,
	STATS_USER,
	STATS_CACHE,    /* by slot of the catalogue */
	STATS_SEQUENCE, /* by slot of the catalogue */
	STATS_KINDS
};

struct stats_section {
	uint64_t at; /* byte offset of the first block */
	uint32_t n, stride;
};

struct stats_header { /* written once, before the page is handed out */
	uint64_t magic;
	uint32_t layout, header_bytes;
	uint64_t bytes;
	uint32_t generation;
	int32_t pid;
	uint64_t started_s; /* CLOCK_REALTIME */
	char version[32], isa[32];
	char policy[STATS_POLICIES][32]; /* "" ends */
	char format[STATS_FORMATS][32];
	struct stats_section section[STATS_KINDS];
};

/* What was read of the pool, by who counted it: `bytes` are SPARQ_PLANE_*. */
struct stats_read {
	uint64_t bytes[SPARQ_PLANES];
	uint64_t dense_bytes; /* what dense attention over f16 would have read */
};

struct stats_steps { /* of one operation and policy */
	uint64_t done, failed;
};

struct stats_worker { /* its thread writes it */
	uint32_t seq;
	int32_t node; /* the kernel's number; -1: it runs anywhere */
	int32_t cpu;
	uint32_t rsv;
	struct stats_steps steps[SPARQ_OP_COUNT][STATS_POLICIES];
	struct stats_read op[SPARQ_OP_COUNT];
	uint64_t step_ns, step_count[STATS_BUCKETS];
	uint64_t read_node_bytes[64][SPARQ_PLANES]; /* by where it lay: index of the node */
	uint64_t refused[SPARQ_REASONS];            /* entries that failed, by SPARQ_REASON_* */
	uint64_t sleeps, timeouts_that_found_work, shares_helped,
		shares_far; /* far: of another node */
	uint64_t appended_rows, flushed_tiles;
};

struct stats_source {                     /* of a node: who counts its DRAM traffic */
	char name[16];                    /* "resctrl", "imc", "umc", "cmn"; "" ends */
	char why[STATS_TEXT];             /* why it is absent; "" when it counts */
	uint64_t read_bytes, write_bytes; /* UINT64_MAX: it does not tell this one */
};

struct stats_node { /* control thread */
	uint32_t seq;
	int32_t node; /* the kernel's number */
	uint64_t pool_bytes, pool_used_bytes, page_bytes;
	uint64_t misplaced_pages, shortfall_bytes;
	uint64_t roofline_bytes_s; /* what `sparqctl calibrate` has measured; 0: never */
	uint64_t calibrated_s;     /* CLOCK_REALTIME */
	char pages[32];            /* "hugetlb 2 MiB"... */
	struct stats_source source[STATS_SOURCES];
};

struct stats_user { /* control thread, but for `read` and `steps`: workers, atomically */
	uint32_t seq;
	uint32_t uid;
	uint32_t used; /* 0: a free slot */
	uint32_t sessions, queues, caches, sequences, rsv;
	uint64_t charged_bytes, quota_bytes, spilled_bytes, evicted_bytes, evicted_sequences;
	uint64_t steps;
	struct stats_read read;
};

struct stats_cache { /* control thread */
	uint32_t seq;
	uint32_t uid;
	uint64_t id; /* 0: a free slot */
	char name[64], k_format[32], v_format[32], policy[32];
	uint64_t sequences, rows, bytes, budget_bytes, evicted_bytes;
};

#define STATS_SEQUENCE_PARKED (1u << 0)
#define STATS_SEQUENCE_PINNED (1u << 1)
#define STATS_SEQUENCE_PREFIX (1u << 2)
#define STATS_SEQUENCE_SPILLED (1u << 3)
struct stats_sequence { /* whoever holds it */
	uint32_t seq;
	uint32_t uid;
	uint64_t id; /* 0: a free slot */
	uint64_t cache;
	char name[64];
	uint32_t flags; /* STATS_SEQUENCE_* */
	uint32_t rows;  /* the most over the layers */
	uint64_t bytes; /* charged */
	uint64_t steps;
	struct stats_read read;
};

/* Why a connection was closed: sparq_protocol_errors_total. */
enum stats_fault {
	STATS_FAULT_MESSAGE, /* of an impossible type, size or order */
	STATS_FAULT_RING,    /* an impossible ring index */
	STATS_FAULT_MEMORY,  /* it took memory away that it had given */
	STATS_FAULTS
};

struct stats_sum {
	uint64_t sequences, bytes;
};

struct stats_control { /* control thread */
	uint32_t seq;
	uint32_t sessions, connections, workers;
	uint64_t sequences, parked, prefixes;
	uint64_t pool_bytes, pool_used_bytes, segment_bytes, catalogue_bytes;
	uint64_t faults[STATS_FAULTS], refused_sessions;
	struct stats_sum evicted[8]; /* by the limit that room was made for (limit_names) */
	struct stats_sum spilled, spilled_out, spilled_in; /* now; since the start */
	uint64_t recovered_sequences, recovered_rows, recovered_dropped, recovery_ns;
	uint64_t queue_depth; /* entries published and not yet taken, over all rings, when last seen
			       */
	uint64_t rows[STATS_FORMATS]; /* of K, by format of its cache's first layer */
	uint64_t updated_ns;          /* CLOCK_MONOTONIC */
};
