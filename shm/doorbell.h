/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a side that sleeps is woken, and never missed: ring.md 3.4, whose two
 * handshakes are model-checked in tests/model.
 *
 * Client wakes daemon: sticky eventfd, one write per sleep epoch.
 * Daemon wakes client: a bell word beside the futex, or the queue's eventfd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/sparq-abi.h"

/* ---- client rings the daemon -------------------------------------------- */

struct doorbell {
	const struct sparq_poller *poller;   /* in the daemon page */
	const struct sparq_ring_ctl *ctl;
	int fd;                              /* the session's eventfd */
	uint32_t last_epoch;                 /* already rung in */
};

/* After a publish: fences, and writes the eventfd if the poller sleeps or the ring is cold
 * and has not been rung in this epoch. 1 rung, 0 not needed, -errno. */
int doorbell_ring(struct doorbell *d);

/* ---- daemon sleeps and wakes -------------------------------------------- */

struct sleeper {
	struct sparq_poller *poller;
	uint32_t epoch; /* never 0 */
};

/* Announces the sleep and fences: the caller then scans every ring once more, and either
 * calls sleeper_cancel or waits on its eventfds, drains them and calls sleeper_cancel. */
void sleeper_announce(struct sleeper *s);
void sleeper_cancel(struct sleeper *s);

/* ---- client sleeps, daemon wakes it ------------------------------------- */

/* Sleeps until a completion may be there: `ready(arg)` is asked after the fence.
 * 1 woken or ready, 0 timed out, -EINTR. Spins as `spin_ns` says first: pause, then sched_yield,
 * without the pause phase when `same_cpu`. timeout_ns < 0: for ever, in slices of a second,
 * between which `alive(arg)` (may be NULL) is asked: false ends with -ENOTCONN. */
int waiter_wait(struct sparq_ring_ctl *ctl, uint32_t spin_ns, bool same_cpu, int64_t timeout_ns,
		bool (*ready)(void *arg), bool (*alive)(void *arg), void *arg);
/* How many futex waits timed out although `ready` was true: not zero is a protocol bug. */
uint64_t waiter_lost_wakes(void);

/* After the completions of a pass: one fence, and if the client sleeps, exchanges cq_need and
 * rings. `queue_fd` -1 if the client never asked for an eventfd. 1 woken, 0 not needed. */
int waiter_wake(struct sparq_ring_ctl *ctl, int queue_fd);

/* Round trip of a futex ping-pong between two threads: what a wake costs on this machine. */
uint32_t measure_wake_ns(void);
