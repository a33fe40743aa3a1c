/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence: rows per layer, kept as sinks, sealed tiles in extents and a
 * tail of chunks. Its record, tables and commit words lie in the catalogue.
 *
 * A struct seq belongs to its slot: made with the slot's first sequence, reused, freed with the
 * store. One owner at a time: `owner` is 0 when idle, or who runs entries or a control
 * call on it. A worker that takes it for a ring counts its entries in flight; the
 * control thread takes it alone. Whoever holds it is the only writer.
 *
 *   0 --(worker, first entry of ring q)--> q:1 <--> q:n --(last completes)--> 0
 *   q:1 --(its entry is over, its completion not yet posted)--> SETTLING --(flushed)--> 0
 *   0 --(control call)--> CONTROL --(done)--> 0
 *
 *   0 --(control thread, of another client's fork)--> SETTLING --(forked)--> 0
 *
 * Whoever meets SETTLING waits: the client has seen the completion, so the sequence is idle to it,
 * and -EBUSY would be a lie; it lasts for a flush at most, or for a fork.
 *
 * A fork shares its parent's table by one reference per layer up to a row, and
 * the pages of sinks and tail: whoever writes to one of those first takes a copy of
 * it. A slot of an extent is written once while a table that reaches it is shared.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/shortage.h"
#include "daemon/tokens.h"

struct spill_job;
struct stats_sequence;
struct table; /* derived: one per table of the catalogue, counted */

struct seq_layer; /* derived beside the record's layer: table, chunk references */

struct seq {
	uint64_t id;
	struct cache *cache;
	uint64_t owner;    /* atomic, see above */
	uint64_t session;  /* atomic: the session it is attached to, 0 parked */
	unsigned node;     /* index of its home */
	uint64_t bytes;    /* atomic: charged */
	uint32_t wanted;   /* atomic: the control thread is about to borrow it */
	struct tokens tokens; /* control thread */
	struct shortage shortage; /* its holder's: why it last found no room */
	uint64_t use;      /* store->uses when it was used last: control thread */
	void *record;      /* struct sequence_record, in the catalogue */
	struct spill_job *spilling; /* control thread: it is on its way out or in (spill.h) */
	uint64_t spilled_bytes;     /* of its file; charged */
	struct stats_sequence *stats; /* its holder counts there; NULL: nowhere */
	struct seq_layer *layer; /* [layers] */
	struct seq *next, **link;                   /* of its cache; control thread */
	struct seq *next_attached, **link_attached; /* of its cache, while it has a session */
	struct seq *next_named;                     /* whose names share a bucket */
	struct order_node order[EVICT_BYS];         /* while it may be evicted: evict-order.h */
	uint32_t least, n_least;                    /* its holder's: see census.h */
	bool rows_count;                            /* it is in the census, and here */
};

/* ---- control thread ------------------------------------------------------- */

int seq_create(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why);
/* SEQ_ELSEWHERE: *ret is the one that was meant, and is not attached: spill_await it first, then
 * ask again. So with seq_adopt. */
#define SEQ_ELSEWHERE 1
int seq_attach(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why);
/* By id, with or without a name. -ENOENT: none, or another user's; -EBUSY: it has a session. */
int seq_adopt(struct store *st, const struct user *user, uint64_t id, uint64_t session,
	      struct seq **ret, char *why);
/* Rows at most the least over the layers. -EBUSY while entries are in flight. */
int seq_fork(struct seq *parent, uint32_t rows, uint64_t session, struct seq **ret, char *why);
int seq_truncate(struct seq *s, uint32_t rows, char *why); /* all layers */
int seq_drop(struct seq *s, char *why);
/* Its client gives it up: dropped, or kept as a prefix (prefix.h). */
int seq_retire(struct seq *s, char *why);
/* The session ended (its ring is fenced, nothing in flight): dropped or parked, as its cache
 * says. */
void seq_release_session(struct store *st, uint64_t session);
/* Somebody else can find it, by its name or by what its rows are of. */
bool seq_is_known(const struct seq *s);
/* Drops it unless somebody has it or may begin with it; true: gone. */
bool seq_expire(struct seq *s);
/* A sequence of this user and session; NULL: none, or another's. */
struct seq *seq_find(struct store *st, const struct user *user, uint64_t session, uint64_t id);
/* By name, whoever has it. -EINVAL: no name, -ENOENT. */
int seq_find_named(struct cache *c, const char *name, struct seq **ret, char *why);
int seq_stat(struct seq *s, uint32_t layer, struct sparq_msg_seq_stat *ret); /* SPARQ_LAYER_ALL */

/* Rows of a layer: of one that is spilled, those that it has in its file. */
uint32_t seq_told(const struct seq *s, uint32_t layer);
/* Its client gave it up, and it is kept for others to begin with. */
bool seq_is_prefix(const struct seq *s);

bool seq_try_control(struct seq *s); /* false: busy */
void seq_end_control(struct seq *s);

/* ---- token path: by the worker that holds it, without lock or allocation --- */

/* Takes the sequence of an id for a ring, counted: once per entry. `ring` is any number but 0 and
 * UINT32_MAX. A slot's struct seq is reused, never freed before the store is, so the id and the
 * session are checked again under the hold. -ENOENT: none, or another's; -EBUSY: another ring or a
 * control call. */
int seq_hold(struct store *st, uint64_t session, uint64_t id, uint32_t ring, struct seq **ret);
/* Before the completion of its only entry is posted: idle to clients, a flush may follow. */
void seq_settle(struct seq *s);
void seq_release(struct seq *s);

uint32_t seq_rows(const struct seq *s, uint32_t layer); /* committed */

/* Makes room for n rows after the committed ones: takes and charges the chunks they need, copies
 * the pages that others read too. Nothing to undo if the step fails: they are used by the next
 * append or freed with the tail. -ENOSPC (s->shortage says of what), -E2BIG (max_rows). */
int seq_reserve(struct seq *s, uint32_t layer, uint32_t n);
/* What a kernel sees of rows [0, rows), committed and `reserved` ones alike (rows at most committed
 * + what was reserved). `extent` is room for `n_extent` entries; -E2BIG if too few. */
int seq_view(const struct seq *s, uint32_t layer, uint32_t rows, struct kv_extent *extent,
	     uint32_t n_extent, struct kv_view *ret);
/* Publishes the row count; one release store. */
void seq_commit(struct seq *s, uint32_t layer, uint32_t rows);
/* Is a tile complete with `rollback` newer rows behind it? */
bool seq_flush_due(const struct seq *s, uint32_t layer);
/* Takes the slot (and extent, charged) that the next flush writes. -ENOSPC: the rows stay
 * in the tail, and the next append that finds no chunk reports it. */
int seq_flush_begin(struct seq *s, uint32_t layer, struct kv_extent *ret_extent,
		    unsigned *ret_slot);
/* After kv_flush for every KV head: one release store of the commit word; frees the chunks. */
void seq_flush_commit(struct seq *s, uint32_t layer);
/* Keeps the rows below `rows`: one layer or SPARQ_LAYER_ALL. -ENOSPC when a table must be cut and
 * the catalogue is full, -EINVAL if it has fewer rows. */
int seq_cut(struct seq *s, uint32_t layer, uint32_t rows);
/* Upper bound of n_extents over all layers, to size a buffer. */
uint32_t seq_extents(const struct seq *s, uint32_t layer);
