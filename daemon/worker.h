/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pinned threads that poll rings, check entries, run their shares and
 * complete them. A worker owns the rings of the sessions attached to it and
 * helps the others with the shares of large steps.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/session.h"
#include "numa/topo.h"

struct stats_page;
struct workers;

struct workers_params {
	struct store *store;
	const struct topo *topo;
	const struct arena *arena; /* of the pool's nodes, in its order */
	unsigned n;
	bool pin;
	uint32_t spin_ns;               /* before a worker sleeps */
	uint32_t timeout_us;            /* default of an entry; 0: none */
	size_t lane_bytes;              /* scratch of each worker; 0: 512 MiB, touched as needed */
	struct sparq_daemon_page *page; /* pollers and heartbeat are written here */
	const struct stats_page *stats; /* and what they count there; NULL: nowhere */
};

int workers_start(const struct workers_params *p, struct workers **ret);
struct workers *workers_stop(struct workers *w); /* sessions must be detached */

/* ---- control thread ------------------------------------------------------- */

/* Starts polling on s->worker, which the caller chose below workers_count(): the client was told it
 * in the handshake, before it mapped the segment. -ENOMEM. */
int workers_attach(struct workers *w, struct session *s);
/* Asks the worker to fence the session: no entry of it is read after the DETACHED event, none is in
 * flight. */
int workers_detach(struct workers *w, struct session *s); /* -ENOMEM: try again */

/* The session's worker looks again: what it waits for is there. */
void workers_wake(struct workers *w, const struct session *s);

/* enum worker_event_kind and struct worker_event: session.h */
int workers_event_fd(const struct workers *w); /* readable when there is an event */
bool workers_next_event(struct workers *w, struct worker_event *ret);

struct workers_stat {
	uint64_t steps, errors, read_bytes, dense_bytes, shares_helped;
	uint64_t shares_near, shares_far; /* by where their pages lie; those of pinned workers */
	uint64_t sleeps, timeouts_that_found_work;
	uint64_t progress; /* moves while work gets done, and when idle: the watchdog's food */
};
/* NULL: none were started. */
void workers_stat(const struct workers *w, struct workers_stat *ret);
/* What their threads count outside of steps, into the stats page. */
void workers_refresh_stats(const struct workers *w);
unsigned workers_count(const struct workers *w);
struct worker_place {
	int cpu, node; /* the kernel's numbers; -1: not pinned */
	uint64_t shares_near, shares_far;
};
struct worker_place workers_place(const struct workers *w, unsigned worker);
