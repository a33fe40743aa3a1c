/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client: who it is (the kernel says), where its handshake stands, what it
 * holds, and giving all of it back.
 *
 *   NEW --HELLO--> MAPPING --MAPPED, sealed--> SERVING --+
 *    |                |                                  | hang-up, violation, drain
 *    |--STATS--> WATCHING: it has the stats page, and no session
 *    +----------------+--> freed <--(DETACHED)-- LEAVING <+
 *
 * Whatever it can make the daemon hold is charged to its uid before it is
 * taken, and refunded item by item.
 *
 * Replies: at most one is unsent. While it waits for room no request is read,
 * so a client that does not read holds one packet and nobody up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "daemon/loop.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "shm/message.h"

enum peer_state { PEER_NEW, PEER_MAPPING, PEER_SERVING, PEER_LEAVING, PEER_WATCHING };

struct peer_cache { /* references are per message, so that attach and unref pair up */
	struct cache *cache;
	uint32_t refs;
};

struct peer {
	struct server *server;
	struct peer *next, *previous;
	enum peer_state state;
	int fd, pidfd;
	struct loop_source source, death;
	struct ucred cred;
	struct user *user;
	uint64_t deadline_ns; /* of the handshake */
	int refused;          /* -errno that HELLO will be answered with; 0: none */
	bool detach_asked;

	struct session *session;
	uint32_t fault_slot;
	struct peer_cache *cache;
	uint32_t n_caches, cache_room;

	struct peer_save *save; /* a sequence on its way out or in; NULL */

	/* Its segment is taken in parts: between them the others are served. */
	struct loop_timer next_part;
	size_t taken_bytes;
	bool is_taking;

	bool charged_session, watched;
	uint32_t charged_queues;
	uint64_t charged_bytes;

	union message out;
	int out_fds[MESSAGE_MAX_FDS]; /* borrowed from the session */
	unsigned n_out_fds;
	bool out_pending, close_after;
	struct spill_wait wait; /* the request in `out` comes again when that is over */
	bool wants_room;        /* so does it when there may be room */
	bool wants_device;      /* and when a device has opened, or failed to */
};

/* Takes the connection; closes it if even refusing it would be too much. */
void peer_accept(struct server *s, int fd);
/* One that was to be refused becomes a session if there is room by now: a client that closes and
 * opens again need not know how long the first takes to end. */
void peer_admit_again(struct peer *p);
/* Ends it: at once if no worker knows it, else after the DETACHED event. */
void peer_close(struct peer *p);
void peer_detached(struct peer *p);
void peer_fatal(struct peer *p, int error); /* a worker saw it break the protocol */
bool peer_hit(const struct peer *p);        /* a SIGBUS was caught in its segment */
/* Deadlines of handshakes, detachments that found no memory; false: nothing is left to watch. */
bool peer_sweep(struct peer *p, uint64_t now_ns);

/* ---- requests: peer-hello.c, peer-calls.c, peer-attach.c ---------------------------------- */

/* A request in `m` becomes its reply in `m` (0), or `why` (SPARQ_ERROR_TEXT bytes) says what is
 * wrong (-errno). Descriptors of the reply go to p->out_fds. */
/* PEER_LATER: it is to be made again when what p->wait waits for is over; *m is as it was. */
#define PEER_LATER 1
typedef int peer_call_fn(struct peer *p, union message *m, char *why);
peer_call_fn peer_hello, peer_mapped;
peer_call_fn peer_cache_attach, peer_seq_adopt; /* peer-attach.c */
peer_call_fn peer_seq_export, peer_seq_import;  /* peer-save.c */
peer_call_fn peer_seq_import_piece, peer_seq_import_end;
peer_call_fn peer_seq_prefetch;                 /* peer-spill.c */
peer_call_fn peer_seq_tokens, peer_seq_create_prefix; /* peer-prefix.c */
peer_call_fn peer_seq_pin;                      /* peer-pin.c */
peer_call_fn peer_stats;                        /* peer-stats.c */
peer_call_fn *peer_call(const struct peer *p, uint16_t type); /* NULL: no such type */
/* Takes the caller's reference to the cache into the session, or lets go of it. */
int peer_hold_cache(struct peer *p, struct cache *cache, char *why);
/* Lets go of a sequence that is being saved, gives up one that is being loaded. */
void peer_save_end(struct peer *p);
/* "; saving CACHE/NAME: 42 %" if somebody is; else `ret` stays as it is. */
void peer_save_sentence(const struct server *s, char *ret, size_t n);
void peer_session_free(struct peer *p); /* and refunds what peer_hello charged */

/* Only those of this session: another's id is as good as none. */
struct peer_cache *peer_held_cache(struct peer *p, uint64_t id);
int peer_no_cache(uint64_t id, char *why); /* -ENOENT */
/* What a call returns whose sequence is not in memory (SEQ_ELSEWHERE): PEER_LATER, or -errno. */
int peer_await(struct peer *p, struct seq *s, char *why);
/* A call has failed with *error: true if there is room now, and it is worth making again; else
 * *error is what it returns, PEER_LATER if room is on its way. */
bool peer_has_room(struct peer *p, int *error);
/* Its device is being opened: PEER_LATER. */
int peer_await_device(struct peer *p);
void peer_look_for_device(struct peer *p);
/* HELLO goes on after a moment, until then it is PEER_LATER. */
void peer_take_more(struct peer *p);
/* Something was spilled, or failed to be: those who wait for room try again. */
void peer_look_for_room(struct peer *p);

#define PEER_REFUSE(error, ...) (snprintf(why, SPARQ_ERROR_TEXT, __VA_ARGS__), (error))
