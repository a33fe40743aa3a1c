/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake: HELLO makes the segment and tells where everything lies,
 * MAPPED says that the client has it; then it is sealed and polled, in this
 * order (sparq-protocol(7)).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "daemon/fault.h"
#include "daemon/peer.h"
#include "daemon/seq.h"
#include "numa/pin.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/probe.h"

#define QUEUES_DEFAULT 1u
/* A ring of 4 KiB and its completions stay in an L1 cache on both sides; with 256 entries a round
 * trip takes a tenth to a sixth longer. */
#define SQ_ENTRIES_DEFAULT 64u
#define ARENA_BYTES_DEFAULT (16 * MIB)
#define PART_BYTES (16 * MIB) /* of a segment, at once: some milliseconds */

/* ---- what is asked for ---------------------------------------------------- */

static int check_version(const struct sparq_msg_hello *m, char *why)
{
	uint64_t lacking = m->features_incompat & ~SPARQ_FEATURES_INCOMPAT;

	if (m->magic != SPARQ_MAGIC)
		return PEER_REFUSE(-EPROTO, "magic %#" PRIx64 ": not a client of sparqd", m->magic);
	if (m->abi != SPARQ_ABI_MAJOR)
		return PEER_REFUSE(-EPROTONOSUPPORT,
				   "the client speaks protocol version %" PRIu32
				   ", sparqd " SPARQ_VERSION " speaks %u",
				   m->abi, SPARQ_ABI_MAJOR);
	if (lacking)
		return PEER_REFUSE(-EPROTONOSUPPORT,
				   "the client needs features %#" PRIx64
				   " that sparqd " SPARQ_VERSION " does not have",
				   lacking);
	return 0;
}

static int check_refused(struct peer *p, char *why)
{
	const struct config *c = &p->server->config;

	if (p->server->draining)
		return PEER_REFUSE(-ESHUTDOWN, "sparqd is stopping");
	if (p->server->refused)
		return PEER_REFUSE(p->server->refused, "%s", p->server->refusal);
	peer_admit_again(p);
	if (p->refused == -EDQUOT)
		return PEER_REFUSE(-EDQUOT,
				   "uid %u has %" PRIu64 " sessions: user_sessions = %" PRIu32,
				   p->cred.uid, load_relaxed(&p->user->charged[USER_SESSIONS]),
				   c->user_sessions);
	if (p->refused)
		return PEER_REFUSE(p->refused, "max_sessions = %" PRIu32 " are connected",
				   c->max_sessions);
	if (!rate_take(&p->server->rate, p->cred.uid, c->user_session_rate, clock_now_ns()))
		return PEER_REFUSE(-EAGAIN,
				   "uid %u opens more than user_session_rate = %" PRIu32
				   " sessions a second",
				   p->cred.uid, c->user_session_rate);
	return 0;
}

static bool node_exists(const struct topo *t, int32_t node)
{
	for (unsigned i = 0; i < t->n_nodes; i++)
		if (t->node[i].id == node)
			return true;
	return node == -1;
}

static int check_sizes(const struct peer *p, struct sparq_msg_hello *m, char *why)
{
	uint64_t most = p->server->config.arena_bytes_max;

	m->n_queues = m->n_queues ? m->n_queues : QUEUES_DEFAULT;
	m->sq_entries = m->sq_entries ? m->sq_entries : SQ_ENTRIES_DEFAULT;
	m->arena_bytes = m->arena_bytes ? m->arena_bytes : MIN(ARENA_BYTES_DEFAULT, most);
	if (m->n_queues > SPARQ_MAX_QUEUES)
		return PEER_REFUSE(-EINVAL, "%" PRIu32 " queues: at most %u", m->n_queues,
				   SPARQ_MAX_QUEUES);
	if (m->sq_entries < 2 || m->sq_entries > SPARQ_MAX_SQ_ENTRIES ||
	    (m->sq_entries & (m->sq_entries - 1)))
		return PEER_REFUSE(-EINVAL, "%" PRIu32 " entries: a power of two from 2 to %u",
				   m->sq_entries, SPARQ_MAX_SQ_ENTRIES);
	if (m->arena_bytes > most)
		return PEER_REFUSE(-E2BIG,
				   "an arena of %" PRIu64 " bytes: arena_bytes_max = %" PRIu64,
				   m->arena_bytes, most);
	if (!node_exists(&p->server->topo, m->node))
		return PEER_REFUSE(-EINVAL, "node %" PRId32 ": there is no such node; -1 is any",
				   m->node);
	return 0;
}

static int check(struct peer *p, struct sparq_msg_hello *m, struct segment_layout *ret, char *why)
{
	int r = check_version(m, why);

	if (r == 0)
		r = check_refused(p, why);
	if (r == 0)
		r = check_sizes(p, m, why);
	if (r == 0)
		r = segment_plan((unsigned)p->server->next_session, m->n_queues, m->sq_entries,
				 m->arena_bytes, ret);
	return r;
}

/* ---- what it costs -------------------------------------------------------- */

/* What is parked makes room: who has spent the quota must be able to come in and drop something. */
static int charge_segment(struct peer *p, uint64_t bytes)
{
	struct shortage s = { .limit = LIMIT_QUOTA, .bytes = bytes };
	int r;

	do
		r = user_charge(p->user, USER_BYTES, bytes);
	while (r < 0 && evict_for(&p->server->evictor, p->user, &s));
	return r;
}

static int charge(struct peer *p, const struct segment_layout *l, char *why)
{
	struct server *s = p->server;
	uint64_t all = server_segment_limit(s);

	if (l->bytes > all - MIN(s->segment_bytes, all))
		return PEER_REFUSE(-ENOSPC,
				   "a segment of %zu bytes: all sessions have %" PRIu64
				   " of segment_bytes = %" PRIu64,
				   l->bytes, s->segment_bytes, all);
	if (user_charge(p->user, USER_QUEUES, l->n_queues) < 0)
		return PEER_REFUSE(-EDQUOT,
				   "%" PRIu32 " queues: uid %u has %" PRIu64
				   ", user_queues = %" PRIu32,
				   l->n_queues, p->cred.uid,
				   load_relaxed(&p->user->charged[USER_QUEUES]),
				   s->config.user_queues);
	p->charged_queues = l->n_queues;
	if (charge_segment(p, l->bytes) < 0)
		return PEER_REFUSE(-EDQUOT,
				   "a segment of %zu bytes: uid %u has %" PRIu64 " of its %" PRIu64
				   " bytes",
				   l->bytes, p->cred.uid,
				   load_relaxed(&p->user->charged[USER_BYTES]),
				   load_relaxed(&p->user->limit[USER_BYTES]));
	p->charged_bytes = l->bytes;
	s->segment_bytes += l->bytes;
	return 0;
}

static void refund(struct peer *p)
{
	user_refund(p->user, USER_QUEUES, p->charged_queues);
	user_refund(p->user, USER_BYTES, p->charged_bytes);
	p->server->segment_bytes -= p->charged_bytes;
	p->charged_queues = 0;
	p->charged_bytes = 0;
}

/* ---- making and giving back ----------------------------------------------- */

static int init_queue(struct session *session, uint32_t slot, uint32_t i)
{
	struct queue *q = &session->queue[i];
	struct ring_map map;
	int r = segment_ring(&session->segment, &session->layout, i, &map);

	if (r < 0)
		return r;
	ring_daemon_init(&q->ring, &map);
	/* A fault slot is one session's, so this is unique among the rings that live. */
	q->number = slot * SPARQ_MAX_QUEUES + i + 1;
	q->session = session;
	return 0;
}

/* The arena lies on the node that the client asked for, else where its worker reads it. 1: there is
 * more of it. */
static int take_part(struct peer *p, int node)
{
	/* Without NUMA there is nothing to choose, and a full node is no reason to refuse. */
	bool placed = node >= 0 && pin_memory(node) == 0;
	int r = segment_fill(&p->session->segment, PART_BYTES, &p->taken_bytes);

	if (placed)
		pin_memory(-1);
	p->server->part_ns = clock_now_ns();
	return r;
}

static int fill_session(struct peer *p, struct session *session)
{
	int r;

	session->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->doorbell < 0)
		return -errno;
	r = fault_watch(session->segment.base, session->segment.bytes, &p->fault_slot);
	if (r < 0)
		return r;
	p->watched = true;
	for (uint32_t i = 0; i < session->n_queues && r == 0; i++)
		r = init_queue(session, p->fault_slot, i);
	return r;
}

static int make_session(struct peer *p, const struct segment_layout *l, int node)
{
	struct session *session = calloc(1, sizeof(*session));
	struct server *s = p->server;

	if (!session)
		return -ENOMEM;
	p->session = session;
	session->id = ++s->next_session;
	session->user = p->user;
	session->segment = SEGMENT_NULL;
	session->layout = *l;
	session->doorbell = -1;
	session->worker = server_choose_worker(s, node);
	session->n_queues = l->n_queues;
	session->peer = p;
	for (uint32_t i = 0; i < SPARQ_MAX_QUEUES; i++)
		session->queue[i].wake_fd = session->queue[i].client_end = -1;
	s->rings[session->worker] += l->n_queues;
	return segment_begin("sparqd-session", l->bytes, &session->segment);
}

/* Its segment, a part at a time, and what lies in it: 0, PEER_LATER, -errno. */
static int build_session(struct peer *p, int node)
{
	struct session *session = p->session;
	int r = take_part(p, node != -1 ? node : server_worker_node(p->server, session->worker));

	p->is_taking = r > 0;
	if (r > 0) {
		peer_take_more(p);
		return PEER_LATER;
	}
	return r < 0 ? r : fill_session(p, session);
}

static void drop_caches(struct peer *p)
{
	for (uint32_t i = 0; i < p->n_caches; i++)
		for (uint32_t n = p->cache[i].refs; n > 0; n--)
			cache_leave(p->cache[i].cache);
	p->n_caches = 0;
}

void peer_session_free(struct peer *p)
{
	struct session *session = STEAL_PTR(p->session);
	struct server *s = p->server;

	if (p->state >= PEER_SERVING)
		PROBE3(session_close, session->id, p->cred.uid, p->cred.pid);
	peer_save_end(p);
	/* No entry is in flight: no worker ever knew it, or its worker said DETACHED. */
	if (!s->draining || !server_is_kept(s)) {
		seq_release_session(&s->store, session->id);
		drop_caches(p);
	} /* else the next daemon finds them as they are, and parks them */
	for (uint32_t i = 0; i < session->n_queues; i++) {
		close_fd(&session->queue[i].wake_fd);
		close_fd(&session->queue[i].client_end);
	}
	if (p->watched)
		fault_forget(p->fault_slot);
	p->watched = false;
	segment_deinit(&session->segment);
	close_fd(&session->doorbell);
	s->rings[session->worker] -= session->n_queues;
	free(session);
	refund(p);
}

/* ---- the two requests ----------------------------------------------------- */

static void tell(const struct peer *p, struct sparq_msg_hello_reply *m)
{
	const struct segment_layout *l = &p->session->layout;

	m->abi = SPARQ_ABI_MAJOR;
	m->generation = p->server->generation;
	m->features = SPARQ_FEATURES_COMPAT;
	m->features_incompat = SPARQ_FEATURES_INCOMPAT;
	m->segment_bytes = l->bytes;
	m->arena_offset = l->arena_offset;
	m->arena_bytes = l->arena_bytes;
	m->n_queues = l->n_queues;
	m->sq_entries = l->sq_entries;
	m->cq_entries = l->cq_entries;
	m->poller = p->session->worker;
	m->max_rows = SPARQ_MAX_ROWS;
	m->max_items = SPARQ_MAX_ITEMS;
	m->spin_ns = p->server->spin_ns;
	m->pid = getpid();
	memcpy(m->ring, l->ring, l->n_queues * sizeof(l->ring[0]));
}

static int begin_session(struct peer *p, struct sparq_msg_hello *hello, char *why)
{
	struct segment_layout layout;
	int r = check(p, hello, &layout, why);

	if (r < 0)
		return r;
	p->taken_bytes = 0;
	r = charge(p, &layout, why);
	return r < 0 ? r : make_session(p, &layout, hello->node);
}

static int fail_hello(struct peer *p, int error, char *why)
{
	if (!p->session) {
		refund(p);
		return error;
	}
	if (!why[0])
		snprintf(why, SPARQ_ERROR_TEXT, "cannot make a segment of %zu bytes: %s",
			 p->session->layout.bytes, strerror(-error));
	peer_session_free(p);
	return error;
}

int peer_hello(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_hello hello = m->hello;
	int r = 0;

	if (p->state != PEER_NEW)
		return PEER_REFUSE(-EPROTO, "HELLO comes first, and once");
	if (!p->is_taking)
		r = begin_session(p, &hello, why);
	if (r == 0)
		r = build_session(p, hello.node);
	if (r == PEER_LATER)
		return r;
	if (r < 0)
		return fail_hello(p, r, why);
	p->state = PEER_MAPPING;
	message_reply(m, &hello.head);
	tell(p, &m->hello_reply);
	p->out_fds[0] = p->session->segment.fd;
	p->out_fds[1] = p->server->page.fd;
	p->out_fds[2] = p->session->doorbell;
	p->n_out_fds = 3;
	return 0;
}

int peer_mapped(struct peer *p, union message *m, char *why)
{
	struct session *session = p->session;
	struct sparq_msg head = m->head;
	int r;

	if (p->state != PEER_MAPPING)
		return PEER_REFUSE(-EPROTO, "MAPPED comes after HELLO, and once");
	/* From here on nobody can punch a hole or map it to write; no byte was read yet. */
	r = segment_seal(&session->segment);
	if (r < 0)
		return PEER_REFUSE(r, "cannot seal the segment: %s", strerror(-r));
	close_fd(&session->segment.fd); /* the mappings are all that is needed now */
	r = workers_attach(p->server->workers, session);
	if (r < 0)
		return r;
	p->state = PEER_SERVING;
	PROBE3(session_open, session->id, p->cred.uid, p->cred.pid);
	log_debug("session %" PRIu64 ": uid %u pid %d, %" PRIu32
		  " queues on worker %u, arena %zu KiB",
		  session->id, p->cred.uid, p->cred.pid, session->n_queues, session->worker,
		  session->layout.arena_bytes / KIB);
	server_changed(p->server);
	message_reply(m, &head);
	return 0;
}
