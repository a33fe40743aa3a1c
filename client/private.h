/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands behind the handles of sparq.h.
 *
 * A connection is counted: it, and every handle made from it, holds one
 * reference, so that memory stays mapped until the last handle has gone,
 * whatever the order in which a program lets go of them. Queues may be closed
 * from threads of their own; the count and `dead` are the only words here that
 * two threads touch.
 */
#pragma once

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

/* ---- arena.c: which bytes of the arena are taken --------------------------- */

#define ARENA_ALIGN 128u /* two lines: neighbours never share a prefetched pair */

struct sparq_buf { /* a block of the arena, taken or free */
	sparq *c;
	uint64_t offset, bytes; /* multiples of ARENA_ALIGN */
	bool taken;
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

/* ---- conn.c ------------------------------------------------------------------ */

struct sparq_queue {
	sparq *c;
	bool taken; /* by the program; connection's thread, released by the queue's (atomic) */
	uint32_t index, spin_ns;
	struct ring_client ring;
	struct doorbell bell;
	struct flight flight;
	int fd;            /* -1: never asked for */
	bool armed;        /* cq_need may be 2 */
	uint32_t empty;    /* peeks in a row that found nothing */
	int64_t looked_ns; /* when the socket was last looked at */

	/* After the daemon's end, queue-end.c. */
	bool ended;
	uint32_t n_last; /* completions that were published and are not read yet */
	uint32_t n_lost, lost_read;
	struct sparq_cqe *lost; /* stand for the entries that were in flight */
};

struct sparq {
	uint32_t refs; /* atomic */
	uint32_t dead; /* atomic; 1: the session is over */
	pid_t pid;     /* of the process that opened it */
	int socket, doorbell;
	uint32_t cookie;
	struct segment segment, page;
	struct sparq_msg_hello_reply told; /* checked by hello_check */
	struct arena arena;
	struct sparq_queue *queue[SPARQ_MAX_QUEUES]; /* made on first use, kept until the end */
	char name[64];
	char error[SPARQ_ERROR_TEXT];
};

sparq *conn_ref(sparq *c);
sparq *conn_unref(sparq *c);
/* Is the daemon's end of the session there? Any thread; one system call. */
bool conn_alive(sparq *c);
/* Ends the session for every handle: a dead daemon, a broken protocol, sparq_close. */
void conn_end(sparq *c);
/* One request and its reply, in place. Failures leave their text for sparq_error. */
int conn_call(sparq *c, union message *m);
int conn_call_fds(sparq *c, union message *m, int *fds, unsigned n_fds);
/* Sets the text and returns `error`. */
int conn_fail(sparq *c, int error, const char *format, ...) PRINTF_LIKE(3, 4);
/* Copies a string into a message's field; NULL is "". -EINVAL with text if it is too long. */
int conn_string(sparq *c, const char *what, const char *value, char *ret, size_t n);

/* ---- hello.c ------------------------------------------------------------------ */

/* Everything that a reply to HELLO may get wrong, before any of it is used: 0, -EPROTONOSUPPORT
 * (another major version, or a feature that this library must know and does not), -EPROTO. */
int hello_check(const struct sparq_msg_hello_reply *r, const struct sparq_msg_hello *asked,
		const char **why);
int hello_check_page(const struct sparq_daemon_page *p, const struct sparq_msg_hello_reply *r,
		     const char **why);

/* ---- queue.c, queue-end.c --------------------------------------------------------- */

void queue_free(struct sparq_queue *q);
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

int socket_connect(const char *path, int type, int64_t timeout_ns, int *ret);
