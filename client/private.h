/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands behind the handles of sparq.h.
 *
 * A connection is counted: it, and every handle made from it, holds one
 * reference, so that memory stays mapped until the last handle has gone,
 * whatever the order in which a program lets go of them.
 *
 * It outlives its sessions. One ends with the daemon; the next is made by
 * whichever thread calls in first, the others wait for it. A session, with its
 * rings and its arena, lives as long as something refers to it: the connection
 * to the present one, a queue to the one that its ring is of, a buffer to the one in
 * which its address was last asked for. So nothing is mapped away under a
 * thread that has not yet heard of the end.
 *
 *   queue:  TAKEN(s) --end of s--> ended --read, sparq_queue_resume--> TAKEN(s')
 *
 * Two locks. `speak` is held for a request and its reply, and while handles are
 * attached again; it guards what handles say of themselves, and the list of
 * them. `lock` is held for a few instructions, and taken last. A queue's thread
 * needs neither until its session ends.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/sparq.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/doorbell.h"
#include "shm/message.h"
#include "shm/ring.h"
#include "shm/segment.h"

#define NS_PER_MS INT64_C(1000000)
#define OPEN_TIMEOUT_NS (30 * NS_PER_S) /* a daemon that starts prefaults its pools first */
#define CALL_TIMEOUT_NS (10 * NS_PER_S)
/* What is on the daemon's disk comes back as fast as the disk is: the answer, or the daemon's end,
 * will come. */
static inline int64_t call_timeout_ns(uint16_t type)
{
	return type == SPARQ_MSG_SEQ_ATTACH || type == SPARQ_MSG_SEQ_ADOPT ? -1 : CALL_TIMEOUT_NS;
}
#define RECONNECT_MS 10000u /* unless the program says how long calls wait for a daemon */

/* ---- arena.c: which bytes of the arena are taken --------------------------- */

#define ARENA_ALIGN 128u /* two lines: neighbours never share a prefetched pair */

struct sparq_buf { /* a block of the arena, taken or free */
	sparq *c;
	uint64_t offset, bytes; /* multiples of ARENA_ALIGN */
	bool taken;
	struct session *asked; /* lock; whose address the program has; NULL: it never asked */
	struct sparq_buf *before, *after;        /* by address */
	struct sparq_buf *free_prev, *free_next; /* free blocks, in no order */
};

struct arena {
	struct sparq_buf *first;
	struct sparq_buf *free;
};

int arena_init(struct arena *a, uint64_t bytes);
void arena_deinit(struct arena *a);
int arena_take(struct arena *a, uint64_t bytes, struct sparq_buf **ret); /* -ENOMEM */
void arena_give(struct arena *a, struct sparq_buf *b);

/* ---- flight.c: which entries have no completion yet ------------------------ */

/* The user_data of what was submitted, oldest first. Completions mostly come in order, so the
 * one looked for is mostly the oldest. Slots in [head, tail) whose `done` is set are holes. */
struct flight {
	uint64_t *user_data;
	uint8_t *done;
	uint32_t head, tail, mask, live;
};

int flight_init(struct flight *f, uint32_t most); /* most that can be in flight */
void flight_deinit(struct flight *f);
void flight_add(struct flight *f, uint64_t user_data);
void flight_done(struct flight *f, uint64_t user_data);
/* Takes out the oldest; false when none is left. */
bool flight_take(struct flight *f, uint64_t *ret);

/* ---- session.c: what lives as long as the daemon's end does ------------------ */

struct session {
	uint32_t refs; /* atomic */
	uint32_t dead; /* atomic; 1: over */
	pid_t pid;     /* of the process that opened it */
	int socket, doorbell;
	uint32_t cookie; /* of whoever speaks */
	struct segment segment, page;
	struct sparq_msg_hello_reply told; /* checked by hello_check */
};

/* Connects and shakes hands, in at most `limit_ns`. The sentence of a failure goes to `why`. */
int session_open(const char *path, const struct sparq_msg_hello *hello, int64_t limit_ns, char *why,
		 struct session **ret);
struct session *session_ref(struct session *s);
struct session *session_unref(struct session *s);
/* Is the daemon's end there? Any thread; one system call. */
bool session_alive(struct session *s);
/* Over, for whoever uses it: a broken protocol, sparq_close. */
void session_end(struct session *s);
/* One request and its reply, in place. What the daemon answered leaves the session as it was, and
 * so does an answer that is late; any other failure is the end of it, and `*ret_sent` says whether
 * the daemon may have seen the request. */
int session_call(struct session *s, union message *m, int *fds, unsigned n_fds, int64_t timeout_ns,
		 char *why, bool *ret_sent);

/* ---- conn.c ------------------------------------------------------------------ */

/* A queue that was closed while entries were in flight is nobody's until its session ends. */
enum queue_state { QUEUE_FREE, QUEUE_TAKEN, QUEUE_LEFT };

struct sparq_queue {
	sparq *c;
	enum queue_state state;  /* lock */
	struct session *session; /* its thread's while taken, else under lock; NULL: no ring yet */
	uint32_t index, spin_ns, spin_us; /* 0: as the daemon advises */
	struct ring_client ring;
	struct doorbell bell;
	struct flight flight;
	int fd;            /* -1: never asked for */
	bool armed;        /* cq_need may be 2 */
	uint32_t empty;    /* peeks in a row that found nothing */
	int64_t looked_ns; /* when the socket was last looked at */
	char *why;         /* sentence of a failed resume, SPARQ_ERROR_TEXT bytes */

	/* After the daemon's end, queue-end.c. */
	bool ended;
	uint32_t n_last; /* completions that were published and are not read yet */
	uint32_t n_lost, lost_read;
	struct sparq_cqe *lost; /* stand for the entries that were in flight */
};

struct handle;

struct sparq {
	uint32_t refs; /* atomic */
	pid_t pid;     /* of the process that opened it */
	char *path;
	struct sparq_msg_hello hello; /* what the first session was given, to be asked for again */
	int64_t patience_ns;          /* how long a call waits for a daemon; < 0: not at all */

	pthread_mutex_t speak;
	struct handle *caches, *sequences; /* speak */

	pthread_mutex_t lock;
	pthread_cond_t changed;  /* reviving, closed */
	bool closed, reviving;   /* lock */
	struct session *session; /* replaced under speak and lock; read under either */
	uint32_t serial;         /* as the session: one more with each */
	uint32_t known;          /* lock; serial that the program has heard of */
	int fd;                  /* lock; what sparq_fd gave; -1 */
	struct sparq_queue *queue[SPARQ_MAX_QUEUES]; /* lock; made on first use, kept */
	int64_t next_try_ns, back_off_ns;            /* whoever revives */
	uint64_t random;

	struct arena arena;
	char name[64];
	char error[SPARQ_ERROR_TEXT];
};

sparq *conn_ref(sparq *c);
sparq *conn_unref(sparq *c);
/* A child of fork() shares the socket, not the memory; nor can it know who held a lock. */
bool conn_is_child(const sparq *c);
/* The present session, counted. */
struct session *conn_session(sparq *c);
uint64_t conn_features(sparq *c);
/* SPARQ_PLACEMENT_*, in the reply to CACHE_STAT or SEQ_STAT. */
uint32_t conn_placement(sparq *c, const union message *m);
/* One request and its reply, in place; a session that is over is replaced before, and after if
 * the request may be said twice (call.c). Failures leave their text for sparq_error. */
int conn_call(sparq *c, union message *m);
/* Of a handle: its id is filled in, anew each time. -ESTALE if what it stood for is lost. */
int conn_call_of(struct handle *h, union message *m);
/* Said if the session is there, and never again: what an end does by itself. */
void conn_tell_of(struct handle *h, union message *m);
/* Sets the text and returns `error`. */
int conn_fail(sparq *c, int error, const char *format, ...) PRINTF_LIKE(3, 4);
int text_fail(char *why, int error, const char *format, ...) PRINTF_LIKE(3, 4);
/* Copies a string into a message's field; NULL is "". -EINVAL with text if it is too long. */
int conn_string(sparq *c, const char *what, const char *value, char *ret, size_t n);

/* ---- revive.c, again.c --------------------------------------------------------- */

#define REVIVE_FOREVER INT64_MAX
#define REVIVE_ONCE 0 /* one try, if one is due */
/* A session that is over is replaced by a new one, in which every handle is attached again: 0 when
 * there is one that is not over. -ETIME at the deadline, -ENOTCONN when the connection is closed,
 * or what no waiting mends; `why` has the sentence. Any thread: one does it, others wait. */
int conn_revive(sparq *c, int64_t deadline_ns, char *why);
/* Attaches every handle again, in a session that nobody else uses yet; marks what is lost. Under
 * speak. -errno: the session broke, and all of it has to be done again. */
int again_all(sparq *c, struct session *s, char *why);

/* ---- hello.c ------------------------------------------------------------------ */

/* Everything that a reply to HELLO may get wrong, before any of it is used: 0, -EPROTONOSUPPORT
 * (another major version, or a feature that this library must know and does not), -EPROTO. */
int hello_check(const struct sparq_msg_hello_reply *r, const struct sparq_msg_hello *asked,
		const char **why);
int hello_check_page(const struct sparq_daemon_page *p, const struct sparq_msg_hello_reply *r,
		     const char **why);

/* ---- queue.c, queue-make.c, queue-end.c ---------------------------------------------- */

void queue_free(struct sparq_queue *q);
/* Out of the session it was of, for the next owner. Under lock. */
void queue_reset(struct sparq_queue *q);
/* Its session is over: seen here, or by somebody else. */
bool queue_is_over(const struct sparq_queue *q);
/* Notes that the daemon is gone: counts what it published, turns the rest into `lost`. */
void queue_end(struct sparq_queue *q);
int queue_end_peek(struct sparq_queue *q, struct sparq_cqe **ret, unsigned n);
void queue_end_seen(struct sparq_queue *q, unsigned n);

/* ---- version.c: structs that begin with their size --------------------------------- */

/* Takes a caller's struct into ours: a shorter one is completed with zeros. -EINVAL for a size that
 * holds not even itself, -E2BIG for a longer one that sets what we do not know. */
int struct_take(void *ours, size_t n, const void *given);
/* Gives ours to a caller who has told its size in the first word of `ret`. */
int struct_give(void *ret, const void *ours, size_t n);

/* At most `timeout_ns`; -ETIMEDOUT. */
int socket_connect(const char *path, int type, int64_t timeout_ns, int *ret);
