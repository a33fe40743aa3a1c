/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsparq: attention over KV caches that sparqd owns. See sparq(3).
 *
 * Every function that can fail returns int: >= 0 is success, < 0 a negative
 * errno; errno itself is neither set nor read. Outputs come last and are
 * written on success only. Destructors take NULL and return NULL. Structs
 * begin with their size at the caller.
 *
 * Threads: a connection and what control calls make from it: one thread at a
 * time. A queue: one thread at a time, different queues in parallel with each
 * other and with the connection. Handles are dead in a fork()ed child.
 *
 * A daemon that restarts ends the session, not the handles: control calls
 * reconnect by themselves, queues say so and are resumed by their owner,
 * sparq_queue_resume(3).
 */
#ifndef SPARQ_H
#define SPARQ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sparq-abi.h"

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define SPARQ_VERSION_MAJOR 0
#define SPARQ_VERSION_MINOR 1
#define SPARQ_VERSION_PATCH 0

/* Where a daemon listens unless it was told otherwise. */
#define SPARQ_SOCKET_PATH "/run/sparqd/sparqd.sock"
#define SPARQ_CONTROL_PATH "/run/sparqd/control.sock"

typedef struct sparq sparq;             /* a connection: one session */
typedef struct sparq_cache sparq_cache;
typedef struct sparq_seq sparq_seq;
typedef struct sparq_buf sparq_buf;     /* a piece of the session's arena */
typedef struct sparq_queue sparq_queue; /* one ring pair */

/* ---- connection: sparq_open(3) ------------------------------------------- */

unsigned sparq_version(void); /* 0xMMmmpp of the library */

struct sparq_open_params {
	uint32_t size;
	uint32_t queues;      /* ring pairs, one per thread; 0: 1 */
	uint64_t arena_bytes; /* 0: 16 MiB */
	uint32_t sq_entries;  /* power of two; 0: 64 */
	int32_t node;         /* NUMA node + 1 of the arena; 0: the caller's */
	char *why;            /* SPARQ_ERROR_TEXT bytes: the sentence of a failed open; or NULL */
	uint32_t reconnect_ms; /* how long calls wait for a daemon that went away; 0: 10 000,
				* UINT32_MAX: not at all, the session is over for good */
	uint32_t flags;        /* 0 */
};
int sparq_open(const char *path, const struct sparq_open_params *params, sparq **ret);
sparq *sparq_close(sparq *c);
int sparq_fd(sparq *c);
int sparq_dispatch(sparq *c);

struct sparq_info {
	uint32_t size;
	uint32_t abi, generation;
	int32_t pid;
	uint32_t max_rows, max_items;
	uint64_t features;
	uint64_t pool_bytes, pool_used_bytes, page_bytes;
	uint64_t quota_bytes, charged_bytes;
	uint32_t nodes, workers;
	char version[32], isa[32];
};
int sparq_info_get(sparq *c, struct sparq_info *ret);
int sparq_name(sparq *c, const char *kind, unsigned i, const char **ret);
const char *sparq_error(sparq *c);
const char *sparq_reason(uint32_t reason);
int sparq_control(const char *path, const char *method, const char *json, char **ret_json);

/* ---- caches: sparq_cache_create(3) ----------------------------------------- */

struct sparq_cache_params {
	uint32_t size;
	uint32_t layers, heads, kv_heads, k_dim, v_dim;
	uint32_t dtype; /* SPARQ_DTYPE_* of q, k, v and o */
	float scale;    /* 0: 1 / sqrt(k_dim) */
	const char *name;     /* NULL: unnamed */
	const char *k_format; /* one, or by layer: "hier4,f16:0-1"; NULL: "hier4" */
	const char *v_format; /* NULL: as K */
	const char *policy;   /* NULL: "sparq" */
	const char *options;  /* NULL: none; "key=value" words */
	const char *device;   /* NULL: "cpu" */
	const char *model;    /* NULL: none */
	uint64_t budget_bytes;
	uint32_t timeout_us;
	uint32_t flags; /* 0 */
};
int sparq_cache_create(sparq *c, const struct sparq_cache_params *params, sparq_cache **ret);
struct sparq_cache_shape {
	uint32_t size;
	uint32_t layers, heads, kv_heads, k_dim, v_dim;
	uint32_t dtype;
	float scale;
	uint32_t timeout_us, rsv;
	uint64_t budget_bytes;
	char k_format[128], v_format[128], policy[32], device[32], model[128];
};
int sparq_cache_attach(sparq *c, const char *name, struct sparq_cache_shape *ret_shape,
		       sparq_cache **ret);
sparq_cache *sparq_cache_unref(sparq_cache *k);
int sparq_cache_set(sparq_cache *k, const char *key, const char *value);
struct sparq_cache_table_params {
	uint32_t size;
	uint32_t layer, kv_head;
	uint32_t n_outliers;       /* the first of k_channels */
	uint32_t n_k, n_v;         /* channels given: k_dim and v_dim; 0: as they come */
	const uint8_t *k_channels; /* which channel of K comes first, second, ... */
	const uint8_t *v_channels;
};
int sparq_cache_table(sparq_cache *k, const struct sparq_cache_table_params *params);
struct sparq_cache_stat {
	uint32_t size, rsv;
	uint64_t sequences, rows, bytes, budget_bytes, row_bytes, dense_row_bytes;
	uint32_t placement, rsv2; /* SPARQ_PLACEMENT_* */
};
int sparq_cache_stat_get(sparq_cache *k, struct sparq_cache_stat *ret);

/* ---- sequences: sparq_seq_create(3) ------------------------------------------ */

int sparq_seq_create(sparq_cache *k, const char *name, sparq_seq **ret);
int sparq_seq_attach(sparq_cache *k, const char *name, sparq_seq **ret);
int sparq_seq_prefetch(sparq_cache *k, const char *name); /* sparq_seq_prefetch(3) */
/* Of the n tokens' ids, beginning with the rows that the cache has of them already: *ret_rows. */
int sparq_seq_create_prefix(sparq_cache *k, const char *name, const uint32_t *tokens, size_t n,
			    sparq_seq **ret, uint64_t *ret_rows);
int sparq_seq_tokens(sparq_seq *s, uint64_t row, const uint32_t *tokens, size_t n);
int sparq_seq_fork(sparq_seq *s, uint64_t rows, sparq_seq **ret);
sparq_seq *sparq_seq_unref(sparq_seq *s);
int sparq_seq_drop(sparq_seq *s);
int sparq_seq_truncate(sparq_seq *s, uint64_t rows);
struct sparq_seq_stat {
	uint32_t size;
	int32_t node;
	uint64_t rows_least, rows_most, bytes;
	uint32_t flags, rsv; /* SPARQ_SEQ_PINNED */
	uint32_t placement, rsv2; /* SPARQ_PLACEMENT_* */
};
int sparq_seq_stat_get(sparq_seq *s, uint32_t layer, struct sparq_seq_stat *ret);
uint64_t sparq_seq_id(sparq_seq *s);
int sparq_seq_pin(sparq_seq *s, int pinned);

/* ---- sequences in files: sparq_seq_save(3) ------------------------------------ */

struct sparq_progress {
	uint32_t size, rsv;
	uint64_t rows, rows_total, bytes, bytes_total;
};
#define SPARQ_FILE_REPLACE (1u << 0) /* save: a file that is there is replaced */
struct sparq_file_params {
	uint32_t size;
	uint32_t flags; /* SPARQ_FILE_* */
	/* After each piece; other than 0 gives up: -ECANCELED. NULL: nobody looks. */
	int (*progress)(void *arg, const struct sparq_progress *now);
	void *arg;
};
struct sparq_file_info {
	uint32_t size;
	uint32_t layers, heads, kv_heads, k_dim, v_dim;
	uint32_t dtype;
	uint32_t tables; /* channel tables */
	uint64_t rows_least, rows_most, bytes;
	char cache[64], name[64]; /* what they were called */
	char k_format[128], v_format[128], policy[32], model[128], options[1024];
};
int sparq_file_info_get(sparq *c, const char *path, struct sparq_file_info *ret);
int sparq_seq_save(sparq_seq *s, const char *path, const struct sparq_file_params *params);
int sparq_seq_load(sparq_cache *k, const char *path, const char *name,
		   const struct sparq_file_params *params, sparq_seq **ret);
int sparq_cache_from_file(sparq *c, const char *path, const char *name, const char *options,
			  sparq_cache **ret);

/* ---- memory both sides see: sparq_buf_alloc(3) -------------------------------- */

int sparq_buf_alloc(sparq *c, size_t n, sparq_buf **ret);
sparq_buf *sparq_buf_unref(sparq_buf *b);
void *sparq_buf_data(sparq_buf *b, size_t *ret_size);
uint64_t sparq_buf_addr(sparq_buf *b);

/* ---- queues: sparq_queue_create(3), sparq_submit(3) ----------------------------- */

struct sparq_queue_params {
	uint32_t size;
	uint32_t spin_us; /* how long a wait polls before it sleeps; 0: the daemon's advice */
};
int sparq_queue_create(sparq *c, const struct sparq_queue_params *params, sparq_queue **ret);
sparq_queue *sparq_queue_close(sparq_queue *q);
int sparq_queue_fd(sparq_queue *q);
int sparq_queue_resume(sparq_queue *q, int64_t timeout_ns);
const char *sparq_queue_error(sparq_queue *q);
struct sparq_sqe *sparq_get_sqe(sparq_queue *q);
int sparq_submit(sparq_queue *q, unsigned wait_for);
int sparq_peek(sparq_queue *q, struct sparq_cqe **ret, unsigned n);
int sparq_wait(sparq_queue *q, struct sparq_cqe **ret, int64_t timeout_ns);
void sparq_seen(sparq_queue *q, unsigned n);

/* ---- filling an entry: sparq_prep_step(3) ----------------------------------------
 * `e` comes zeroed from sparq_get_sqe. Addresses are those of sparq_buf_addr plus an offset. */

static inline void sparq_prep_nop(struct sparq_sqe *e, uint64_t user_data)
{
	e->op = SPARQ_OP_NOP;
	e->user_data = user_data;
}

/* Appends n_rows (k, v) rows as numbers row.. of `layer`. */
static inline void sparq_prep_append(struct sparq_sqe *e, uint64_t sequence, uint16_t layer,
				     uint64_t kv, uint32_t row, uint16_t n_rows)
{
	e->op = SPARQ_OP_APPEND;
	e->sequence = sequence;
	e->layer = layer;
	e->kv = kv;
	e->row = row;
	e->n_rows = n_rows;
}

/* Attends with n_q queries; the last one sees the rows below `row`. */
static inline void sparq_prep_attend(struct sparq_sqe *e, uint64_t sequence, uint16_t layer,
				     uint64_t q, uint64_t o, uint32_t row, uint16_t n_q)
{
	e->op = SPARQ_OP_ATTEND;
	e->sequence = sequence;
	e->layer = layer;
	e->q = q;
	e->o = o;
	e->row = row;
	e->n_q = n_q;
}

/* Append and attend in one entry: n_rows new rows, one query for each of the last n_q of them. */
static inline void sparq_prep_step(struct sparq_sqe *e, uint64_t sequence, uint16_t layer,
				   uint64_t q, uint64_t kv, uint64_t o, uint32_t row,
				   uint16_t n_rows, uint16_t n_q)
{
	sparq_prep_append(e, sequence, layer, kv, row, n_rows);
	e->op = SPARQ_OP_STEP;
	e->q = q;
	e->o = o;
	e->n_q = n_q;
}

/* Keeps the rows below `row`; layer SPARQ_LAYER_ALL: of every layer. */
static inline void sparq_prep_truncate(struct sparq_sqe *e, uint64_t sequence, uint16_t layer,
				       uint32_t row)
{
	e->op = SPARQ_OP_TRUNCATE;
	e->sequence = sequence;
	e->layer = layer;
	e->row = row;
}

/* n_rows (k, v) rows in the place of rows row.. of `layer`, which are there already. Wants a daemon
 * with SPARQ_FEATURE_OVERWRITE; others answer -EINVAL. */
static inline void sparq_prep_overwrite(struct sparq_sqe *e, uint64_t sequence, uint16_t layer,
					uint64_t kv, uint32_t row, uint16_t n_rows)
{
	sparq_prep_append(e, sequence, layer, kv, row, n_rows);
	e->op = SPARQ_OP_OVERWRITE;
}

/* A batch: `op` over n_items items of one cache and layer, which lie at `items` in the arena. */
static inline void sparq_prep_items(struct sparq_sqe *e, uint8_t op, uint16_t layer, uint64_t items,
				    uint16_t n_items)
{
	e->op = op;
	e->layer = layer;
	e->sequence = items;
	e->n_items = n_items;
}

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
