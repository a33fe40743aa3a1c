/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds the daemon's memory while the daemon is away: systemd's descriptor
 * store, or the parent that `sparqd --keeper` is. Both speak one protocol:
 * FDSTORE=1 hands a copy of a descriptor over, the next start finds it after the
 * listening sockets, by name.
 *
 *   catalogue           what lies where
 *   pool-0 .. pool-251  the arenas, by their index
 *
 * What comes back was made by a daemon, but perhaps by another one: a name that
 * this one does not know is closed here and stays in the store (a newer daemon
 * may want it). What cannot be right - a name twice, more than there can be,
 * memory that nobody can write - is `error` and `why`: the daemon then has
 * nothing of it and is to refuse service (server_refuse), for to start empty
 * would be to lose it.
 */
#pragma once

#define KEEP_MOST 253 /* descriptors: also FileDescriptorStoreMax= of the unit */
#define KEEP_NAME_BYTES 16
#define KEEP_CATALOGUE "catalogue"
#define KEEP_WHY_BYTES 240

enum keep_kind { KEEP_NONE, KEEP_SYSTEMD, KEEP_KEEPER };

struct kept_fd {
	char name[KEEP_NAME_BYTES];
	int fd; /* -1: taken */
};

struct kept {
	int session, control; /* listening sockets, -1: none was handed over */
	struct kept_fd stored[KEEP_MOST];
	unsigned n;
	int error; /* 0, or -EUCLEAN and nothing in `stored` */
	char why[KEEP_WHY_BYTES];
};
#define KEPT_NULL ((struct kept){ .session = -1, .control = -1 })

/* Everything that was handed over at the start; once, and nothing of it is left in the environment.
 * 0, or -errno: what the environment says of it makes no sense. */
int keep_take(struct kept *ret);
/* Takes one out, by name: the descriptor, or -ENOENT. */
int kept_steal(struct kept *k, const char *name);
/* How many are still there. */
unsigned kept_left(const struct kept *k);
void kept_deinit(struct kept *k); /* closes what nobody took; the store keeps its copies */

/* The name of the i-th pool. */
void keep_pool_name(unsigned i, char ret[KEEP_NAME_BYTES]);

/* Whether anybody holds what is pushed. KEEP_SYSTEMD: as many as its unit allows. */
enum keep_kind keep_kind(void);
const char *keep_kind_name(enum keep_kind kind); /* for a sentence: "systemd", "the keeper" */

/* Hands a copy over, or has the copies of a name closed. A descriptor that is held already is held
 * once. 0 also where nobody keeps; -errno. */
int keep_push(const char *name, int fd);
int keep_drop(const char *name);
/* Waits until all that was pushed and dropped is held and closed: what a client is told from here
 * on outlives us. 0; -ETIMEDOUT: the manager does not answer. */
int keep_settle(void);
/* After a start that failed under a manager which tries again at once, for ever: two seconds, or
 * until it wants an end. The keeper waits by itself. */
void keep_rest(void);
