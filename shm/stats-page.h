/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page: what the daemon counts, for programs that watch it.
 *
 * A memfd that the daemon alone writes. It shows every user, so it is handed out, read-only, to
 * few (sparq-protocol(7), STATS). It is not installed: programs outside this tree take the figures
 * from sparqd-exporter(8) or from `sparqctl metrics`, whose names stay.
 *
 *   header | section CONTROL | NODE | WORKER | USER | CACHE | SEQUENCE | DEVICE
 *
 * A section is an array of blocks of one kind, a multiple of SPARQ_LINE_BYTES apart. What a step
 * counts belongs together: its writer makes `seq` odd before and even after, and a reader that sees
 * an odd number, or another one after it has copied, copies again. All words are 4 or 8 bytes and
 * written whole, so that the others, which the control thread brings up to date when it is asked
 * for the page, need no more. Counters only grow; they begin at 0 with every daemon, whose
 * generation the header has. What is not known is absent, by a flag or an id of 0, never a
 * figure of 0.
 */
#pragma once

#include <stdint.h>

#include "shm/atomic.h"
#include "shm/sparq-abi.h"

#define STATS_MAGIC 0x5354415453515053ull
#define STATS_LAYOUT 4u
#define STATS_OPS 8u       /* by SPARQ_OP_*; room for more */
#define STATS_REASONS 32u  /* by SPARQ_REASON_*; room for more */
#define STATS_POLICIES 16u /* most that are told apart; the names are in the header */
#define STATS_POLICY_NONE (STATS_POLICIES - 1) /* of entries without a cache: "none" */
#define STATS_FORMATS 16u
#define STATS_NODES 64u
#define STATS_BUCKETS 24u /* of a step's time: powers of two of a microsecond, from below 2 on */
#define STATS_ERRORS 12u  /* of audits: stats_error_bounds, and one more */
#define STATS_SOURCES 4u  /* hardware counters of a node */
#define STATS_TEXT 96u
#define STATS_DEVICES 16u
#define STATS_WHY 240u
#define STATS_UNKNOWN UINT64_MAX

enum stats_kind {
	STATS_CONTROL, /* one block: what the control thread counts */
	STATS_NODE,    /* by index in the topology */
	STATS_WORKER,
	STATS_USER,
	STATS_CACHE,    /* by slot of the catalogue */
	STATS_SEQUENCE, /* by slot of the catalogue */
	STATS_DEVICE,   /* by the number in its name */
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
	char policy[STATS_POLICIES][32]; /* "": no such policy */
	char format[STATS_FORMATS][32];  /* "" ends */
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
	int32_t cpu;  /* -1: not pinned */
	uint32_t rsv;
	uint64_t step_ns,
		step_count[STATS_BUCKETS]; /* bucket i: below 2^(i + 1) us; last: all else */
	struct stats_read op[STATS_OPS];
	uint64_t written_bytes[STATS_OPS]; /* rows as sent, into sinks and tail */
	struct stats_steps steps[STATS_OPS][STATS_POLICIES];
	uint64_t refused[STATS_REASONS]; /* entries that failed, by SPARQ_REASON_* */
	uint64_t read_node_bytes[STATS_NODES]
				[SPARQ_PLANES]; /* by where it lay: index of the node */
	uint64_t appended_rows, flushed_tiles;
	uint64_t flush_read_bytes, flush_written_bytes; /* rows into tiles, beside the steps */
	/* control thread: what the thread counts outside of steps */
	uint64_t sleeps, timeouts_that_found_work, shares_helped;
	uint64_t shares_far; /* of another node; STATS_UNKNOWN: it does not know its own */
};

struct stats_source {                     /* of a node: who counts its DRAM traffic */
	char name[16];                    /* "resctrl", "imc", "umc", "cmn"; "" ends */
	char why[STATS_TEXT];             /* why it is absent; "" when it counts */
	uint64_t read_bytes, write_bytes; /* STATS_UNKNOWN: it does not tell this one */
	uint64_t total_bytes;             /* both, where it cannot tell them apart */
};

struct stats_node { /* control thread */
	uint32_t seq;
	int32_t node; /* the kernel's number; -1: the machine has no nodes */
	uint64_t pool_bytes, pool_used_bytes, page_bytes;
	uint64_t misplaced_pages;
	uint64_t strayed_pages; /* wanted here, found no room and lie elsewhere, since the start */
	uint64_t roofline_bytes_s; /* what `sparqctl calibrate` has measured; 0: never */
	uint64_t calibrated_s;     /* CLOCK_REALTIME */
	uint32_t workers, calibrated_threads;
	char pages[32]; /* "hugetlb 2 MiB"... */
	struct stats_source source[STATS_SOURCES];
};

/* Steps that were computed again over all rows: how far o was from that, relative to it. */
struct stats_audit {
	uint64_t count, error_n, most_n; /* sum and largest, of 10^-9 */
	/* Bucket i: up to stats_error_bounds[i]; last: all else. */
	uint64_t error_count[STATS_ERRORS];
};
/* In 10^-9. */
static const uint64_t stats_error_bounds[STATS_ERRORS - 1] = {
	100000,   1000000,   2000000,   5000000,   10000000,   20000000,
	50000000, 100000000, 200000000, 500000000, 1000000000,
};

/* Why a step that was to be audited was not. */
enum stats_audit_end {
	STATS_AUDIT_BUSY,    /* another audit was under way, or the auditor rested */
	STATS_AUDIT_LARGE,   /* it takes more memory than there is for one */
	STATS_AUDIT_DROPPED, /* its sequence was dropped meanwhile */
	STATS_AUDIT_ODD,     /* o is not finite */
	STATS_AUDITS
};

enum stats_used {
	STATS_FREE,
	STATS_USED,
	STATS_GONE /* has nothing here any more; what it has counted stays as long as there is room
		    */
};

struct stats_user { /* control thread */
	uint32_t seq;
	uint32_t uid;
	uint32_t used; /* enum stats_used */
	uint32_t sessions;
	struct stats_read read; /* workers, one word at a time, like the two that follow */
	uint64_t steps, written_bytes;
	uint64_t queues, caches, sequences;
	uint64_t charged_bytes, quota_bytes, spilled_bytes, evicted_bytes, evicted_sequences;
};

struct stats_cache { /* control thread */
	uint32_t seq;
	uint32_t uid;
	uint64_t id; /* 0: a free slot */
	char name[64], k_format[128], v_format[128], policy[32];
	uint64_t sequences, rows, bytes, budget_bytes, evicted_bytes;
	struct stats_audit audit;
	uint64_t audits_beyond; /* errors above its audit_max_error */
};

#define STATS_SEQUENCE_PARKED (1u << 0)
#define STATS_SEQUENCE_PINNED (1u << 1)
#define STATS_SEQUENCE_PREFIX (1u << 2)
#define STATS_SEQUENCE_SPILLED (1u << 3)
struct stats_sequence {
	uint32_t seq;
	uint32_t uid;
	uint64_t id;            /* 0: a free slot */
	struct stats_read read; /* whoever holds it, like the two that follow */
	uint64_t steps, written_bytes;
	uint64_t cache; /* control thread, from here on */
	uint32_t flags; /* STATS_SEQUENCE_* */
	uint32_t rows;  /* of the first layer */
	uint64_t bytes; /* charged */
	char name[64];
};

enum stats_device_state { /* as a device's own */
			  STATS_DEVICE_CLOSED,
			  STATS_DEVICE_OPENING,
			  STATS_DEVICE_OPEN,
			  STATS_DEVICE_FAILED,
			  STATS_DEVICE_LOST,
			  STATS_DEVICE_STATES
};

/* Why processors computed a step of a cache on a device. */
enum stats_beside { STATS_BESIDE_KERNEL, STATS_BESIDE_MEMORY, STATS_BESIDE_LOST, STATS_BESIDES };

struct stats_device { /* control thread; a GPU that a cache has asked for */
	uint32_t seq;
	uint32_t used;  /* enum stats_used */
	uint32_t state; /* enum stats_device_state; all that follows is of an open or a lost one */
	uint32_t rsv;
	char name[16], product[64], bus_id[32], driver[32];
	char why[STATS_WHY];                /* it failed, or is lost */
	char busy_why[STATS_WHY];           /* busy_parts is not known */
	uint64_t memory_bytes, free_bytes;  /* free: STATS_UNKNOWN, it was not looked at of late */
	uint64_t mapped_bytes, limit_bytes; /* of copies of rows */
	uint64_t busy_parts;                /* its memory, of late, of 10^9; STATS_UNKNOWN */
	uint64_t batches, steps, failed;    /* steps: of a layer of a sequence */
	uint64_t copied_bytes, evicted_bytes;
	uint64_t kernel_ns;                /* by its own clock */
	uint64_t read_bytes[SPARQ_PLANES]; /* of its memory */
	/* In its place, whatever its state: steps, and what they have read of the host's memory. */
	uint64_t beside_steps[STATS_BESIDES], beside_bytes[SPARQ_PLANES];
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
	uint32_t sessions, workers, rsv; /* sessions: who watches the figures is none */
	uint64_t connections;
	uint64_t sequences, parked, prefixes; /* the last two STATS_UNKNOWN: see rows */
	uint64_t pool_bytes, pool_used_bytes, segment_bytes, catalogue_bytes;
	uint64_t shortfall_bytes; /* wanted in huge pages, and not in them */
	uint64_t faults[STATS_FAULTS], refused_sessions;
	struct stats_sum evicted[8]; /* by the limit that room was made for (limit_names) */
	struct stats_sum spilled, spilled_out, spilled_in; /* now; since the start */
	uint64_t recovered_sequences, recovered_rows, recovered_dropped, recovery_ns;
	uint64_t queue_depth; /* entries published and not yet taken, over all rings */
	/* Of the first layer, by its format of K. STATS_UNKNOWN until all were looked at once. */
	uint64_t rows[STATS_FORMATS];
	struct stats_audit audit[STATS_POLICIES];
	uint64_t audits_left_out[STATS_AUDITS], audits_beyond;
	uint64_t moved_pages, moved_bytes; /* of KV, from node to node */
	uint64_t away_pages;      /* that lie elsewhere than their placement says; STATS_UNKNOWN */
	uint64_t unstriped_pages; /* had to lie on one node, since the start */
	uint64_t updated_ns;      /* CLOCK_MONOTONIC: when all this was brought up to date */
};

_Static_assert(sizeof(struct stats_control) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_node) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_worker) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_user) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_cache) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_device) % 8 == 0, "words");
_Static_assert(sizeof(struct stats_sequence) == 192, "the counters lie in its first lines");

/* ---- a group of words that belong together --------------------------------------------- */

/* The writer: odd is visible before any word of the group, even after all of them. */
static inline void stats_begin(uint32_t *seq)
{
	store_relaxed(seq, *seq + 1);
}

/* Each word of a group. Whoever loads it with load_acquire sees the odd number as well. */
#define stats_set(p, v) store_release((p), (v))
#define stats_add(p, v) store_release((p), *(p) + (v))

static inline void stats_end(uint32_t *seq)
{
	store_release(seq, *seq + 1);
}
