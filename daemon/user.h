/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom things are charged to: one slot per uid. Whatever a client can make the
 * daemon hold is charged here before it is taken, and refunded when given back.
 * Counters are atomic: workers charge on the token path without a lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum user_what {
	USER_BYTES, /* pool, catalogue and segment memory */
	USER_SESSIONS,
	USER_QUEUES,
	USER_CACHES,
	USER_SEQUENCES,
	USER_SPILLED,      /* bytes of files of spilled sequences */
	USER_DEVICE_BYTES, /* those of USER_BYTES that are of caches on devices */
	USER_WHATS
};
extern const char *const user_what_names[USER_WHATS];

struct stats_page;
struct stats_user;

/* What workers and the control thread tell each other of a limit, without a lock (evict.h). */
struct pressure {
	uint32_t may_evict; /* atomic: there may be something that could go; else asking is vain */
	uint32_t high;      /* atomic: above its mark, and the control thread was told */
};

struct user {
	uid_t uid;
	uint32_t refs;                /* control thread only */
	uint64_t charged[USER_WHATS]; /* atomic */
	uint64_t limit[USER_WHATS];   /* set by configuration and reload; read relaxed */
	struct stats_user *stats;     /* where its steps are counted; NULL: nowhere */
	struct pressure pressure;     /* on its quota and on the pool */
	uint64_t evicted_sequences, evicted_bytes; /* control thread */
	struct user *next;
};

struct users {
	struct user *first;
	uint64_t limit[USER_WHATS];     /* of a new slot */
	const struct stats_page *stats; /* NULL: users are not counted */
};

/* A slot with one more reference; -ENOMEM. Control thread. */
int users_get(struct users *u, uid_t uid, struct user **ret);
struct user *users_put(struct users *u,
		       struct user *user); /* freed with the last reference if nothing is charged */
void users_deinit(struct users *u);
/* New limits for every slot, present ones too (reload). */
void users_limit(struct users *u, const uint64_t limit[USER_WHATS]);

int user_charge(struct user *u, enum user_what what, uint64_t n); /* -EDQUOT: nothing charged */
/* After a restart: what was charged before it, whatever the limit is by now. */
void user_restore(struct user *u, enum user_what what, uint64_t n);
void user_refund(struct user *u, enum user_what what, uint64_t n);
