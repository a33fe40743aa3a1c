/* SPDX-License-Identifier: Apache-2.0 */
/* One client: connection, requests in and replies out, teardown. */
#include "daemon/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fault.h"
#include "shm/base.h"
#include "shm/clock.h"

#define HANDSHAKE_S 10ull
#define BETWEEN_PARTS_NS 100000u /* in which what is ready is served */
#define REQUESTS_AT_ONCE 8 /* of one peer, before others get their turn */
#define REFUSED_MAX 64     /* connections held open only to hear why they were refused */
#define REFUSED_PER_USER 8
#define REPLY_BYTES 8192 /* that one peer may leave unread in the kernel, descriptors and all */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* ---- coming --------------------------------------------------------------- */

static void link_peer(struct peer *p)
{
	struct server *s = p->server;

	p->next = s->peers;
	if (p->next)
		p->next->previous = p;
	s->peers = p;
}

static void unlink_peer(struct peer *p)
{
	if (p->next)
		p->next->previous = p->previous;
	if (p->previous)
		p->previous->next = p->next;
	else
		p->server->peers = p->next;
}

static uint32_t refused_of(const struct server *s, const struct user *user)
{
	uint32_t n = 0;

	for (const struct peer *p = s->peers; p; p = p->next)
		n += p->refused && p->user == user;
	return n;
}

/* Counts it as a session: -EMFILE for the daemon, -EDQUOT for the user. */
static int count_session(struct peer *p)
{
	struct server *s = p->server;
	int r;

	if (s->n_sessions >= s->config.max_sessions)
		return -EMFILE;
	r = user_charge(p->user, USER_SESSIONS, 1);
	if (r < 0)
		return r;
	p->charged_session = true;
	s->n_sessions++;
	return 0;
}

/* Counts it as a session, or as one to be refused with a reason; -EAGAIN: as neither. */
static int admit(struct peer *p)
{
	struct server *s = p->server;
	int r = count_session(p);

	if (r == 0)
		return 0;
	if (s->n_refused >= REFUSED_MAX || refused_of(s, p->user) >= REFUSED_PER_USER)
		return -EAGAIN;
	p->refused = r;
	s->n_refused++;
	return 0;
}

void peer_admit_again(struct peer *p)
{
	if (!p->refused || count_session(p) < 0)
		return;
	p->refused = 0;
	p->server->n_refused--;
}

/* Who connected, from the kernel alone. The pidfd tells of a death even while a child of the client
 * holds the connection; older kernels leave us the hang-up. */
static int identify(struct peer *p)
{
	socklen_t cred_bytes = sizeof(p->cred), fd_bytes = sizeof(p->pidfd);

	if (getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &p->cred, &cred_bytes) < 0)
		return -errno;
	if (getsockopt(p->fd, SOL_SOCKET, SO_PEERPIDFD, &p->pidfd, &fd_bytes) < 0)
		p->pidfd = -1;
	return users_get(&p->server->users, p->cred.uid, &p->user);
}

static void peer_free(struct peer *p)
{
	struct server *s = p->server;

	loop_remove(s->loop, &p->source);
	loop_remove(s->loop, &p->death);
	spill_leave(&p->wait);
	loop_timer_cancel(s->loop, &p->next_part);
	close_fd(&p->fd);
	close_fd(&p->pidfd);
	if (p->session)
		peer_session_free(p);
	if (p->charged_session) {
		user_refund(p->user, USER_SESSIONS, 1);
		s->n_sessions--;
	}
	s->n_refused -= p->refused != 0;
	s->n_watchers -= p->state == PEER_WATCHING;
	users_put(&s->users, p->user);
	unlink_peer(p);
	free(p->cache);
	free(p);
	server_changed(s);
}

static void on_peer(void *arg, uint32_t events);

static void on_death(void *arg, uint32_t events)
{
	peer_close(arg);
}

static int peer_start(struct peer *p)
{
	struct loop *loop = p->server->loop;
	int bytes = REPLY_BYTES, r = identify(p);

	if (r < 0)
		return r;
	/* Descriptors under way count against this daemon: it must not run out of them. */
	setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	r = admit(p);
	if (r < 0)
		return r;
	r = loop_add(loop, &p->source, p->fd, POLLIN, on_peer, p);
	if (r < 0 || p->pidfd < 0)
		return r;
	return loop_add(loop, &p->death, p->pidfd, POLLIN, on_death, p);
}

void peer_accept(struct server *s, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		close(fd);
		return;
	}
	p->server = s;
	p->fd = fd;
	p->pidfd = -1;
	p->source = p->death = LOOP_SOURCE_NULL;
	p->deadline_ns = clock_now_ns() + HANDSHAKE_S * 1000000000;
	link_peer(p);
	r = peer_start(p);
	if (r < 0) {
		if (!log_limited(&s->violations))
			log_warning("connection of uid %u pid %d closed: %s", p->cred.uid,
				    p->cred.pid, strerror(-r));
		peer_free(p);
		return;
	}
	server_sweep_soon(s);
}

/* ---- requests and replies ------------------------------------------------- */

/* Sends what is pending: 0 sent, 1 no room yet, -errno. */
static int flush(struct peer *p)
{
	int r = message_send(p->fd, &p->out, p->out_fds, p->n_out_fds);

	if (r == -EAGAIN) {
		p->out_pending = true;
		r = loop_change(p->server->loop, &p->source, POLLOUT);
		return r < 0 ? r : 1;
	}
	p->out_pending = false;
	p->n_out_fds = 0;
	if (r < 0)
		return r;
	if (p->close_after)
		return -ESHUTDOWN;
	return loop_change(p->server->loop, &p->source, POLLIN);
}

/* A packet that no correct client sends. */
static int violation(struct peer *p, enum stats_fault fault, const char *what)
{
	p->server->broken[fault]++;
	if (!log_limited(&p->server->violations))
		log_event(EVENT_PROTOCOL,
			  ABOUT(.uid = &p->cred.uid, .session = p->session ? p->session->id : 0),
			  "uid %u pid %d broke the protocol: %s; connection closed", p->cred.uid,
			  p->cred.pid, what);
	return -EBADMSG;
}

/* Nothing else is read meanwhile; a hang-up is still heard. */
static int put_off(struct peer *p, const union message *request)
{
	int r = loop_change(p->server->loop, &p->source, 0);

	p->out = *request;
	return r < 0 ? r : 1;
}

/* Answers: 0, 1 if that has to wait, -errno: end it. */
static int answer(struct peer *p, union message *m)
{
	peer_call_fn *call = peer_call(p, m->head.type);
	struct sparq_msg head = m->head;
	char why[SPARQ_ERROR_TEXT] = "";
	int r;

	if (!call)
		return violation(p, STATS_FAULT_MESSAGE, "a request of an unknown type");
	p->server->store.shortage = SHORTAGE_NONE; /* what it leaves there is its own */
	r = call(p, m, why);
	if (r == PEER_LATER)
		return put_off(p, m);
	if (r < 0) {
		p->n_out_fds = 0;
		message_fail(m, &head, r, "%s", why[0] ? why : strerror(-r));
		/* A handshake that failed is over: nobody is to wait for its end. */
		p->close_after = p->state == PEER_NEW || p->state == PEER_MAPPING;
		p->server->refused_sessions += p->close_after;
	}
	p->out = *m;
	return flush(p);
}

/* One request: 1 answered, 0 none there or no room for the answer, -errno: end it. */
static int read_request(struct peer *p)
{
	unsigned n_fds = 0;
	union message m;
	const char *why;
	size_t n;
	int r = message_receive(p->fd, &m, &n, NULL, &n_fds);

	if (r == -EAGAIN)
		return 0;
	if (r == 0)
		return -ECONNRESET;
	if (r == -EBADMSG)
		return violation(p, STATS_FAULT_MESSAGE,
				 "an oversized packet, or descriptors in it");
	if (r < 0)
		return r;
	if (message_check(&m, n, false, &why) < 0)
		return violation(p, STATS_FAULT_MESSAGE, why);
	r = answer(p, &m);
	return r < 0 ? r : r == 0;
}

static void on_ready(struct spill_wait *w, int error, const char *why)
{
	struct peer *p = container_of(w, struct peer, wait);
	union message m = p->out;
	struct sparq_msg head = m.head;
	int r;

	if (error < 0) {
		message_fail(&m, &head, error, "%s", why);
		p->out = m;
		r = flush(p);
	} else {
		r = answer(p, &m);
	}
	if (r < 0)
		peer_close(p);
}

int peer_await(struct peer *p, struct seq *s, char *why)
{
	int r;

	p->wait.done = on_ready;
	r = spill_await(p->server->store.spill, s, &p->wait, why);
	return r < 0 ? r : PEER_LATER;
}

bool peer_has_room(struct peer *p, int *error)
{
	enum evicted got = evict_or_spill(&p->server->evictor, p->user);

	if (got == EVICTED_LATER)
		*error = PEER_LATER;
	p->wants_room = got == EVICTED_LATER;
	return got == EVICTED_SOME;
}

void peer_look_for_room(struct peer *p)
{
	if (p->wants_room && p->state == PEER_SERVING) {
		p->wants_room = false;
		on_ready(&p->wait, 0, "");
	}
}

int peer_await_device(struct peer *p)
{
	p->wants_device = true;
	return PEER_LATER;
}

void peer_look_for_device(struct peer *p)
{
	if (p->wants_device && p->state == PEER_SERVING) {
		p->wants_device = false;
		on_ready(&p->wait, 0, "");
	}
}

static void on_next_part(void *arg)
{
	struct peer *p = arg;
	uint64_t now = clock_now_ns();

	/* One part in a pass of the loop, whoever's it is. */
	if (now - p->server->part_ns < BETWEEN_PARTS_NS) {
		peer_take_more(p);
		return;
	}
	/* What it takes is our time, not its. */
	p->deadline_ns = now + HANDSHAKE_S * 1000000000;
	on_ready(&p->wait, 0, "");
}

void peer_take_more(struct peer *p)
{
	loop_timer_set(p->server->loop, &p->next_part, BETWEEN_PARTS_NS, on_next_part, p);
}

static void on_peer(void *arg, uint32_t events)
{
	struct peer *p = arg;
	int r = 1;

	/* All that is asked for is whether it is still there. */
	if (p->wait.seq || p->wants_room || p->wants_device || p->is_taking)
		r = -ECONNRESET;
	else if (p->out_pending)
		r = events & (POLLERR | POLLHUP) ? -ECONNRESET : flush(p);
	else
		for (unsigned i = 0; i < REQUESTS_AT_ONCE && r == 1; i++)
			r = read_request(p);
	if (r < 0)
		peer_close(p);
}

/* ---- going ---------------------------------------------------------------- */

static void ask_to_detach(struct peer *p)
{
	p->detach_asked = workers_detach(p->server->workers, p->session) == 0;
	if (!p->detach_asked)
		server_sweep_soon(p->server);
}

void peer_close(struct peer *p)
{
	struct loop *loop = p->server->loop;

	if (p->state == PEER_LEAVING)
		return;
	if (p->state != PEER_SERVING) {
		peer_free(p);
		return;
	}
	p->state = PEER_LEAVING;
	spill_leave(&p->wait);
	loop_remove(loop, &p->source);
	loop_remove(loop, &p->death);
	close_fd(&p->fd); /* the client hears of it now */
	ask_to_detach(p);
}

void peer_detached(struct peer *p)
{
	log_debug("session %" PRIu64 " of uid %u ended", p->session->id, p->cred.uid);
	peer_free(p);
}

void peer_fatal(struct peer *p, int error)
{
	if (p->state != PEER_SERVING)
		return;
	if (error == -EPROTO)
		violation(p, STATS_FAULT_RING, "its ring is impossible");
	else
		violation(p, STATS_FAULT_MEMORY, strerror(-error));
	peer_close(p);
}

bool peer_hit(const struct peer *p)
{
	return p->watched && fault_hit(p->fault_slot);
}

bool peer_sweep(struct peer *p, uint64_t now_ns)
{
	switch (p->state) {
	case PEER_SERVING:
	case PEER_WATCHING:
		return false;
	case PEER_LEAVING:
		if (!p->detach_asked)
			ask_to_detach(p);
		return !p->detach_asked;
	default:
		if (now_ns < p->deadline_ns)
			return true;
		if (!log_limited(&p->server->violations))
			log_event(EVENT_HANDSHAKE, ABOUT(.uid = &p->cred.uid),
				  "uid %u pid %d did not finish its handshake in %llu s: closed",
				  p->cred.uid, p->cred.pid, HANDSHAKE_S);
		peer_free(p);
		return false;
	}
}
