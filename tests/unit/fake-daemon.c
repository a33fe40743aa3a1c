/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon in a thread: see fake-daemon.h. */
#include "fake-daemon.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/doorbell.h"

#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct fake_session {
	struct fake *fake;
	int socket, doorbell, queue_fd[SPARQ_MAX_QUEUES], client_fd[SPARQ_MAX_QUEUES];
	bool mapped;
	struct segment segment, page;
	struct segment_layout layout;
	struct ring_daemon ring[SPARQ_MAX_QUEUES];
	struct sleeper sleeper;
	struct sparq_cqe held[1024];
	uint32_t held_ring[1024], n_held;
};

/* ---- rings ---------------------------------------------------------------- */

static void complete(struct fake_session *s, uint32_t i, const struct sparq_cqe *cqe)
{
	ring_daemon_post(&s->ring[i], cqe);
	fetch_add(&s->fake->completed, 1);
}

static void release_held(struct fake_session *s)
{
	if (load_acquire(&s->fake->hold))
		return;
	for (uint32_t i = 0; i < s->n_held; i++)
		complete(s, s->held_ring[i], &s->held[i]);
	s->n_held = 0;
}

/* res of a completion is the entry's row + 1: the test can tell that the entry itself arrived. */
static unsigned serve_ring(struct fake_session *s, uint32_t i)
{
	struct sparq_cqe batch[32];
	struct sparq_sqe e;
	unsigned n = 0, copied = 0;

	while (n < ARRAY_SIZE(batch) && ring_daemon_copy(&s->ring[i], &e) == 1) {
		struct sparq_cqe c = { .user_data = e.user_data, .res = (int32_t)e.row + 1 };

		copied++;
		if ((e.user_data & FAKE_HELD) && load_acquire(&s->fake->hold)) {
			CHECK(s->n_held < ARRAY_SIZE(s->held));
			s->held_ring[s->n_held] = i;
			s->held[s->n_held++] = c;
		} else {
			batch[n++] = c;
		}
	}
	for (unsigned b = 0; b < n; b++)
		complete(s, i, &batch[load_acquire(&s->fake->backwards) ? n - 1 - b : b]);
	ring_daemon_tell(&s->ring[i], copied == 0);
	return copied;
}

static unsigned serve_rings(struct fake_session *s)
{
	unsigned n = 0;

	if (!s->mapped)
		return 0;
	release_held(s);
	for (uint32_t i = 0; i < s->layout.n_queues; i++) {
		n += serve_ring(s, i);
		waiter_wake(s->ring[i].map.ctl, s->queue_fd[i]);
	}
	return n;
}

/* ---- control ------------------------------------------------------------------ */

static void make_session(struct fake_session *s, const struct sparq_msg_hello *h)
{
	struct sparq_daemon_page *page;
	uint64_t arena = h->arena_bytes ? h->arena_bytes : MIB;

	CHECK(segment_plan(1, h->n_queues, h->sq_entries, arena, &s->layout) == 0);
	CHECK(segment_create("fake-session", s->layout.bytes, &s->segment) == 0);
	CHECK(segment_create("fake-page", sizeof(*page), &s->page) == 0);
	page = s->page.base;
	page->magic = SPARQ_MAGIC;
	page->abi = SPARQ_ABI_MAJOR;
	page->generation = s->fake->generation;
	page->n_pollers = 1;
	page->poller[0].cpu = UINT32_MAX;
	s->sleeper.poller = &page->poller[0];
	s->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(s->doorbell >= 0);
	for (uint32_t i = 0; i < s->layout.n_queues; i++) {
		struct ring_map map;

		CHECK(segment_ring(&s->segment, &s->layout, i, &map) == 0);
		ring_daemon_init(&s->ring[i], &map);
		s->queue_fd[i] = s->client_fd[i] = -1;
	}
}

static void answer_hello(struct fake_session *s, const union message *m)
{
	struct sparq_msg request = m->head;
	int fds[3];
	union message a = *m;

	if (s->fake->refuse) {
		message_fail(&a, &request, -EDQUOT, "%s", s->fake->refuse);
		CHECK(message_send(s->socket, &a, NULL, 0) == 0);
		return;
	}
	make_session(s, &m->hello);
	message_reply(&a, &request);
	a.hello_reply.abi = SPARQ_ABI_MAJOR;
	a.hello_reply.generation = s->fake->generation;
	a.hello_reply.features = SPARQ_FEATURES_COMPAT;
	a.hello_reply.segment_bytes = s->layout.bytes;
	a.hello_reply.arena_offset = s->layout.arena_offset;
	a.hello_reply.arena_bytes = s->layout.arena_bytes;
	a.hello_reply.n_queues = s->layout.n_queues;
	a.hello_reply.sq_entries = s->layout.sq_entries;
	a.hello_reply.cq_entries = s->layout.cq_entries;
	a.hello_reply.max_rows = SPARQ_MAX_ROWS;
	a.hello_reply.max_items = SPARQ_MAX_ITEMS;
	a.hello_reply.spin_ns = 20000;
	a.hello_reply.pid = 1;
	memcpy(a.hello_reply.ring, s->layout.ring, sizeof(s->layout.ring));
	if (s->fake->lie)
		s->fake->lie(&a.hello_reply, s->page.base);
	fds[0] = s->segment.fd;
	fds[1] = s->page.fd;
	fds[2] = s->doorbell;
	CHECK(message_send(s->socket, &a, fds, 3) == 0);
}

static void answer_name(union message *m, const struct sparq_msg_name *asked)
{
	static const char *const names[] = { "f16", "hier4" };

	if (strcmp(asked->kind, "format") || asked->index >= ARRAY_SIZE(names)) {
		message_fail(m, &asked->head, -ENOENT, "%s: no number %u", asked->kind,
			     asked->index);
		return;
	}
	memcpy(m->name.kind, asked->kind, sizeof(asked->kind));
	m->name.index = asked->index;
	strcpy(m->name.name, names[asked->index]);
}

static bool is_gone(const struct fake *f, uint64_t id)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->gone); i++)
		if (id && f->gone[i] == id)
			return true;
	return false;
}

static void answer_attach(struct fake *f, union message *m, const struct sparq_msg_cache_attach *a)
{
	if (is_gone(f, a->cache)) {
		message_fail(m, &a->head, -ENOENT, "there is no cache %llu",
			     (unsigned long long)a->cache);
		return;
	}
	m->cache_shape.cache = a->cache ? a->cache : ++f->next_id;
	m->cache_shape.layers = 3;
	strcpy(m->cache_shape.policy, "dense");
}

static void answer_adopt(struct fake *f, union message *m, const struct sparq_msg_seq *a)
{
	if (load_acquire(&f->busy)) {
		fetch_sub(&f->busy, 1);
		message_fail(m, &a->head, -EBUSY, "attached to another session");
	} else if (is_gone(f, a->sequence)) {
		message_fail(m, &a->head, -ENOENT, "there is no sequence %llu",
			     (unsigned long long)a->sequence);
	} else {
		m->seq.sequence = a->sequence;
	}
}

static void answer_seq(struct fake *f, union message *m, const union message *asked)
{
	if (asked->head.type == SPARQ_MSG_SEQ_ATTACH && f->kept &&
	    strcmp(asked->seq_create.name, f->kept)) {
		message_fail(m, &asked->head, -ENOENT, "no sequence \"%s\"",
			     asked->seq_create.name);
		return;
	}
	m->seq.sequence = ++f->next_id;
}

/* Fills the reply `m` to `asked`; the descriptor that goes along, or -1. */
static int answer(struct fake_session *s, const union message *asked, union message *m)
{
	struct fake *f = s->fake;

	switch (asked->head.type) {
	case SPARQ_MSG_MAPPED:
		s->mapped = true;
		break;
	case SPARQ_MSG_NAME:
		answer_name(m, &asked->name);
		break;
	case SPARQ_MSG_INFO:
		m->info.pool_bytes = 1 << 20;
		strcpy(m->info.version, "fake");
		break;
	case SPARQ_MSG_QUEUE_FD:
		m->queue.queue = asked->queue.queue;
		waiter_pair(&s->queue_fd[asked->queue.queue], &s->client_fd[asked->queue.queue]);
		return s->client_fd[asked->queue.queue];
	case SPARQ_MSG_CACHE_CREATE:
		f->cache_create = asked->cache_create;
		m->cache.cache = ++f->next_id;
		break;
	case SPARQ_MSG_CACHE_UNREF:
		f->n_unrefs++;
		break;
	case SPARQ_MSG_CACHE_SET:
		message_fail(m, &asked->head, -EINVAL, "%s=%s: at most 4096", asked->cache_set.key,
			     asked->cache_set.value);
		break;
	case SPARQ_MSG_CACHE_TABLE:
		f->cache_table = asked->cache_table;
		break;
	case SPARQ_MSG_SEQ_CREATE:
	case SPARQ_MSG_SEQ_ATTACH:
	case SPARQ_MSG_SEQ_FORK:
		answer_seq(f, m, asked);
		break;
	case SPARQ_MSG_CACHE_ATTACH:
		answer_attach(f, m, &asked->cache_attach);
		break;
	case SPARQ_MSG_SEQ_ADOPT:
		answer_adopt(f, m, &asked->seq);
		break;
	case SPARQ_MSG_CACHE_STAT:
		m->cache_stat.sequences = f->sequences;
		m->head.rsv = f->placement;
		break;
	case SPARQ_MSG_SEQ_PIN:
		f->pinned = asked->seq.rows;
		break;
	case SPARQ_MSG_SEQ_DROP:
		f->dropped = asked->seq.sequence;
		f->n_drops++;
		break;
	case SPARQ_MSG_SEQ_STAT:
		m->seq_stat.sequence = asked->seq.sequence;
		m->seq_stat.rows_least = asked->seq.rows; /* the layer, to show that it came */
		m->seq_stat.rows_most = 5;
		m->head.rsv = f->placement;
		m->seq_stat.flags = f->pinned ? SPARQ_SEQ_PINNED : 0;
		break;
	default:
		break;
	}
	return -1;
}

/* False when the session is over. */
static bool serve_socket(struct fake_session *s)
{
	union message asked, m;
	int fds[MESSAGE_MAX_FDS], fd;
	unsigned n_fds = 0;
	size_t bytes;

	if (message_receive(s->socket, &asked, &bytes, fds, &n_fds) <= 0)
		return false;
	CHECK(message_check(&asked, bytes, false, NULL) == 0);
	fetch_add(&s->fake->n[asked.head.type], 1);
	if (load_acquire(&s->fake->die_at) == asked.head.type) {
		store_release(&s->fake->die_at, 0);
		return false;
	}
	if (load_acquire(&s->fake->mute))
		return true;
	if (asked.head.type == SPARQ_MSG_HELLO) {
		answer_hello(s, &asked);
		return true;
	}
	m = asked;
	message_reply(&m, &asked.head);
	fd = answer(s, &asked, &m);
	CHECK(message_send(s->socket, &m, &fd, fd >= 0 ? 1 : 0) == 0);
	return true;
}

/* ---- the thread -------------------------------------------------------------- */

/* False when it is time to go. */
static bool sleep_once(struct fake_session *s, int timeout_ms)
{
	struct pollfd p[] = {
		{ .fd = s->fake->stop, .events = POLLIN },
		{ .fd = s->socket, .events = POLLIN },
		{ .fd = s->mapped ? s->doorbell : -1, .events = POLLIN },
		{ .fd = s->fake->kick, .events = POLLIN },
	};
	uint64_t count;

	poll(p, ARRAY_SIZE(p), timeout_ms);
	if (p[3].revents && read(s->fake->kick, &count, sizeof(count)) == sizeof(count))
		return false;
	if (p[2].revents && read(s->doorbell, &count, sizeof(count)) < 0)
		CHECK(errno == EAGAIN);
	if (p[0].revents)
		return false;
	return !p[1].revents || serve_socket(s);
}

static void serve(struct fake_session *s)
{
	unsigned idle = 0;
	bool go_on = true;

	while (go_on) {
		if (serve_rings(s)) {
			idle = 0;
			continue;
		}
		if (++idle < 200) {
			cpu_pause();
			continue;
		}
		idle = 0;
		if (!s->mapped || load_acquire(&s->fake->sleepless)) {
			go_on = sleep_once(s, s->mapped ? 0 : 10);
			continue;
		}
		sleeper_announce(&s->sleeper);
		fetch_add(&s->fake->sleeps, 1);
		if (!serve_rings(s))
			go_on = sleep_once(s, 1000);
		sleeper_cancel(&s->sleeper);
	}
}

static void session_deinit(struct fake_session *s)
{
	close_fd(&s->socket); /* first: this is what a client sees of a death */
	for (uint32_t i = 0; i < s->layout.n_queues; i++) {
		close_fd(&s->queue_fd[i]);
		close_fd(&s->client_fd[i]);
	}
	close_fd(&s->doorbell);
	segment_deinit(&s->segment);
	segment_deinit(&s->page);
}

static void *fake_main(void *arg)
{
	struct fake *f = arg;
	struct pollfd p[] = {
		{ .fd = f->stop, .events = POLLIN },
		{ .fd = f->listener, .events = POLLIN },
	};

	for (;;) {
		struct fake_session *s;

		while (poll(p, ARRAY_SIZE(p), -1) < 0)
			CHECK(errno == EINTR);
		if (p[0].revents)
			return NULL;
		s = calloc(1, sizeof(*s));
		CHECK(s);
		s->fake = f;
		s->segment = s->page = SEGMENT_NULL;
		s->doorbell = -1;
		s->socket = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		CHECK(s->socket >= 0);
		fetch_add(&f->n_sessions, 1);
		serve(s);
		session_deinit(s);
		fetch_add(&f->generation, 1);
		free(s);
	}
}

/* The thread, and the socket it listens to. */
static void begin(struct fake *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
	f->stop = eventfd(0, EFD_CLOEXEC);
	f->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK(f->stop >= 0 && f->kick >= 0 && f->listener >= 0);
	CHECK(bind(f->listener, (const struct sockaddr *)&a, sizeof(a)) == 0);
	CHECK(listen(f->listener, 8) == 0);
	CHECK(pthread_create(&f->thread, NULL, fake_main, f) == 0);
}

static void signal_fd(int fd)
{
	uint64_t one = 1;

	CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

void fake_start(struct fake *f)
{
	const char *base = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/sparq-XXXXXX",
		 base && strlen(base) < 40 ? base : "/tmp");
	CHECK(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	f->generation = 7;
	begin(f);
}

void fake_away(struct fake *f)
{
	signal_fd(f->stop);
	pthread_join(f->thread, NULL);
	close_fd(&f->stop);
	close_fd(&f->kick);
	close_fd(&f->listener);
	unlink(f->path);
}

void fake_back(struct fake *f)
{
	begin(f);
}

void fake_restart(struct fake *f)
{
	uint32_t before = load_acquire(&f->generation);

	signal_fd(f->kick);
	while (load_acquire(&f->generation) == before)
		sched_yield();
}

void fake_die(struct fake *f)
{
	fake_away(f);
	rmdir(f->dir);
}

void fake_stop(struct fake *f)
{
	if (f->stop >= 0)
		fake_die(f);
}
