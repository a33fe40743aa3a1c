/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data-plane half of a connection: its segment, its rings, whom they are
 * charged to. The control thread makes and destroys it; between workers_attach
 * and the DETACHED event it belongs to one worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/room.h"
#include "daemon/user.h"
#include "shm/ring.h"
#include "shm/segment.h"

struct queue { /* the daemon's end of one ring */
	struct ring_daemon ring;
	int wake_fd;     /* atomic; the end that is written, -1 until the client asked */
	int client_end;  /* what it is given: control thread's */
	uint32_t number; /* unique among all rings of the daemon: owner of sequences */
	bool failed;     /* the entry before failed and had LINK: cancel the next */
	bool cold;       /* no longer scanned: its doorbell brings it back */
	bool worked;     /* since the worker last looked at its clock */
	uint64_t last_work_ns;
	struct session *session;
	struct queue *next; /* worker's list of those it scans */
	struct room room;
};

enum worker_event_kind {
	WORKER_DETACHED,
	WORKER_FATAL, /* the client broke the protocol (error): close it */
	WORKER_EVENT_KINDS
};
struct worker_event {
	enum worker_event_kind kind;
	struct session *session;
	int error;
};
struct worker_event_node {
	struct worker_event event;
	struct worker_event_node *next;
};

struct session {
	uint64_t id; /* never reused, never 0 */
	struct user *user;
	struct segment segment;
	struct segment_layout layout; /* the daemon's copy: sizes are read from here alone */
	int doorbell;                 /* eventfd, also held by the client */
	unsigned worker;              /* polls all of its rings, for life */
	uint32_t n_queues;
	struct queue queue[SPARQ_MAX_QUEUES];
	uint32_t ending; /* atomic: being detached, what it waits for is not worth computing */
	uint32_t room_asked; /* atomic: a queue of it asks for room */
	bool fenced; /* worker's: no ring of it is read any more */
	struct worker_event_node event[WORKER_EVENT_KINDS]; /* so that posting one cannot fail */
	void *peer;                                         /* the control thread's */
};
