/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire: every byte that crosses between a client and sparqd.
 *
 * sparq-protocol(7) is the norm; where this file differs from it, this file is
 * wrong. Everything is little endian, fixed width and free of pointers. A
 * field that an operation does not use is zero. What must be seen before what
 * is said at each word that both sides touch; only shm/atomic.h accesses them.
 *
 * Installed. Compiles alone as C99, C11 and C++11.
 */
#ifndef SPARQ_ABI_H
#define SPARQ_ABI_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
#define SPARQ_ASSERT(c, what) static_assert(c, what)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SPARQ_ASSERT(c, what) _Static_assert(c, what)
#else
#define SPARQ_ASSERT(c, what) struct sparq_assert_in_c11_only
#endif
#define SPARQ_AT(type, field, at) \
	SPARQ_ASSERT(offsetof(struct type, field) == (at), #type "." #field)

#define SPARQ_MAGIC 0x5152415053ull /* "SPARQ" */
#define SPARQ_ABI_MAJOR 1u

/* Features, told in the handshake. An unknown compatible bit is ignored, an
 * unknown incompatible one refuses the session. */
#define SPARQ_FEATURE_LSE (1ull << 0)    /* items may ask for the log-sum-exp */
#define SPARQ_FEATURE_REPORT (1ull << 1) /* items may ask for a report */
#define SPARQ_FEATURE_TABLE (1ull << 2)  /* CACHE_TABLE is known */
#define SPARQ_FEATURE_ADOPT (1ull << 3)  /* CACHE_ATTACH and SEQ_ADOPT are known */
#define SPARQ_FEATURE_EVICT (1ull << 4)  /* evict= and SEQ_PIN are known, SEQ_STAT tells flags */
#define SPARQ_FEATURE_TOKENS (1ull << 6) /* SEQ_TOKENS and SEQ_CREATE_PREFIX are known */
#define SPARQ_FEATURE_SAVE (1ull << 8)   /* SEQ_EXPORT and SEQ_IMPORT are known */
#define SPARQ_FEATURE_PREFETCH (1ull << 10) /* SEQ_PREFETCH is known; SEQ_ATTACH may take long */
#define SPARQ_FEATURE_STATS (1ull << 11)    /* STATS is known */
#define SPARQ_FEATURE_OVERWRITE (1ull << 12) /* the operation OVERWRITE is known */
#define SPARQ_FEATURE_PLACEMENT (1ull << 13) /* CACHE_STAT and SEQ_STAT tell placements */
#define SPARQ_FEATURES_COMPAT \
	(SPARQ_FEATURE_LSE | SPARQ_FEATURE_REPORT | SPARQ_FEATURE_TABLE | SPARQ_FEATURE_ADOPT | \
	 SPARQ_FEATURE_EVICT | SPARQ_FEATURE_TOKENS | SPARQ_FEATURE_SAVE | \
	 SPARQ_FEATURE_PREFETCH | SPARQ_FEATURE_STATS | SPARQ_FEATURE_OVERWRITE | \
	 SPARQ_FEATURE_PLACEMENT)
#define SPARQ_FEATURES_INCOMPAT 0ull

/* Limits of this major version; what a daemon allows is told in the handshake
 * and never more than these. */
#define SPARQ_MAX_QUEUES 64u
#define SPARQ_MAX_SQ_ENTRIES 4096u
#define SPARQ_MAX_ITEMS 256u
#define SPARQ_MAX_ROWS 512u       /* rows or queries in one entry or item */
#define SPARQ_MAX_DECODE_Q 16u    /* more queries than this are a prompt */
#define SPARQ_ROW_LIMIT (1u << 31)
#define SPARQ_NAME_MAX 63u        /* characters of [A-Za-z0-9._-] */

/* ---- entries and completions ------------------------------------------- */

#define SPARQ_OP_NOP 0u
#define SPARQ_OP_STEP 1u     /* append n_rows, then attend n_q */
#define SPARQ_OP_APPEND 2u
#define SPARQ_OP_ATTEND 3u   /* row: what the last query sees */
#define SPARQ_OP_TRUNCATE 4u /* keep the rows below row */
#define SPARQ_OP_OVERWRITE 5u /* n_rows others in the place of rows row..: FEATURE_OVERWRITE */
#define SPARQ_OP_COUNT 6u

#define SPARQ_SQE_LINK (1u << 0)   /* the next entry runs only if this one succeeded */
#define SPARQ_SQE_FENCE (1u << 1)  /* runs after all earlier ones of its ring */
#define SPARQ_SQE_REPEAT (1u << 2) /* rows that are there already are passed over */
#define SPARQ_SQE_FULL (1u << 3)   /* every query sees every row */
#define SPARQ_SQE_DENSE (1u << 4)  /* no policy, this once */
#define SPARQ_SQE_DRAFT (1u << 5)  /* upper planes only */
#define SPARQ_SQE_PART (1u << 6)   /* leave out the sink logit: the caller merges */
#define SPARQ_SQE_FLAGS 0x7fu

#define SPARQ_CLASS_INTERACTIVE 0u
#define SPARQ_CLASS_BACKGROUND 1u
#define SPARQ_LAYER_ALL 0xffffu /* TRUNCATE only */

#define SPARQ_ADDR_OFFSET_BITS 48 /* addr: byte offset; above it the buffer, 0 = the arena */

struct sparq_sqe { /* 64 B; the client writes it, seq last */
	uint8_t op, class_;
	uint16_t flags, layer;
	uint16_t n_items; /* 0: this entry is its own, only item */
	uint64_t user_data;
	uint64_t sequence; /* id; n_items > 0: addr of sparq_item[n_items], bytes 24-55 are 0 */
	uint64_t q, kv, o; /* addr */
	uint32_t row;
	uint16_t n_rows, n_q;
	uint32_t timeout_us; /* from the daemon's copy on; 0: the cache's default */
	uint32_t seq;        /* position + 1: store-release after the 60 bytes before it */
};

/* 128 B in the arena, 64-byte aligned; bytes 0-39 are bytes 16-55 of an entry. */
struct sparq_item {
	uint64_t sequence, q, kv, o;
	uint32_t row;
	uint16_t n_rows, n_q;
	uint64_t lse, report; /* addr, 0: not wanted; f32[n_q][heads]; struct sparq_report */
	uint32_t q_stride, kv_stride, o_stride; /* bytes a row, multiples of 16; 0: packed */
	uint32_t rsv[15];
};

/* sparq_report.bytes[] */
enum {
	SPARQ_PLANE_SCORE,      /* the scoring plane */
	SPARQ_PLANE_K,          /* exact K */
	SPARQ_PLANE_V_UPPER,
	SPARQ_PLANE_V_LOWER,
	SPARQ_PLANE_PARAMETERS, /* scales and minima */
	SPARQ_PLANE_RECENT,     /* sinks and tail */
	SPARQ_PLANE_STATE,      /* state of the policy: sums of V, carried scores */
	SPARQ_PLANE_OTHER,
	SPARQ_PLANES
};

struct sparq_report { /* 128 B in the arena, 64-byte aligned; the daemon writes it */
	int32_t status;
	uint32_t flags; /* SPARQ_CQE_* */
	uint32_t n_selected, n_scored; /* rows, largest over the KV heads */
	float alpha_min, alpha_mean;   /* over the query heads; 1 where nothing was left out */
	uint64_t dense_bytes;          /* what dense attention over f16 would have read */
	uint64_t bytes[8];             /* read, by SPARQ_PLANE_* */
	uint8_t rsv[32];
};

#define SPARQ_CQE_REPEATED (1u << 0) /* some rows were there already */
#define SPARQ_CQE_DENSE (1u << 1)    /* the plan that ran was dense */

struct sparq_cqe { /* 32 B; the daemon writes it, seq last */
	uint64_t user_data;
	int32_t res;   /* items done, or -errno of the first that failed */
	uint32_t flags;
	uint64_t bytes_read;
	uint32_t aux;  /* on error: reason << 16 | item */
	uint32_t seq;  /* position + 1: store-release after the 28 bytes before it */
};

/* Reasons in sparq_cqe.aux; sparq_reason() has the words. */
enum {
	SPARQ_REASON_NONE,
	SPARQ_REASON_OP,         /* unknown operation */
	SPARQ_REASON_FLAGS,      /* unknown flag, or one this operation does not take */
	SPARQ_REASON_CLASS,
	SPARQ_REASON_LAYER,      /* no such layer in the cache */
	SPARQ_REASON_UNUSED,     /* a field this operation does not use is not 0 */
	SPARQ_REASON_ITEMS,      /* too many items, or the items lie outside the arena */
	SPARQ_REASON_SEQUENCE,   /* no such sequence in this session */
	SPARQ_REASON_DUPLICATE,  /* a sequence occurs twice in one entry */
	SPARQ_REASON_CACHE,      /* items of one entry belong to different caches */
	SPARQ_REASON_ADDRESS,    /* outside the arena, or not 16-byte aligned */
	SPARQ_REASON_STRIDE,
	SPARQ_REASON_ROWS,       /* n_rows is 0 where rows are needed, or over max_rows */
	SPARQ_REASON_QUERIES,    /* n_q is 0 where queries are needed, or over max_rows */
	SPARQ_REASON_ROW,        /* row is not the number of rows (-ESTALE), or past the limit */
	SPARQ_REASON_BUSY,       /* in flight on another ring, or under a control call */
	SPARQ_REASON_BUDGET,     /* the budget of the cache is spent */
	SPARQ_REASON_POOL,       /* the pool is full */
	SPARQ_REASON_DEADLINE,
	SPARQ_REASON_LINKED,     /* the entry it was linked to failed */
	SPARQ_REASON_UNSUPPORTED,
	SPARQ_REASON_RESERVED,   /* a reserved field is not 0 */
	SPARQ_REASON_QUOTA,      /* the quota of the user is spent */
	SPARQ_REASON_CATALOGUE,  /* the daemon's catalogue is full */
	SPARQ_REASON_DEVICE,     /* the cache's device is lost, or its memory is full */
	SPARQ_REASONS
};

/* ---- the session segment ------------------------------------------------ */

#define SPARQ_LINE_BYTES 128

/* One per queue. One writer per 128 bytes; all fields start at 0. */
struct sparq_ring_ctl {
	uint32_t cq_head; /* client, store-release after reading the completions below: credit */
	uint8_t pad0[124];
	uint32_t cq_need; /* client: 0 awake, 1 about to sleep on cq_bell, 2 on its descriptor.
			   * The daemon may exchange it to 0, and then must wake. */
	uint8_t pad1[124];
	uint32_t sq_head; /* daemon, store-release after copying the entries below: credit */
	uint8_t pad2[124];
	uint32_t sq_cold; /* daemon: 1 = this ring is no longer polled, ring the doorbell */
	uint8_t pad3[124];
	uint32_t cq_bell; /* daemon: futex word of the client's sleep */
	uint32_t fatal;   /* daemon: errno that ended the session, before cq_bell */
	uint8_t pad4[120];
};

/* The daemon page: read-only to clients. Pollers follow at 128-byte strides. */
struct sparq_poller {
	uint32_t sleep_epoch; /* 0 = polling; else this epoch's number: write the doorbell once */
	uint32_t cpu;         /* where it runs: a client on the same CPU does not spin */
	uint8_t pad[120];
};

struct sparq_daemon_page {
	uint64_t magic;
	uint32_t abi, generation;
	int32_t pid;
	uint32_t n_pollers;
	uint64_t features;
	uint8_t pad0[96];
	uint64_t heartbeat_ns; /* CLOCK_MONOTONIC; relaxed: a hint, never a verdict */
	uint8_t pad1[120];
	struct sparq_poller poller[64];
};

/* ---- control messages over SOCK_SEQPACKET ------------------------------- */

/*
 * A client sends a request and reads one reply of the same type with
 * SPARQ_MSG_REPLY set and the same cookie. One message is one packet of
 * exactly the size that its type has; anything else closes the connection.
 * Descriptors come only with replies to HELLO (segment, daemon page, doorbell,
 * in this order), QUEUE_FD (one) and STATS (one).
 */
#define SPARQ_MSG_REPLY 0x8000u
enum {
	SPARQ_MSG_HELLO = 1,
	SPARQ_MSG_MAPPED = 2, /* the client has mapped the segment: seal it, poll it */
	SPARQ_MSG_NAME = 3,
	SPARQ_MSG_INFO = 4,
	SPARQ_MSG_QUEUE_FD = 5,
	SPARQ_MSG_STATS = 6,
	SPARQ_MSG_CACHE_CREATE = 16,
	SPARQ_MSG_CACHE_UNREF = 17,
	SPARQ_MSG_CACHE_SET = 18,
	SPARQ_MSG_CACHE_STAT = 19,
	SPARQ_MSG_CACHE_TABLE = 20,
	SPARQ_MSG_CACHE_ATTACH = 21,
	SPARQ_MSG_SEQ_CREATE = 32,
	SPARQ_MSG_SEQ_ATTACH = 33,
	SPARQ_MSG_SEQ_FORK = 34,
	SPARQ_MSG_SEQ_DROP = 35,
	SPARQ_MSG_SEQ_TRUNCATE = 36,
	SPARQ_MSG_SEQ_STAT = 37,
	SPARQ_MSG_SEQ_ADOPT = 38,
	SPARQ_MSG_SEQ_TOKENS = 39,
	SPARQ_MSG_SEQ_CREATE_PREFIX = 40,
	SPARQ_MSG_SEQ_PIN = 41,
	SPARQ_MSG_SEQ_EXPORT = 42,
	SPARQ_MSG_SEQ_IMPORT = 43,
	SPARQ_MSG_SEQ_IMPORT_PIECE = 44,
	SPARQ_MSG_SEQ_IMPORT_END = 45,
	SPARQ_MSG_SEQ_PREFETCH = 47
};

struct sparq_msg { /* head of every message */
	uint16_t type;
	uint16_t size;   /* of the whole message */
	uint32_t cookie; /* the client's; echoed */
	int32_t res;     /* replies: 0 or -errno; requests: 0 */
	uint32_t rsv;
};

#define SPARQ_ERROR_TEXT 240
struct sparq_msg_error { /* the reply to any request that failed */
	struct sparq_msg head; /* type of the request | REPLY, res < 0 */
	char text[SPARQ_ERROR_TEXT]; /* what was wrong with which value, what is allowed; NUL */
};

struct sparq_msg_hello {
	struct sparq_msg head;
	uint64_t magic;
	uint32_t abi;
	uint32_t n_queues;    /* 0: 1 */
	uint32_t sq_entries;  /* power of two; 0: 64 */
	int32_t node;         /* NUMA node of the arena; -1: the caller's */
	uint64_t arena_bytes; /* 0: 16 MiB */
	uint64_t features, features_incompat; /* that the client knows */
};

struct sparq_ring_place { /* byte offsets in the segment */
	uint64_t ctl, sq, cq;
};

struct sparq_msg_hello_reply {
	struct sparq_msg head;
	uint32_t abi, generation;
	uint64_t features, features_incompat;
	uint64_t segment_bytes, arena_offset, arena_bytes;
	uint32_t n_queues, sq_entries, cq_entries;
	uint32_t poller;    /* index in the daemon page */
	uint32_t max_rows, max_items;
	uint32_t spin_ns;   /* how long this machine's waiter polls before it sleeps */
	int32_t pid;
	struct sparq_ring_place ring[SPARQ_MAX_QUEUES];
};

struct sparq_msg_name { /* and its reply */
	struct sparq_msg head;
	char kind[16]; /* "format" "policy" "device" */
	uint32_t index, rsv;
	char name[64]; /* reply */
};

struct sparq_msg_info { /* and its reply */
	struct sparq_msg head;
	uint64_t pool_bytes, pool_used_bytes;
	uint64_t quota_bytes, charged_bytes; /* of the caller's uid */
	uint32_t nodes, workers, sessions, rsv;
	uint64_t page_bytes;
	char version[32], isa[32];
};

struct sparq_msg_queue { /* QUEUE_FD and its reply */
	struct sparq_msg head;
	uint32_t queue, rsv;
};

struct sparq_msg_stats { /* the reply to a head */
	struct sparq_msg head;
	uint64_t bytes; /* of the stats page, whose descriptor comes with it */
	uint32_t generation, rsv;
};

#define SPARQ_DTYPE_F32 0u
#define SPARQ_DTYPE_F16 1u
#define SPARQ_DTYPE_BF16 2u

struct sparq_msg_cache_create {
	struct sparq_msg head;
	uint32_t layers, heads, kv_heads, k_dim, v_dim, dtype;
	float scale;       /* 0: 1 / sqrt(k_dim) */
	uint32_t rsv;
	uint64_t budget_bytes; /* 0: the user's quota alone */
	uint32_t timeout_us;   /* default of its entries; 0: the daemon's */
	uint32_t rsv2;
	char name[64];
	char k_format[128], v_format[128];
	char policy[32];
	char device[32];
	char model[128];
	char options[1024]; /* "key=value" words separated by spaces: sparq_cache_create(3) */
};

struct sparq_msg_cache { /* CACHE_UNREF, CACHE_STAT; reply to CREATE and UNREF */
	struct sparq_msg head;
	uint64_t cache;
};

struct sparq_msg_cache_set {
	struct sparq_msg head;
	uint64_t cache;
	char key[64], value[128];
};

/* Where the rows of a cache or a sequence lie: FEATURE_PLACEMENT, in `rsv` of the head of the
 * replies to CACHE_STAT and SEQ_STAT. */
#define SPARQ_PLACEMENT_UNKNOWN 0u /* the daemon does not tell */
#define SPARQ_PLACEMENT_LOCAL 1u
#define SPARQ_PLACEMENT_HEADS 2u
#define SPARQ_PLACEMENT_ROWS 3u

struct sparq_msg_cache_stat { /* reply */
	struct sparq_msg head;
	uint64_t cache;
	uint64_t sequences, rows, bytes, budget_bytes;
	uint64_t row_bytes;       /* of a sealed row, all layers */
	uint64_t dense_row_bytes; /* the same in f16 */
};

#define SPARQ_MAX_CHANNELS 256u
#define SPARQ_MAX_OUTLIERS 8u
struct sparq_msg_cache_table { /* the reply is a head */
	struct sparq_msg head;
	uint64_t cache;
	uint32_t layer, kv_head;
	uint32_t n_k, n_v;        /* channels below: k_dim and v_dim, or 0: as they come */
	uint32_t n_outliers, rsv; /* the first of k_channels, kept in f16 in sealed tiles */
	uint8_t k_channels[SPARQ_MAX_CHANNELS], v_channels[SPARQ_MAX_CHANNELS];
};

struct sparq_msg_cache_attach { /* by one of the two, the other is 0 or empty */
	struct sparq_msg head;
	uint64_t cache;
	char name[64];
};

struct sparq_msg_cache_shape { /* the reply: what a program must know to use it */
	struct sparq_msg head;
	uint64_t cache;
	char name[64];
	uint32_t layers, heads, kv_heads, k_dim, v_dim, dtype;
	float scale;
	uint32_t timeout_us;
	uint64_t budget_bytes;
	char k_format[128], v_format[128];
	char policy[32];
	char device[32];
	char model[128];
};

struct sparq_msg_seq_create { /* SEQ_CREATE, SEQ_ATTACH, SEQ_PREFETCH */
	struct sparq_msg head;
	uint64_t cache;
	char name[64]; /* empty: unnamed */
};

/* SEQ_ADOPT, SEQ_DROP, SEQ_STAT; FORK and TRUNCATE use rows, and so does PIN: 1 pins, 0 lets go;
 * reply to all but STAT */
struct sparq_msg_seq {
	struct sparq_msg head;
	uint64_t sequence, rows;
};

#define SPARQ_SEQ_PINNED (1u << 0) /* it is not evicted */
/* The reply; the request is sparq_msg_seq with rows = layer, or SPARQ_LAYER_ALL. */
struct sparq_msg_seq_stat {
	struct sparq_msg head;
	uint64_t sequence;
	uint64_t rows_least, rows_most; /* over the layers */
	uint64_t bytes;
	int32_t node;
	uint32_t flags; /* SPARQ_SEQ_* */
};

/*
 * A sequence in pieces through the arena, to be saved and loaded: sparq-sequence(5) says what the
 * bytes are, checksums are XXH3 of 64 bits. The sequence is held from the first SEQ_EXPORT, at
 * offset 0, to the last one, at SPARQ_EXPORT_END.
 */
#define SPARQ_MAX_PIECE_BYTES (1u << 20)
#define SPARQ_EXPORT_END UINT64_MAX
struct sparq_msg_seq_export {
	struct sparq_msg head;
	uint64_t sequence, offset, addr;
	uint32_t bytes, rsv; /* at most; the sequence may end before */
};

struct sparq_msg_seq_exported { /* the reply */
	struct sparq_msg head;
	uint64_t sequence;
	uint64_t total;    /* bytes of the whole sequence */
	uint64_t checksum; /* of these */
	uint32_t bytes, rsv;
};

struct sparq_msg_seq_import { /* begins one; the reply is a head */
	struct sparq_msg head;
	uint64_t cache, total;
	char name[64]; /* empty: unnamed */
};

struct sparq_msg_seq_piece { /* SEQ_IMPORT_PIECE, in their order; the reply is a head */
	struct sparq_msg head;
	uint64_t offset, addr, checksum;
	uint32_t bytes, rsv;
};

struct sparq_msg_seq_import_end { /* the reply is sparq_msg_seq */
	struct sparq_msg head;
	uint32_t commit, rsv; /* 1: it is a sequence from now on; 0: it is given up */
};

struct sparq_msg_seq_prefetch { /* the reply */
	struct sparq_msg head;
	uint64_t sequence, rows;
	uint64_t bytes, bytes_done; /* of its file, while it is loaded; 0: it is in memory */
};

#define SPARQ_MAX_TOKENS (1u << 20) /* ids in one message */
struct sparq_msg_seq_tokens { /* the reply is sparq_msg_seq: rows whose ids are known */
	struct sparq_msg head;
	uint64_t sequence;
	uint64_t tokens; /* addr of uint32_t[n_tokens], 16-byte aligned */
	uint32_t n_tokens;
	uint32_t row; /* of the first */
};

struct sparq_msg_seq_prefix { /* SEQ_CREATE_PREFIX; the reply is sparq_msg_seq: rows that it has */
	struct sparq_msg head;
	uint64_t cache;
	uint64_t tokens; /* as in sparq_msg_seq_tokens; of rows 0... */
	uint32_t n_tokens, rsv;
	char name[64]; /* empty: unnamed */
};

/* ---- what must never change --------------------------------------------- */

SPARQ_ASSERT(sizeof(struct sparq_sqe) == 64, "sqe");
SPARQ_AT(sparq_sqe, flags, 2);
SPARQ_AT(sparq_sqe, n_items, 6);
SPARQ_AT(sparq_sqe, user_data, 8);
SPARQ_AT(sparq_sqe, sequence, 16);
SPARQ_AT(sparq_sqe, q, 24);
SPARQ_AT(sparq_sqe, row, 48);
SPARQ_AT(sparq_sqe, timeout_us, 56);
SPARQ_AT(sparq_sqe, seq, 60);
SPARQ_ASSERT(sizeof(struct sparq_item) == 128, "item");
SPARQ_AT(sparq_item, row, 32);
SPARQ_AT(sparq_item, lse, 40);
SPARQ_AT(sparq_item, q_stride, 56);
SPARQ_AT(sparq_item, rsv, 68);
SPARQ_ASSERT(sizeof(struct sparq_report) == 128, "report");
SPARQ_AT(sparq_report, dense_bytes, 24);
SPARQ_AT(sparq_report, bytes, 32);
SPARQ_AT(sparq_report, rsv, 96);
SPARQ_ASSERT(sizeof(struct sparq_cqe) == 32, "cqe");
SPARQ_AT(sparq_cqe, res, 8);
SPARQ_AT(sparq_cqe, bytes_read, 16);
SPARQ_AT(sparq_cqe, aux, 24);
SPARQ_AT(sparq_cqe, seq, 28);
SPARQ_ASSERT(sizeof(struct sparq_ring_ctl) == 5 * SPARQ_LINE_BYTES, "ring_ctl");
SPARQ_AT(sparq_ring_ctl, cq_need, 1 * SPARQ_LINE_BYTES);
SPARQ_AT(sparq_ring_ctl, sq_head, 2 * SPARQ_LINE_BYTES);
SPARQ_AT(sparq_ring_ctl, sq_cold, 3 * SPARQ_LINE_BYTES);
SPARQ_AT(sparq_ring_ctl, cq_bell, 4 * SPARQ_LINE_BYTES);
SPARQ_ASSERT(sizeof(struct sparq_poller) == SPARQ_LINE_BYTES, "poller");
SPARQ_AT(sparq_daemon_page, heartbeat_ns, 1 * SPARQ_LINE_BYTES);
SPARQ_AT(sparq_daemon_page, poller, 2 * SPARQ_LINE_BYTES);
SPARQ_ASSERT(sizeof(struct sparq_msg) == 16, "msg");
SPARQ_ASSERT(sizeof(struct sparq_msg_error) == 256, "msg_error");
SPARQ_ASSERT(sizeof(struct sparq_msg_hello) == 64, "msg_hello");
SPARQ_ASSERT(sizeof(struct sparq_msg_stats) == 32, "msg_stats");
SPARQ_ASSERT(sizeof(struct sparq_msg_cache_table) == 560, "msg_cache_table");
SPARQ_AT(sparq_msg_cache_table, k_channels, 48);
SPARQ_AT(sparq_msg_cache_table, v_channels, 304);
SPARQ_ASSERT(sizeof(struct sparq_msg_cache_attach) == 88, "msg_cache_attach");
SPARQ_ASSERT(sizeof(struct sparq_msg_cache_shape) == 576, "msg_cache_shape");
SPARQ_AT(sparq_msg_cache_shape, name, 24); /* where the request has it */
SPARQ_AT(sparq_msg_cache_shape, k_format, 128);
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_tokens) == 40, "msg_seq_tokens");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_prefix) == 104, "msg_seq_prefix");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_export) == 48, "msg_seq_export");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_exported) == 48, "msg_seq_exported");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_import) == 96, "msg_seq_import");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_piece) == 48, "msg_seq_piece");
SPARQ_ASSERT(sizeof(struct sparq_msg_seq_import_end) == 24, "msg_seq_import_end");
SPARQ_ASSERT(sizeof(struct sparq_msg_hello_reply) == 16 + 8 + 16 + 24 + 32 + 24 * SPARQ_MAX_QUEUES,
	     "msg_hello_reply");

#endif
