/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's insides, shared by worker.c (control side) and worker-loop.c (its thread). */
#pragma once

#include <pthread.h>

#include "daemon/step.h"
#include "daemon/worker.h"
#include "shm/doorbell.h"

enum command_kind { COMMAND_ATTACH, COMMAND_DETACH, COMMAND_STOP };
struct command {
	enum command_kind kind;
	struct session *session;
	struct command *next;
};

struct worker { /* in memory of its node, with its stepper, its lane and its boards */
	pthread_t thread;
	unsigned index;
	int cpu;  /* pinned to; -1: not */
	int node; /* that it is pinned to: the kernel's number; -1: none */
	struct workers *all;
	struct stepper stepper;
	struct sleeper sleeper;
	int epoll, wake; /* wake: eventfd, for commands and shares */

	/* its thread's alone */
	struct queue *scanned; /* hot rings */
	uint32_t n_scanned, n_cold, n_sessions, n_waiting, idle_passes;
	uint64_t idle_since_ns, swept_ns;
	bool stopping;

	/* mailbox: the control thread puts, the worker takes all */
	pthread_mutex_t mutex;
	struct command *first, **last;
	uint32_t has_mail; /* atomic */

	/* written by its thread, read relaxed */
	uint64_t sleeps, timeouts_that_found_work, shares_helped, progress;
};

struct workers {
	struct store *store;
	unsigned n, n_started;
	uint32_t spin_ns;
	struct worker **worker;
	uint32_t *rung; /* [n * n]: the epoch in which worker a last rang worker b */

	pthread_mutex_t mutex; /* of the events */
	struct worker_event_node *first, **last;
	int event_fd;
};

void *worker_thread(void *arg);
/* Its thread: runs a share of its node (or of none) that another worker has put up. */
bool worker_run_near(void *arg);
/* Any thread: queues an event for the control thread. A session has at most two (fatal, detached),
 * whose nodes were made with it. */
void workers_post_event(struct workers *w, enum worker_event_kind kind, struct session *s,
			int error);
