/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection: opened, closed, looked after, asked. Its sessions come and go,
 * see session.c and revive.c.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

int conn_fail(sparq *c, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->error, sizeof(c->error), format, args);
	va_end(args);
	return error;
}

sparq *conn_ref(sparq *c)
{
	fetch_add(&c->refs, 1);
	return c;
}

bool conn_is_child(const sparq *c)
{
	return getpid() != c->pid;
}

static void conn_free(sparq *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(c->queue); i++)
		queue_free(c->queue[i]);
	arena_deinit(&c->arena);
	session_unref(c->session);
	close_fd(&c->fd);
	if (!conn_is_child(c)) {
		pthread_cond_destroy(&c->changed);
		pthread_mutex_destroy(&c->lock);
		pthread_mutex_destroy(&c->speak);
	}
	free(c->path);
	free(c);
}

sparq *conn_unref(sparq *c)
{
	if (c && fetch_sub(&c->refs, 1) == 1)
		conn_free(c);
	return NULL;
}

struct session *conn_session(sparq *c)
{
	struct session *s;

	pthread_mutex_lock(&c->lock);
	s = session_ref(c->session);
	pthread_mutex_unlock(&c->lock);
	return s;
}

uint64_t conn_features(sparq *c)
{
	uint64_t features;

	pthread_mutex_lock(&c->lock);
	features = c->session->told.features;
	pthread_mutex_unlock(&c->lock);
	return features;
}

uint32_t conn_placement(sparq *c, const union message *m)
{
	if (!(conn_features(c) & SPARQ_FEATURE_PLACEMENT) || m->head.rsv > SPARQ_PLACEMENT_ROWS)
		return SPARQ_PLACEMENT_UNKNOWN;
	return m->head.rsv;
}

int conn_string(sparq *c, const char *what, const char *value, char *ret, size_t n)
{
	size_t length = value ? strlen(value) : 0;

	if (length >= n)
		return conn_fail(c, -EINVAL, "%s=%.40s...: longer than %zu characters", what, value,
				 n - 1);
	memset(ret, 0, n);
	if (length)
		memcpy(ret, value, length);
	return 0;
}

/* ---- opening and closing ------------------------------------------------------ */

static int open_params(const struct sparq_open_params *given, struct sparq_open_params *ret)
{
	struct sparq_open_params p = {};
	int r = given ? struct_take(&p, sizeof(p), given) : 0;

	if (r < 0)
		return r;
	if (p.queues > SPARQ_MAX_QUEUES || p.sq_entries > SPARQ_MAX_SQ_ENTRIES ||
	    (p.sq_entries & (p.sq_entries - 1)) || p.node < 0 || p.flags)
		return -EINVAL;
	/* The preset of the arena is the daemon's; the others are checked in its answer. */
	if (!p.queues)
		p.queues = 1;
	if (!p.sq_entries)
		p.sq_entries = 64;
	if (!p.reconnect_ms)
		p.reconnect_ms = RECONNECT_MS;
	*ret = p;
	return 0;
}

static void fill_hello(const struct sparq_open_params *p, struct sparq_msg_hello *ret)
{
	union message m;

	message_init(&m, SPARQ_MSG_HELLO);
	m.hello.magic = SPARQ_MAGIC;
	m.hello.abi = SPARQ_ABI_MAJOR;
	m.hello.n_queues = p->queues;
	m.hello.sq_entries = p->sq_entries;
	m.hello.node = p->node - 1;
	m.hello.arena_bytes = p->arena_bytes;
	m.hello.features = SPARQ_FEATURES_COMPAT;
	m.hello.features_incompat = SPARQ_FEATURES_INCOMPAT;
	*ret = m.hello;
}

static void make_locks(sparq *c)
{
	pthread_condattr_t attributes;

	pthread_mutex_init(&c->speak, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* that of clock_now_ns */
	pthread_cond_init(&c->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

static int conn_new(const char *path, const struct sparq_open_params *p, sparq **ret)
{
	sparq *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	if (!path)
		path = secure_getenv("SPARQ_SOCKET");
	c->path = strdup(path ? path : SPARQ_SOCKET_PATH);
	if (!c->path) {
		free(c);
		return -ENOMEM;
	}
	c->refs = 1;
	c->pid = getpid();
	c->fd = -1;
	c->random = (uint64_t)clock_now_ns() ^ (uint64_t)c->pid << 32;
	c->patience_ns = p->reconnect_ms == UINT32_MAX ? -1 : p->reconnect_ms * NS_PER_MS;
	fill_hello(p, &c->hello);
	make_locks(c);
	*ret = c;
	return 0;
}

static void conn_unrefp(sparq **c)
{
	conn_unref(*c);
}

static int open_failed(const struct sparq_open_params *p, int error, const char *text)
{
	if (p->why)
		snprintf(p->why, SPARQ_ERROR_TEXT, "%s", text);
	return error;
}

int sparq_open(const char *path, const struct sparq_open_params *params, sparq **ret)
{
	CLEANUP(conn_unrefp) sparq *c = NULL;
	struct sparq_open_params p = {};
	int r = open_params(params, &p);

	if (r == 0)
		r = conn_new(path, &p, &c);
	if (r < 0)
		return r;
	r = session_open(c->path, &c->hello, OPEN_TIMEOUT_NS, c->error, &c->session);
	if (r < 0)
		return open_failed(&p, r, c->error);
	/* What the daemon has chosen is what a later one is asked for. */
	c->hello.arena_bytes = c->session->told.arena_bytes;
	r = arena_init(&c->arena, c->hello.arena_bytes);
	if (r < 0)
		return open_failed(&p, r, "the arena is too small, or there is no memory");
	*ret = STEAL_PTR(c);
	return 0;
}

sparq *sparq_close(sparq *c)
{
	if (c && !conn_is_child(c)) {
		pthread_mutex_lock(&c->lock);
		c->closed = true;
		session_end(c->session);
		pthread_cond_broadcast(&c->changed);
		pthread_mutex_unlock(&c->lock);
	}
	return conn_unref(c);
}

/* ---- event loop ----------------------------------------------------------------- */

/* One number for the life of the connection: the socket of a new session takes the place of the
 * old one's behind it. */
int sparq_fd(sparq *c)
{
	int fd;

	if (conn_is_child(c))
		return -ENOTCONN;
	pthread_mutex_lock(&c->lock);
	if (c->fd < 0)
		c->fd = fcntl(c->session->socket, F_DUPFD_CLOEXEC, 0);
	fd = c->fd < 0 ? -errno : c->fd;
	pthread_mutex_unlock(&c->lock);
	return fd;
}

/* No message of this major version begins with the daemon: what comes is an answer that its call
 * did not wait for, or the end. */
static int read_stray(sparq *c)
{
	int fds[MESSAGE_MAX_FDS], r = 0;
	unsigned n_fds = ARRAY_SIZE(fds);
	union message m;
	size_t bytes;

	pthread_mutex_lock(&c->speak);
	if (poll(&(struct pollfd){ .fd = c->session->socket, .events = POLLIN }, 1, 0) > 0) {
		r = message_receive(c->session->socket, &m, &bytes, fds, &n_fds) > 0;
		if (!r)
			session_end(c->session);
		for (unsigned i = 0; r && i < n_fds; i++)
			close_fd(&fds[i]);
	}
	pthread_mutex_unlock(&c->speak);
	return r;
}

/* 1 if there is a session that the program has not heard of. */
static int is_news(sparq *c)
{
	int news;

	pthread_mutex_lock(&c->lock);
	news = c->known != c->serial;
	c->known = c->serial;
	pthread_mutex_unlock(&c->lock);
	return news;
}

int sparq_dispatch(sparq *c)
{
	char why[SPARQ_ERROR_TEXT];
	int r, n;

	c->error[0] = '\0';
	if (conn_is_child(c))
		return conn_fail(c, -ENOTCONN, "a handle does not outlive fork()");
	n = read_stray(c);
	r = conn_revive(c, REVIVE_ONCE, why);
	if (r < 0)
		return conn_fail(c, -ENOTCONN, "%s", why);
	return n + is_news(c);
}

/* ---- asking --------------------------------------------------------------------- */

int sparq_info_get(sparq *c, struct sparq_info *ret)
{
	struct sparq_info info = {};
	struct session *s;
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_INFO);
	r = conn_call(c, &m);
	if (r < 0)
		return r;
	s = conn_session(c);
	info.abi = s->told.abi;
	info.generation = s->told.generation;
	info.pid = s->told.pid;
	info.max_rows = s->told.max_rows;
	info.max_items = s->told.max_items;
	info.features = s->told.features;
	session_unref(s);
	info.pool_bytes = m.info.pool_bytes;
	info.pool_used_bytes = m.info.pool_used_bytes;
	info.page_bytes = m.info.page_bytes;
	info.quota_bytes = m.info.quota_bytes;
	info.charged_bytes = m.info.charged_bytes;
	info.nodes = m.info.nodes;
	info.workers = m.info.workers;
	memcpy(info.version, m.info.version, sizeof(info.version));
	memcpy(info.isa, m.info.isa, sizeof(info.isa));
	return struct_give(ret, &info, sizeof(info));
}

int sparq_name(sparq *c, const char *kind, unsigned i, const char **ret)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_NAME);
	r = conn_string(c, "kind", kind, m.name.kind, sizeof(m.name.kind));
	if (r < 0)
		return r;
	m.name.index = i;
	r = conn_call(c, &m);
	if (r < 0)
		return r;
	memcpy(c->name, m.name.name, sizeof(c->name));
	*ret = c->name;
	return 0;
}

const char *sparq_error(sparq *c)
{
	return c->error;
}
