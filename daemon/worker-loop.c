/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's thread: scan the rings, run what is there, help the others, and
 * when nothing has come for a while, sleep (sparq-protocol(7)).
 *
 *   hot ring  --(10 ms without an entry, others busy)-->  cold: not scanned, its client rings
 *   cold ring --(doorbell)-->  hot
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/point.h"
#include "daemon/step-item.h"
#include "daemon/worker-private.h"
#include "numa/pin.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/probe.h"

#define ENTRIES_PER_PASS 32u
#define SHARES_PER_PASS 4u      /* of another's step: our own clients must not wait for the whole */
#define LOOKS_BEFORE_FAR 8u     /* without work of our own node, before we run another's */
#define LOOKS_WITHOUT_PAUSE 64u /* the next entry of a client that waited for this one */
#define PAUSE_NS 2000u          /* then poll with pause, then with sched_yield */
#define COLD_NS 10000000u
#define SWEEP_NS 1000000u /* how often idle rings are looked for */
#define WAIT_MS 1         /* while an entry with a deadline may wait for room */
#define SLEEP_MS 100      /* timed, so that a lost wake would be found, and counted */
#define PASSES_BETWEEN_CLOCKS 64u

/* ---- one ring ----------------------------------------------------------------- */

/* The client broke the protocol: no ring of its session is read again. */
static void fence_session(struct worker *w, struct session *s, int error)
{
	if (s->fenced)
		return;
	s->fenced = true;
	for (uint32_t i = 0; i < s->n_queues; i++) {
		struct queue *q = &s->queue[i];

		waiter_abort(q->ring.map.ctl, (uint32_t)-error, load_acquire(&q->wake_fd));
	}
	workers_post_event(w->all, WORKER_FATAL, s, error);
}

static void wake_client(struct queue *q)
{
	/* It was made by the control thread before this could read its number. */
	waiter_wake(q->ring.map.ctl, load_acquire(&q->wake_fd));
}

/* Runs an entry and answers it; false: it waits for room. */
static bool run_entry(struct worker *w, struct queue *q, const struct sparq_sqe *e, bool *told)
{
	struct sparq_cqe cqe;

	if (!step_run(&w->stepper, q, e, &cqe))
		return false;
	POINT(step_done);
	ring_daemon_post(&q->ring, &cqe);
	POINT(step_posted);
	PROBE4(step_done, q->number, e->op, cqe.res, cqe.bytes_read);
	*told = e->op != SPARQ_OP_NOP;
	if (!*told)
		return true;
	/* A step is long beside a fence, and what follows it must not delay its answer. */
	wake_client(q);
	step_settle(&w->stepper);
	return true;
}

/* Runs what the ring has, up to `most` entries; how many. */
static uint32_t run_queue(struct worker *w, struct queue *q, uint32_t most)
{
	struct sparq_sqe e;
	bool told = true;
	uint32_t n = 0;
	int r = 0;

	while (n < most && !q->room.waits && (r = ring_daemon_copy(&q->ring, &e)) > 0) {
		PROBE4(entry_taken, q->number, e.op, e.sequence, e.layer);
		w->n_waiting += !run_entry(w, q, &e, &told);
		n++;
	}
	if (r < 0)
		fence_session(w, q->session, r);
	else if (!told)
		wake_client(q);
	ring_daemon_tell(&q->ring, n == 0);
	q->worked |= n > 0;
	return n;
}

/* Nothing of the ring is read before the entry that waits for room has its answer. */
static uint32_t resume_queue(struct worker *w, struct queue *q)
{
	bool told;

	if (!room_is_due(q) || !run_entry(w, q, &q->room.entry, &told))
		return 0;
	room_done(q);
	w->n_waiting--;
	q->worked = true;
	return 1;
}

/* One pass over the hot rings. A step of one does not wait for more than a step of each other. */
static uint32_t run_queues(struct worker *w)
{
	uint32_t most = w->n_scanned > 1 ? 1 : ENTRIES_PER_PASS, n = 0;

	for (struct queue *q = w->scanned; q; q = q->next) {
		if (q->session->fenced)
			continue;
		if (unlikely(q->room.waits))
			n += resume_queue(w, q);
		else if (ring_daemon_ready(&q->ring))
			n += run_queue(w, q, most);
	}
	return n;
}

static bool queue_ready(const struct queue *q)
{
	if (q->session->fenced)
		return false;
	if (q->room.waits)
		return load_relaxed(&q->room.answer) != ROOM_ASKED;
	return ring_daemon_ready(&q->ring) &&
	       ring_daemon_credit((struct ring_daemon *)&q->ring) != 0;
}

static bool queues_ready(const struct worker *w)
{
	for (const struct queue *q = w->scanned; q; q = q->next)
		if (queue_ready(q))
			return true;
	return false;
}

/* ---- which rings are scanned ------------------------------------------------------ */

static void scan_queue(struct worker *w, struct queue *q)
{
	q->last_work_ns = clock_now_ns();
	q->next = w->scanned;
	w->scanned = q;
	w->n_scanned++;
}

static void warm_session(struct worker *w, struct session *s)
{
	for (uint32_t i = 0; i < s->n_queues; i++) {
		struct queue *q = &s->queue[i];

		if (!q->cold)
			continue;
		q->cold = false;
		w->n_cold--;
		store_relaxed(&q->ring.map.ctl->sq_cold, 0);
		scan_queue(w, q);
	}
}

/* Leaves the scan unless an entry came at the last moment. */
static bool try_cold(struct worker *w, struct queue *q)
{
	store_relaxed(&q->ring.map.ctl->sq_cold, 1);
	/* The mark is visible before the last look: either the client sees it and rings, or this
	 * look sees its entry. */
	fence_seq_cst();
	if (ring_daemon_ready(&q->ring)) {
		store_relaxed(&q->ring.map.ctl->sq_cold, 0);
		return false;
	}
	q->cold = true;
	w->n_cold++;
	w->n_scanned--;
	return true;
}

/* Takes rings that were idle for long out of the scan; not while there is only one. */
static void sweep(struct worker *w, uint64_t now)
{
	struct queue **at = &w->scanned;

	w->swept_ns = now;
	while (*at) {
		struct queue *q = *at;

		if (q->worked)
			q->last_work_ns = now;
		q->worked = false;
		if (w->n_scanned > 1 && !q->room.waits && now - q->last_work_ns > COLD_NS &&
		    try_cold(w, q))
			*at = q->next;
		else
			at = &q->next;
	}
}

static void attach(struct worker *w, struct session *s)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = s };

	w->n_sessions++;
	for (uint32_t i = 0; i < s->n_queues; i++)
		scan_queue(w, &s->queue[i]);
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, s->doorbell, &event) < 0)
		fence_session(w, s, -errno);
}

static void detach(struct worker *w, struct session *s)
{
	struct queue **at = &w->scanned;

	while (*at) {
		if ((*at)->session == s) {
			*at = (*at)->next;
			w->n_scanned--;
		} else {
			at = &(*at)->next;
		}
	}
	for (uint32_t i = 0; i < s->n_queues; i++) {
		w->n_cold -= s->queue[i].cold;
		w->n_waiting -= s->queue[i].room.waits;
		room_done(&s->queue[i]);
	}
	w->n_sessions--;
	s->fenced = true;
	epoll_ctl(w->epoll, EPOLL_CTL_DEL, s->doorbell, NULL);
	/* From here on the session is the control thread's again. */
	workers_post_event(w->all, WORKER_DETACHED, s, 0);
}

static void read_mail(struct worker *w)
{
	struct command *c;

	if (!load_acquire(&w->has_mail))
		return;
	store_relaxed(&w->has_mail, 0);
	pthread_mutex_lock(&w->mutex);
	c = w->first;
	w->first = NULL;
	w->last = &w->first;
	pthread_mutex_unlock(&w->mutex);
	while (c) {
		struct command *next = c->next;

		if (c->kind == COMMAND_ATTACH)
			attach(w, c->session);
		else if (c->kind == COMMAND_DETACH)
			detach(w, c->session);
		else
			w->stopping = true;
		free(c);
		c = next;
	}
}

/* ---- others' work ------------------------------------------------------------------- */

static bool boards_open(const struct worker *w)
{
	for (unsigned i = 0; i < w->all->n; i++)
		if (i != w->index && board_is_open(&w->all->worker[i]->stepper.board))
			return true;
	return false;
}

static uint32_t help(struct worker *w, uint32_t most, bool far)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < w->all->n; i++) {
		struct board *b = &w->all->worker[i]->stepper.board;

		for (unsigned k = 0; k < most && i != w->index; k++)
			n += board_help(b, &w->stepper.hand, far);
	}
	store_relaxed(&w->shares_helped, w->shares_helped + n);
	return n;
}

/* Its own node's shares, until none was there for a few looks: then it may run one of another node,
 * whose workers have had the time to come for it, and looks again. */
static uint32_t help_others(struct worker *w)
{
	uint32_t n = help(w, SHARES_PER_PASS, false);

	if (n == 0 && w->idle_passes >= LOOKS_BEFORE_FAR)
		n = help(w, 1, true);
	return n;
}

bool worker_run_near(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->all->n; i++)
		if (i != w->index &&
		    board_help(&w->all->worker[i]->stepper.board, &w->stepper.hand, false)) {
			store_relaxed(&w->shares_helped, w->shares_helped + 1);
			return true;
		}
	return false;
}

/* ---- idle ------------------------------------------------------------------------------ */

/* Collects doorbells: cold rings of the sessions that rang are scanned again. */
static int collect_doorbells(struct worker *w, int timeout_ms)
{
	struct epoll_event event[16];
	int n = epoll_wait(w->epoll, event, ARRAY_SIZE(event), timeout_ms);
	uint64_t count;

	for (int i = 0; i < n; i++) {
		struct session *s = event[i].data.ptr;

		if (s)
			warm_session(w, s);
		else if (read(w->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
			abort(); /* our own eventfd */
	}
	return n;
}

static void sleep_now(struct worker *w)
{
	int n = 1;

	sleeper_announce(&w->sleeper);
	/* The last look, after the announcement's fence. */
	if (!queues_ready(w) && !boards_open(w) && !load_acquire(&w->has_mail)) {
		store_relaxed(&w->sleeps, w->sleeps + 1);
		n = collect_doorbells(w, w->n_waiting ? WAIT_MS : w->n_sessions ? SLEEP_MS : -1);
	}
	sleeper_cancel(&w->sleeper);
	store_relaxed(&w->sleeper.poller->cpu, (uint32_t)sched_getcpu());
	if (n == 0 && queues_ready(w))
		store_relaxed(&w->timeouts_that_found_work, w->timeouts_that_found_work + 1);
}

/* Nothing was found: pause, then yield, then sleep. */
static void be_idle(struct worker *w)
{
	uint64_t now;

	if (w->idle_passes++ < LOOKS_WITHOUT_PAUSE)
		return;
	now = clock_now_ns();
	if (!w->idle_since_ns) {
		w->idle_since_ns = now;
		for (struct queue *q = w->scanned; q; q = q->next)
			ring_daemon_tell(&q->ring, true);
	}
	if (now - w->idle_since_ns > w->all->spin_ns) {
		sleep_now(w);
		w->idle_since_ns = 0;
		w->idle_passes = 0;
		store_relaxed(&w->progress, w->progress + 1);
	} else if (now - w->idle_since_ns > PAUSE_NS) {
		sched_yield();
	} else {
		cpu_pause();
	}
}

static void look_around(struct worker *w)
{
	uint64_t now = clock_now_ns();

	if (now - w->swept_ns > SWEEP_NS)
		sweep(w, now);
	if (w->n_cold)
		collect_doorbells(w, 0);
}

static void settle_down(struct worker *w)
{
	/* Where it cannot (a cpuset that shrank), it runs unpinned, and is near to no node but an
	 * only one. */
	if (w->cpu >= 0 && pin_to_cpu(w->cpu) < 0 && w->stepper.board.n_nodes > 1)
		store_relaxed(&w->stepper.hand.node, -1);
	/* What it touches first, its lane above all; a kernel without NUMA has no choice. */
	if (w->node >= 0)
		pin_memory(w->node);
	kv_thread_init();
}

void *worker_thread(void *arg)
{
	struct worker *w = arg;

	settle_down(w);
	store_relaxed(&w->sleeper.poller->cpu, (uint32_t)sched_getcpu());
	for (uint32_t pass = 1; !w->stopping; pass++) {
		uint32_t n = run_queues(w);

		read_mail(w);
		if (n == 0)
			n = help_others(w);
		if (n) {
			w->idle_since_ns = 0;
			w->idle_passes = 0;
			store_relaxed(&w->progress, w->progress + n);
		} else {
			be_idle(w);
		}
		if (pass % PASSES_BETWEEN_CLOCKS == 0)
			look_around(w);
	}
	return NULL;
}
