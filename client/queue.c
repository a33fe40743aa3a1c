/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues: the token path as the client sees it. No system call while the daemon
 * polls: an entry is published by its last store, a completion read by its own.
 *
 * A daemon that died leaves no mark in the ring, so whoever finds nothing looks
 * at the socket now and then: a wait between slices of sleep, a peek after a
 * number of empty ones. queue-end.c has what happens then.
 *
 * Sleeping in an event loop (sparq_queue_fd): a peek that finds nothing arms
 * the queue's descriptor and looks once more, in the order of sparq-protocol(7):
 *
 *   client: drain the queue's descriptor; cq_need = 2; fence; look again; epoll_wait
 *   daemon: publish; fence; if cq_need, exchange it to 0: 2 -> write to it
 *
 * Draining comes before arming, so that a signal of this round is never drained.
 */
#include <sched.h>

#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

#define LOOK_NS (20 * NS_PER_MS) /* between two looks at the socket of one that only peeks */
#define LOOK_PEEKS 32u           /* the clock costs more than a peek: not for each */

bool queue_is_over(const struct sparq_queue *q)
{
	/* Acquire: completions that came before the daemon's last word are seen before it. */
	return load_relaxed(&q->session->dead) || load_acquire(&q->ring.map.ctl->fatal);
}

/* True if the daemon is gone; the queue has ended then. */
static bool look_for_end(struct sparq_queue *q)
{
	if (queue_is_over(q) || !session_alive(q->session))
		queue_end(q);
	return q->ended;
}

/* ---- sleeping -------------------------------------------------------------------- */

struct target {
	struct sparq_queue *q;
	unsigned n;
};

static bool readable(void *arg)
{
	const struct target *t = arg;

	return ring_client_peek(&t->q->ring, t->n - 1) != NULL;
}

static bool alive(void *arg)
{
	const struct target *t = arg;

	return session_alive(t->q->session);
}

/* Until `n` completions can be read or the queue has ended: 0, -ETIME, -EINTR. */
static int await(struct sparq_queue *q, unsigned n, int64_t timeout_ns)
{
	struct target t = { q, n };
	bool same_cpu;
	int r;

	if (readable(&t))
		return 0;
	if (queue_is_over(q)) {
		queue_end(q);
		return 0;
	}
	/* The daemon may wait for the credit that we are about to sleep on. */
	if (ring_client_tell(&q->ring))
		(void)doorbell_ring(&q->bell);
	/* A daemon on this very CPU cannot run while we spin. */
	same_cpu = load_relaxed(&q->bell.poller->cpu) == (uint32_t)sched_getcpu();
	r = waiter_wait(q->ring.map.ctl, q->spin_ns, same_cpu, timeout_ns, readable, alive, &t);
	if (r == -ENOTCONN) {
		queue_end(q);
		return 0;
	}
	return r > 0 ? 0 : r == 0 ? -ETIME : r;
}

/* ---- the token path ------------------------------------------------------------- */

struct sparq_sqe *sparq_get_sqe(sparq_queue *q)
{
	return unlikely(q->ended) ? NULL : ring_client_get(&q->ring);
}

static void note_flight(struct sparq_queue *q, uint32_t first)
{
	const struct sparq_sqe *sq = q->ring.map.sq;
	uint32_t mask = q->ring.map.sq_entries - 1;

	for (uint32_t i = first; i != q->ring.sq_published; i++)
		flight_add(&q->flight, sq[i & mask].user_data);
}

int sparq_submit(sparq_queue *q, unsigned wait_for)
{
	unsigned n;

	if (unlikely(q->ended || queue_is_over(q))) {
		queue_end(q);
		return -ENOTCONN;
	}
	n = ring_client_publish(&q->ring);
	/* The descriptor is ours and valid; a doorbell that is full rings already. */
	if (n)
		(void)doorbell_ring(&q->bell);
	/* While the daemon is at it: completions are read by this thread alone, after this. */
	note_flight(q, q->ring.sq_published - n);
	if (wait_for) {
		int r = await(q, MIN(wait_for, MAX(q->flight.live, 1u)), q->flight.live ? -1 : 0);

		if (r < 0 && !n)
			return r;
	}
	return (int)n;
}

static int gather(struct sparq_queue *q, struct sparq_cqe **ret, unsigned n)
{
	unsigned i = 0;

	while (i < n && (ret[i] = ring_client_peek(&q->ring, i)))
		i++;
	return (int)i;
}

static void disarm(struct sparq_queue *q)
{
	/* The daemon may have exchanged it already: its signal is drained when next we arm. */
	store_relaxed(&q->ring.map.ctl->cq_need, 0);
	q->armed = false;
}

static int arm(struct sparq_queue *q, struct sparq_cqe **ret, unsigned n)
{
	uint64_t count;
	int ready;

	if (read(q->fd, &count, sizeof(count)) < 0)
		count = 0; /* EAGAIN: nothing to drain */
	if (ring_client_tell(&q->ring))
		(void)doorbell_ring(&q->bell);
	waiter_arm(q->ring.map.ctl);
	q->armed = true;
	ready = gather(q, ret, n);
	if (ready)
		disarm(q);
	return ready;
}

static int peek_empty(struct sparq_queue *q, struct sparq_cqe **ret, unsigned n)
{
	if (queue_is_over(q)) {
		queue_end(q);
	} else if (q->empty++ % LOOK_PEEKS == 0) {
		int64_t now = clock_now_ns();

		if (now - q->looked_ns >= LOOK_NS) {
			q->looked_ns = now;
			(void)look_for_end(q);
		}
	}
	if (q->ended)
		return queue_end_peek(q, ret, n);
	return q->fd >= 0 && n ? arm(q, ret, n) : 0;
}

int sparq_peek(sparq_queue *q, struct sparq_cqe **ret, unsigned n)
{
	int ready;

	if (unlikely(q->ended))
		return queue_end_peek(q, ret, n);
	ready = gather(q, ret, n);
	if (unlikely(!ready))
		return peek_empty(q, ret, n);
	q->empty = 0;
	if (unlikely(q->armed))
		disarm(q);
	return ready;
}

static int wait_ended(struct sparq_queue *q, struct sparq_cqe **ret)
{
	int r = queue_end_peek(q, ret, 1);

	return r < 0 ? r : 0;
}

int sparq_wait(sparq_queue *q, struct sparq_cqe **ret, int64_t timeout_ns)
{
	struct sparq_cqe *cqe;
	int r;

	if (unlikely(q->ended))
		return wait_ended(q, ret);
	if (unlikely(timeout_ns < 0 && !q->flight.live))
		timeout_ns = 0; /* nothing can come: an answer, not a sleep without end */
	r = await(q, 1, timeout_ns);
	if (r == -ETIME && look_for_end(q))
		return wait_ended(q, ret);
	if (r < 0)
		return r;
	if (unlikely(q->armed))
		disarm(q);
	cqe = ring_client_peek(&q->ring, 0);
	if (unlikely(!cqe))
		return wait_ended(q, ret);
	*ret = cqe;
	return 0;
}

void sparq_seen(sparq_queue *q, unsigned n)
{
	const struct sparq_cqe *cqe;
	unsigned i;

	if (unlikely(q->ended)) {
		queue_end_seen(q, n);
		return;
	}
	for (i = 0; i < n && (cqe = ring_client_peek(&q->ring, i)); i++)
		flight_done(&q->flight, cqe->user_data);
	/* Where the daemon waits for this credit, the store is a publish like any other. */
	if (ring_client_seen(&q->ring, i))
		(void)doorbell_ring(&q->bell);
}
