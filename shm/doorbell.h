/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a side that sleeps is woken, and never missed: sparq-protocol(7), whose two
 * handshakes are model-checked in tests/model.
 *
 * Client wakes daemon: sticky eventfd, one write per sleep epoch.
 * Daemon wakes client: a bell word beside the futex, or the queue's descriptor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/sparq-abi.h"

/* ---- client rings the daemon -------------------------------------------- */

struct doorbell {
	const struct sparq_poller *poller; /* in the daemon page */
	const struct sparq_ring_ctl *ctl;
	int fd;              /* the session's eventfd */
	uint32_t last_epoch; /* already rung in */
};

/* Writes the eventfd unless this sleep epoch was already rung in. 1 rung, 0 not needed, -errno. */
int doorbell_ring_slow(struct doorbell *d, uint32_t epoch, bool cold);

/* After a publish: fences, and writes the eventfd if the ring is cold, or if the poller sleeps
 * and has not been rung in this epoch. 1 rung, 0 not needed, -errno. */
static inline int doorbell_ring(struct doorbell *d)
{
	uint32_t epoch, cold;

	/* What was published is visible to the poller's last scan, or its word is visible here. */
	fence_seq_cst();
	epoch = load_relaxed(&d->poller->sleep_epoch);
	cold = load_relaxed(&d->ctl->sq_cold);
	return likely(!(epoch | cold)) ? 0 : doorbell_ring_slow(d, epoch, cold != 0);
}

/* ---- daemon sleeps and wakes -------------------------------------------- */

struct sleeper {
	struct sparq_poller *poller;
	uint32_t epoch; /* never 0 */
};

/* Announces the sleep and fences: the caller then tries to copy from every ring once more
 * (ring_daemon_copy: an entry without credit is no work), and either calls sleeper_cancel or waits
 * on its eventfds, drains them and calls sleeper_cancel. */
void sleeper_announce(struct sleeper *s);
void sleeper_cancel(struct sleeper *s);

/* ---- client sleeps, daemon wakes it ------------------------------------- */

/* Waits until `ready(arg)`. Spins as `spin_ns` says first: a few looks, pause, then sched_yield,
 * without the first two when `same_cpu`; then sleeps on cq_bell.
 * 1 ready, 0 timed out, -EINTR, -ENOTCONN when the daemon has set ctl->fatal (which wakes at once)
 * or `alive(arg)` (may be NULL), asked every WAITER_SLICE_NS of sleep, said false.
 * timeout_ns < 0: for ever. */
#define WAITER_SLICE_NS 100000000
int waiter_wait(struct sparq_ring_ctl *ctl, uint32_t spin_ns, bool same_cpu, int64_t timeout_ns,
		bool (*ready)(void *arg), bool (*alive)(void *arg), void *arg);
/* Before a sleep on the queue's descriptor, in poll(2) with others: announces it and fences. The
 * caller looks at its ring once more, and sleeps only if that is empty. Lasts until the descriptor
 * is readable. */
void waiter_arm(struct sparq_ring_ctl *ctl);
/* How many futex waits timed out although `ready` was true and no wake was on its way: not zero
 * is a protocol bug. */
uint64_t waiter_lost_wakes(void);

/* The two ends of a queue's descriptor. Not an eventfd: its flags are one for all who hold it, so a
 * client could make it block, fill it, and with it stop the daemon's thread. -errno. */
int waiter_pair(int *ret_daemon, int *ret_client);
/* After the completions of a pass: one fence, and if the client sleeps, exchanges cq_need and
 * rings. `queue_fd`: the daemon's end, -1 if the client never asked. 1 woken, 0 not needed. */
int waiter_wake(struct sparq_ring_ctl *ctl, int queue_fd);
/* Ends the session for whoever waits on this ring: sets `fatal` (an errno, > 0), then wakes. */
void waiter_abort(struct sparq_ring_ctl *ctl, uint32_t fatal, int queue_fd);

/* Round trip of a futex ping-pong between two threads: what a wake costs on this machine. */
uint32_t measure_wake_ns(void);
