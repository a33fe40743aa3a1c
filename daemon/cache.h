/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache: geometry, formats, policy with its parameters, budget. What must
 * survive is its catalogue record; this struct is derived from it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/cache-params.h"
#include "daemon/catalogue.h"
#include "daemon/channels.h"
#include "daemon/device.h"
#include "daemon/evict-order.h"
#include "daemon/prefix.h"
#include "daemon/shortage.h"
#include "daemon/spread.h"
#include "daemon/user.h"
#include "kernels/kernels.h"
#include "shm/sparq-abi.h"
#include "shm/stats-page.h"

struct auditor;
struct seq;
struct spill;
struct stats_page;
struct store;
struct table;

enum on_disconnect { ON_DISCONNECT_DROP, ON_DISCONNECT_PARK };
/* Which parked sequences go when there is no room (evict.h). NONE: only prefixes, which are
 * nobody's. */
enum evict_policy { EVICT_NONE, EVICT_LRU, EVICT_LFU };
extern const char *const evict_names[3];

struct cache {
	uint64_t id;
	struct store *store;
	struct user *user;
	struct cache_record *record;
	struct spaces spaces;
	uint8_t args[KV_POLICY_ARGS_BYTES]; /* what those point at */
	struct channels channels;
	uint64_t creator;       /* session: it may load channel tables */
	uint64_t budget_bytes;  /* 0: none of its own */
	uint64_t charged_bytes; /* atomic */
	uint32_t n_sequences, n_sessions; /* control thread */
	uint32_t parked,
		pinned; /* control thread: nobody is attached to; never evicted (census.h) */
	uint64_t rows;  /* atomic: of the shortest layer of each sequence */
	uint32_t rollback, timeout_us;
	uint32_t policy_slot, format_slot; /* in the header of the stats page; of K of layer 0 */
	uint64_t rows_walked; /* control thread: of layer 0, by the walk that is under way */
	enum on_disconnect on_disconnect;
	enum evict_policy evict;
	enum spread spread;
	struct device *device; /* that runs its steps; NULL: none */
	uint32_t device_rows;  /* device_use.rows: DEVICE_ROWS_ALL, or its steps are split */
	const struct kv_parts *parts; /* of striped pages; NULL: it has none */
	struct pressure pressure; /* on its budget */
	struct evict_queues queues; /* who goes first (evict-order.h) */
	uint64_t evicted_sequences, evicted_bytes; /* control thread */
	uint32_t audits; /* atomic: under way; it stays until they are over */
	uint32_t dense_s; /* control thread: how long its last spell of dense attention was */
	uint64_t dense_until_ns;   /* atomic: an audit found too large an error (audit_max_error) */
	struct stats_audit audit;  /* control thread, like audits_beyond */
	uint64_t audits_beyond;
	struct seq *first, *attached;
	struct cache *next;
};

/* The formats of a layer, and all else that kernels ask. */
static inline const struct kv_space *cache_layer(const struct cache *c, uint32_t layer)
{
	return spaces_layer(&c->spaces, layer);
}

/* What all layers have in common: dimensions, dtype, sinks and chunks. */
static inline const struct kv_space *cache_shape(const struct cache *c)
{
	return &c->spaces.space[0];
}

/* Everything a daemon stores: the pool, the catalogue and what is derived from them. Control
 * thread, but for what seq.h marks as the token path. */
struct store {
	struct pool *pool;
	struct catalogue *catalogue;
	struct users *users;
	struct spill *spill; /* NULL: nothing is */
	struct auditor *auditor; /* NULL: nothing is audited */
	struct devices *devices; /* NULL: there are none */
	struct cache *caches;
	struct seq **seq_by_slot; /* atomic pointers: workers look ids up */
	struct seq **by_name;     /* buckets of names (census.h) */
	uint64_t name_key[2];
	uint32_t name_mask;
	struct table *tables;     /* by first block: what is derived of each (table.h) */
	struct prefixes prefixes;
	uint32_t max_sequences;
	uint32_t max_rows;        /* of one sequence: configuration */
	unsigned next_node;       /* whose turn it is to have a new sequence */
	enum spread spread;       /* of caches that do not say: configuration */
	struct kv_parts parts;    /* of striped pages */
	struct shortage shortage; /* of the last control call that found no room */
	const struct stats_page *stats; /* where sequences are counted; NULL: nowhere */
	int room_fd;              /* eventfd: workers ask for room (evict.h); -1: in vain */
	uint64_t uses;            /* counts them, for an order within a second */
	bool reattaching;         /* after a restart, until clients had time to come back */
};
int store_init(struct store *s, struct pool *pool, struct catalogue *catalogue, struct users *users,
	       uint32_t max_rows);
void store_deinit(struct store *s);

/* Creates, or attaches to an equal one of the same uid and name. The options text of the message is
 * "key=value" words: those of the policy, and those of cache-params.c. -EINVAL, -EOPNOTSUPP,
 * -EEXIST, -EDQUOT, -ENOSPC with `why` (SPARQ_ERROR_TEXT bytes) naming the parameter,
 * its value and what is allowed, or the first one that differs. DEVICE_LATER: its device is being
 * opened; so with cache_attach. */
int cache_create(struct store *s, struct user *user, const struct sparq_msg_cache_create *m,
		 struct cache **ret, char *why);
/* Builds the one of a LIVE record whose checksum agrees; no session holds it. -EUCLEAN with `why`,
 * -ENOMEM. */
int cache_revive(struct store *s, uint32_t slot, struct cache **ret, char *why);
struct cache *cache_find(struct store *s, const struct user *user, uint64_t id);
struct cache *cache_find_named(struct store *s, const struct user *user, const char *name);
/* One of this user's, by id, or by name where id is 0; one session more. -EINVAL, -ENOENT. */
int cache_attach(struct store *s, const struct user *user, uint64_t id, const char *name,
		 struct cache **ret, char *why);
/* One session fewer; a cache without sessions and sequences is dropped. */
void cache_unref(struct cache *c);
/* A client's: with the last one go the prefixes of a cache that has no name to find it by. */
void cache_leave(struct cache *c);
/* A policy parameter, before the first sequence (-EBUSY). */
int cache_set(struct cache *c, const char *key, const char *value, char *why);
void cache_stat(const struct cache *c, struct sparq_msg_cache_stat *ret);

/* And its user. -ENOSPC: its budget, -EDQUOT: the quota of its user; nothing is charged then. Any
 * thread. */
int cache_charge(struct cache *c, uint64_t bytes);
void cache_refund(struct cache *c, uint64_t bytes);
/* After a restart: what it and its user hold already. */
void cache_restore(struct cache *c, uint64_t bytes);
