/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the crash tests: it loads the daemon until its session breaks, comes back, and
 * checks all it was ever told.
 *
 * Functions that return int: 0, or -ENOTCONN when the session broke. What must not happen ends the
 * process with a sentence.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/sparq.h"
#include "tests/crash/model.h"

#define CLIENTS_MOST 16

struct client_count {          /* written by one client */
	uint64_t acknowledged; /* rows */
	uint64_t lost;         /* acknowledged rows that are not there, or not as they were */
	uint64_t checked;      /* rows compared after a crash */
	uint64_t arrived;      /* operations without an answer that were found done */
	uint64_t absent;       /* ... not done */
	uint64_t repeated;     /* appends answered as done already */
	uint64_t digests;      /* results that had the same bits as before the crash */
	uint64_t replicas;     /* sequences that had the bits of one that saw no crash */
};

struct shared {            /* by all processes of a test */
	uint32_t round;    /* atomic */
	uint32_t stopping; /* atomic: finish what is in flight, and end */
	uint32_t leaving;  /* atomic: the round in which clients close their sessions; 0: none */
	/* Of the round, stored before it: the client that kills the daemon, after so many submits,
	 * and with its ring filled or not, in so long from then. CLIENTS_MOST: none does. */
	uint32_t killer, submits, fill, spin_ns;
	struct client_count count[CLIENTS_MOST];
};

enum cache_kind { CACHE_F16, CACHE_HIER4, CACHE_INT8, CACHE_KINDS };

#define SLOTS 8      /* entries in flight */
#define SLOT_ROWS 48 /* rows of one */

struct digest { /* of a result: what must come again, bit for bit */
	uint32_t rows, sealed, changes;
	uint64_t sum;
};

struct client {
	struct shared *shared;
	struct client_count *count;
	const char *socket;
	uint32_t index, round, submits;
	int32_t pid; /* of the daemon */
	int32_t visited; /* the daemon that load_cold() was at last */
	bool extras;     /* makes use of extras.c, */
	bool spills;     /* with a daemon that spills */
	bool drops;      /* its sequences go when it does */
	bool resumes; /* always goes on with its handles; else mostly as another program, by names
		       */
	uint64_t random;

	sparq *c;
	sparq_queue *queue;
	char options[64]; /* of the caches */
	sparq_cache *cache[CACHE_KINDS];
	sparq_seq *seq[MODEL_SEQUENCES];
	sparq_cache *spare_cache; /* beside the model: beside.c */
	sparq_seq *spare;
	sparq_buf *buf;
	float *kv, *q, *o, *lse; /* in the arena; kv[SLOTS][SLOT_ROWS] rows */
	struct sparq_item *item; /* [MODEL_SEQUENCES] for each slot */
	uint64_t begun, done;    /* entries: submitted, completed */

	struct model model;
	uint16_t version[MODEL_SEQUENCES], next_version; /* of rows appended from now on */
	bool fresh[MODEL_SEQUENCES][MODEL_LAYERS];       /* appended to in this session: flushed */
	uint32_t changes[MODEL_SEQUENCES];               /* sent */
	struct digest digest[MODEL_SEQUENCES][MODEL_LAYERS];
	struct content_sets sets;
	uint64_t operations; /* how many load_run() makes; 0: no limit */
};

/* ---- client.c: the session ---------------------------------------------------------- */

__attribute__((noreturn, format(printf, 2, 3))) void client_fail(const struct client *k,
								 const char *format, ...);
uint32_t client_random(struct client *k, uint32_t below);
enum cache_kind client_kind(uint32_t seq);
bool client_exact(uint32_t seq);
void client_name(const struct client *k, uint32_t seq, char ret[SPARQ_NAME_MAX + 1]);

/* A session, its caches and memory, if there is none; tries until a daemon answers. */
void client_open(struct client *k);
/* Only a session and memory; -ENOTCONN. */
int client_open_bare(struct client *k);
/* The same rows in both, of which queries ask one half each: so that KV heads can lie apart. */
#define CLIENT_KV_HEADS 2
#define CLIENT_ROW_FLOATS (CLIENT_KV_HEADS * CONTENT_ROW_FLOATS)
void client_row(uint64_t key, uint32_t layer, uint32_t row, uint16_t version, float *ret);
void client_params(struct client *k, enum cache_kind kind, struct sparq_cache_params *ret);
/* It broke. */
void client_break(struct client *k);
void client_close(struct client *k);
/* Success, or -ENOTCONN. */
int client_check(const struct client *k, const char *what, int result);
uint64_t client_addr(const struct client *k, const void *p);
/* An entry for the next slot; makes room by waiting. NULL: the session broke. */
struct sparq_sqe *client_entry(struct client *k, uint32_t *ret_slot);
int client_submit(struct client *k);
/* Waits for the oldest entry in flight, which is acknowledged. */
int client_take(struct client *k, struct sparq_cqe *ret);
int client_drain(struct client *k);
/* A request on the control socket that changes sequences: nothing is in flight beside it. */
void client_sent(struct client *k, const struct op *op);
float *client_rows(const struct client *k, uint32_t slot);
uint16_t client_version(struct client *k); /* one that was not used for long */

/* ---- load.c -------------------------------------------------------------------------- */

/* Random operations; 0: it is time to stop, or as many as asked for were made. */
int load_run(struct client *k);
/* One entry that appends; what is known of it is the caller's to note, before. */
int load_append(struct client *k, const struct op *op, uint16_t flags);

/* ---- beside.c: with sequences that need not be found again ------------------------------ */

int load_fork(struct client *k, uint32_t seq);
int load_digest(struct client *k, uint32_t seq);
int load_replica(struct client *k, uint32_t seq);
int load_cache(struct client *k);

/* Rows [row, row + n) of one layer, as `s` says, for a sequence that is not in the model. */
int load_rows(struct client *k, sparq_seq *handle, const struct model_seq *s, uint32_t layer,
	      uint32_t row, uint32_t n);

/* ---- extras.c: with files, other sessions, other memory ----------------------------------- */

int load_tokens(struct client *k);
int load_file(struct client *k, uint32_t seq);
int load_cold(struct client *k);

/* ---- verify.c ------------------------------------------------------------------------ */

/* After a crash: attaches the sequences, checks every acknowledged row, and sends again what was
 * in flight. */
int verify_run(struct client *k);
/* Drops all sequences. */
int verify_start_over(struct client *k);
/* Rows of one sequence that are not as `s` says. */
int verify_content(struct client *k, sparq_seq *handle, uint32_t seq, const struct model_seq *s,
		   uint32_t *ret_wrong);
int verify_digest(struct client *k, sparq_seq *handle, uint32_t layer, uint32_t rows,
		  uint64_t *ret);
