/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues made, resumed and closed. A queue is of one session until its owner
 * resumes it: nothing that another thread does takes its ring or its arena away.
 */
#include <fcntl.h>

#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

#define CLOSE_NS (10 * NS_PER_S)

/* ---- memory --------------------------------------------------------------------- */

void queue_free(struct sparq_queue *q)
{
	if (!q)
		return;
	flight_deinit(&q->flight);
	close_fd(&q->fd);
	session_unref(q->session);
	free(q->lost);
	free(q->why);
	free(q);
}

static void queue_freep(struct sparq_queue **q)
{
	queue_free(*q);
}

static int queue_new(sparq *c, uint32_t i, struct sparq_queue **ret)
{
	CLEANUP(queue_freep) struct sparq_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->c = c;
	q->index = i;
	q->fd = -1;
	q->why = calloc(1, SPARQ_ERROR_TEXT);
	if (!q->why)
		return -ENOMEM;
	*ret = STEAL_PTR(q);
	return 0;
}

static int map_ring(const struct session *s, uint32_t i, struct ring_map *ret)
{
	struct segment_layout layout = {
		.bytes = s->told.segment_bytes,
		.arena_offset = s->told.arena_offset,
		.arena_bytes = s->told.arena_bytes,
		.n_queues = s->told.n_queues,
		.sq_entries = s->told.sq_entries,
		.cq_entries = s->told.cq_entries,
	};

	memcpy(layout.ring, s->told.ring, sizeof(layout.ring));
	return segment_ring(&s->segment, &layout, i, ret);
}

/* Nothing in flight, nothing to read. */
static void forget(struct sparq_queue *q)
{
	flight_deinit(&q->flight);
	free(q->lost);
	q->lost = NULL;
	q->n_last = q->n_lost = q->lost_read = 0;
	q->ended = q->armed = false;
	q->empty = 0;
}

void queue_reset(struct sparq_queue *q)
{
	forget(q);
	close_fd(&q->fd);
	q->session = session_unref(q->session);
	q->state = QUEUE_FREE;
}

/* Makes it one of session `s`, from position 0 on. As it was, if that fails. */
static int queue_join(struct sparq_queue *q, struct session *s)
{
	const struct sparq_daemon_page *page = s->page.base;
	uint32_t most = s->told.sq_entries + s->told.cq_entries; /* not yet copied, and copied */
	struct session *before = q->session;
	FREE_MEMORY struct sparq_cqe *lost = calloc(most, sizeof(*lost));
	struct flight flight;
	struct ring_map map;
	int r = lost ? map_ring(s, q->index, &map) : -ENOMEM;

	if (r == 0)
		r = flight_init(&flight, most);
	if (r < 0)
		return r;
	forget(q);
	q->flight = flight;
	q->lost = STEAL_PTR(lost);
	q->session = session_ref(s);
	ring_client_init(&q->ring, &map);
	q->bell = (struct doorbell){
		.poller = &page->poller[s->told.poller],
		.ctl = map.ctl,
		.fd = s->doorbell,
	};
	q->spin_ns = q->spin_us ? q->spin_us * 1000 : s->told.spin_ns;
	session_unref(before);
	return 0;
}

/* ---- making ---------------------------------------------------------------------- */

/* A ring pair that no handle uses. It keeps its cursors from owner to owner: the daemon's do. */
static int take_pair(sparq *c, uint32_t spin_us, struct sparq_queue **ret)
{
	struct sparq_queue *q = NULL;
	uint32_t n = c->hello.n_queues, i = 0;
	int r = 0;

	while (i < n && c->queue[i] && c->queue[i]->state != QUEUE_FREE)
		i++;
	if (i == n)
		return conn_fail(c, -EBUSY, "all %u queues of the session are in use", n);
	if (!c->queue[i])
		r = queue_new(c, i, &c->queue[i]);
	q = c->queue[i];
	if (r == 0) {
		q->spin_us = spin_us;
		r = q->session ? 0 : queue_join(q, c->session);
	}
	if (r < 0)
		return conn_fail(c, r, "queue %u: %s", i, strerror(-r));
	q->spin_ns = spin_us ? spin_us * 1000 : q->session->told.spin_ns;
	q->state = QUEUE_TAKEN;
	q->why[0] = '\0';
	*ret = q;
	return 0;
}

int sparq_queue_create(sparq *c, const struct sparq_queue_params *params, sparq_queue **ret)
{
	struct sparq_queue_params p = {};
	struct sparq_queue *q = NULL;
	int r = params ? struct_take(&p, sizeof(p), params) : 0;

	if (r < 0)
		return conn_fail(c, r, "the parameters are of a later release than this library");
	if (p.spin_us > 1000000)
		return conn_fail(c, -EINVAL, "spin_us=%u: at most a second", p.spin_us);
	if (conn_is_child(c))
		return conn_fail(c, -ENOTCONN, "a handle does not outlive fork()");
	pthread_mutex_lock(&c->lock);
	if (c->closed || !session_alive(c->session))
		r = conn_fail(c, -ENOTCONN, "the session is over");
	else if (c->known != c->serial)
		r = conn_fail(c, -ENOTCONN,
			      "the daemon has restarted, and with it the addresses of all buffers "
			      "changed: call sparq_dispatch, then ask for them again");
	else
		r = take_pair(c, p.spin_us, &q);
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		return r;
	conn_ref(c);
	*ret = q;
	return 0;
}

/* ---- event loop ------------------------------------------------------------------ */

static int ask_fd(struct sparq_queue *q, int *ret)
{
	union message m;
	bool sent;
	int r;

	message_init(&m, SPARQ_MSG_QUEUE_FD);
	m.queue.queue = q->index;
	pthread_mutex_lock(&q->c->speak);
	r = session_call(q->session, &m, ret, 1, CALL_TIMEOUT_NS, q->why, &sent);
	pthread_mutex_unlock(&q->c->speak);
	return r;
}

int sparq_queue_fd(sparq_queue *q)
{
	int fd, r;

	if (q->fd >= 0)
		return q->fd;
	if (conn_is_child(q->c))
		return -ENOTCONN;
	if (q->ended)
		return text_fail(q->why, -ENOTCONN, "the session is over: sparq_queue_resume");
	r = ask_fd(q, &fd);
	if (r < 0)
		return r;
	q->fd = fd;
	return fd;
}

/* ---- after the daemon's end -------------------------------------------------------- */

/* The new descriptor under the old one's number. */
static int renew_fd(struct sparq_queue *q)
{
	CLOSE_FD int fd = -1;
	int r = q->fd < 0 ? 0 : ask_fd(q, &fd);

	if (r == 0 && fd >= 0 && dup3(fd, q->fd, O_CLOEXEC) < 0)
		r = text_fail(q->why, -errno, "the queue's descriptor: %s", strerror(errno));
	return r;
}

static int join_present(struct sparq_queue *q)
{
	sparq *c = q->c;
	struct session *s;
	int r;

	pthread_mutex_lock(&c->lock);
	s = session_ref(c->session);
	c->known = c->serial;
	pthread_mutex_unlock(&c->lock);
	r = queue_join(q, s);
	session_unref(s);
	if (r < 0)
		return text_fail(q->why, r, "queue %u: %s", q->index, strerror(-r));
	r = renew_fd(q);
	if (r < 0)
		queue_end(q); /* to be resumed again, from the session that it is in now */
	return r;
}

static int64_t deadline_of(int64_t timeout_ns)
{
	int64_t deadline;

	if (timeout_ns == 0)
		return REVIVE_ONCE;
	if (timeout_ns < 0 || __builtin_add_overflow(clock_now_ns(), timeout_ns, &deadline))
		return REVIVE_FOREVER;
	return deadline;
}

int sparq_queue_resume(sparq_queue *q, int64_t timeout_ns)
{
	int64_t deadline = deadline_of(timeout_ns);
	int r;

	if (conn_is_child(q->c))
		return -ENOTCONN;
	q->why[0] = '\0';
	if (!q->ended && !queue_is_over(q) && session_alive(q->session))
		return 0;
	queue_end(q);
	session_end(q->session); /* `fatal` comes before the hang-up */
	if (q->n_last || q->lost_read < q->n_lost)
		return text_fail(q->why, -EBUSY, "%u completions are still to be read",
				 q->n_last + q->n_lost - q->lost_read);
	for (;;) {
		r = conn_revive(q->c, deadline, q->why);
		if (r < 0)
			return r;
		r = join_present(q);
		/* -ENOTCONN: that one ended, too, as soon as it was there. */
		if (r != -ENOTCONN || clock_now_ns() >= deadline)
			return r;
	}
}

const char *sparq_queue_error(sparq_queue *q)
{
	return q->why;
}

/* ---- closing ------------------------------------------------------------------------ */

/* Reads what is still to come: false if it did not come in time. */
static bool drain(struct sparq_queue *q)
{
	int64_t deadline = clock_now_ns() + CLOSE_NS;
	struct sparq_cqe *cqe;

	q->ring.sq_tail = q->ring.sq_published; /* entries got and not submitted never were */
	while (!q->ended && q->flight.live) {
		int r = sparq_wait(q, &cqe, MAX(deadline - clock_now_ns(), 0));

		if (r == -ETIME)
			return false;
		if (r == 0)
			sparq_seen(q, 1);
	}
	if (!q->ended) {
		store_relaxed(&q->ring.map.ctl->cq_need, 0);
		q->armed = false;
		(void)ring_client_tell(&q->ring);
	}
	return true;
}

sparq_queue *sparq_queue_close(sparq_queue *q)
{
	bool empty;
	sparq *c;

	if (!q)
		return NULL;
	c = q->c;
	if (conn_is_child(c))
		return conn_unref(c), NULL;
	empty = drain(q);
	pthread_mutex_lock(&c->lock);
	/* Whoever takes the pair next sees the cursors as they are now. */
	q->state = empty ? QUEUE_FREE : QUEUE_LEFT;
	if (q->session != c->session)
		queue_reset(q);
	pthread_mutex_unlock(&c->lock);
	conn_unref(c);
	return NULL;
}
