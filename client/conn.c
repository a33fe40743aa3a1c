/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection: the handshake, one request at a time, and the end of it.
 *
 * The end has many causes (a dead daemon, a broken protocol, sparq_close) and
 * one form: `dead` is set, the socket is shut down, and every handle says so
 * from then on. Nothing is mapped away under a
 * handle that is still there.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "client/private.h"
#include "shm/atomic.h"

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

/* A forked child shares the socket, not the memory (MADV_DONTFORK): it must not speak on the first
 * nor unmap what it may have mapped itself where the second was. */
static bool is_child(const sparq *c)
{
	return getpid() != c->pid;
}

static void conn_free(sparq *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(c->queue); i++)
		queue_free(c->queue[i]);
	arena_deinit(&c->arena);
	if (is_child(c))
		c->segment.base = NULL;
	segment_deinit(&c->segment);
	segment_deinit(&c->page);
	close_fd(&c->doorbell);
	close_fd(&c->socket);
	free(c);
}

sparq *conn_unref(sparq *c)
{
	if (c && fetch_sub(&c->refs, 1) == 1)
		conn_free(c);
	return NULL;
}

void conn_end(sparq *c)
{
	/* Whoever sees `dead` needs nothing else of what was stored before. */
	store_relaxed(&c->dead, 1);
	if (c->socket >= 0 && !is_child(c))
		shutdown(c->socket, SHUT_RDWR);
}

bool conn_alive(sparq *c)
{
	struct pollfd p = { .fd = c->socket, .events = POLLRDHUP };

	if (load_relaxed(&c->dead))
		return false;
	if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)))
		store_relaxed(&c->dead, 1);
	return !load_relaxed(&c->dead);
}

/* An error that the daemon answered, or an answer that is late, leaves the session as it was: late
 * ones are told by their cookie. Any other failure is the end of it. */
static int call_failed(sparq *c, const union message *m, uint16_t type, int error)
{
	if (m->head.type == (type | SPARQ_MSG_REPLY) && m->head.res == error)
		return error;
	if (error == -ETIMEDOUT)
		return conn_fail(c, error, "%s: no answer in time", message_name(type));
	conn_end(c);
	if (error == -EBADMSG)
		return conn_fail(c, error, "%s: the answer is malformed; the session is over",
				 message_name(type));
	return conn_fail(c, -ENOTCONN, "%s: the daemon has closed the session", message_name(type));
}

static int call(sparq *c, union message *m, int *fds, unsigned n_fds, int64_t timeout_ns)
{
	uint16_t type = m->head.type;
	int r;

	c->error[0] = '\0';
	if (is_child(c))
		return conn_fail(c, -ENOTCONN, "a handle does not outlive fork()");
	if (load_relaxed(&c->dead))
		return conn_fail(c, -ENOTCONN, "the session is over");
	m->head.cookie = ++c->cookie;
	r = message_call(c->socket, m, fds, n_fds, timeout_ns, c->error);
	return r < 0 ? call_failed(c, m, type, r) : 0;
}

int conn_call(sparq *c, union message *m)
{
	return call(c, m, NULL, 0, CALL_TIMEOUT_NS);
}

int conn_call_fds(sparq *c, union message *m, int *fds, unsigned n_fds)
{
	return call(c, m, fds, n_fds, CALL_TIMEOUT_NS);
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

/* ---- handshake ------------------------------------------------------------ */

/* segment, daemon page, doorbell: in the order of the wire */
struct hello_fds {
	int fd[3];
};

static void hello_fds_deinit(struct hello_fds *f)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->fd); i++)
		close_fd(&f->fd[i]);
}

static int map_page(sparq *c, int *fd)
{
	struct stat st;
	const char *why;
	int r;

	if (fstat(*fd, &st) < 0)
		return conn_fail(c, -errno, "the daemon page: %s", strerror(errno));
	if (st.st_size < (off_t)sizeof(struct sparq_daemon_page) || st.st_size > (off_t)MIB)
		return conn_fail(c, -EPROTO, "the daemon page has %lld bytes",
				 (long long)st.st_size);
	r = segment_map(*fd, (size_t)st.st_size, false, &c->page);
	if (r < 0)
		return conn_fail(c, r, "the daemon page: %s", strerror(-r));
	*fd = -1; /* the mapping has it now */
	r = hello_check_page(c->page.base, &c->told, &why);
	return r < 0 ? conn_fail(c, r, "%s", why) : 0;
}

static int map_segment(sparq *c, int *fd)
{
	int r = segment_map(*fd, c->told.segment_bytes, true, &c->segment);

	if (r < 0)
		return conn_fail(c, r, "the session's memory: %s", strerror(-r));
	*fd = -1;
	/* A child of fork() would share the rings, and a ring has one writer. */
	if (madvise(c->segment.base, c->segment.bytes, MADV_DONTFORK) < 0)
		return conn_fail(c, -errno, "madvise: %s", strerror(errno));
	return arena_init(&c->arena, c->told.arena_bytes);
}

static int shake_hands(sparq *c, const struct sparq_open_params *p)
{
	CLEANUP(hello_fds_deinit) struct hello_fds fds = { { -1, -1, -1 } };
	struct sparq_msg_hello asked;
	union message m;
	const char *why;
	int r;

	message_init(&m, SPARQ_MSG_HELLO);
	m.hello.magic = SPARQ_MAGIC;
	m.hello.abi = SPARQ_ABI_MAJOR;
	m.hello.n_queues = p->queues;
	m.hello.sq_entries = p->sq_entries;
	m.hello.node = p->node - 1;
	m.hello.arena_bytes = p->arena_bytes;
	m.hello.features = SPARQ_FEATURES_COMPAT;
	m.hello.features_incompat = SPARQ_FEATURES_INCOMPAT;
	asked = m.hello;
	r = call(c, &m, fds.fd, ARRAY_SIZE(fds.fd), OPEN_TIMEOUT_NS);
	if (r < 0)
		return r;
	r = hello_check(&m.hello_reply, &asked, &why);
	if (r < 0)
		return conn_fail(c, r, "%s", why);
	c->told = m.hello_reply;
	r = map_page(c, &fds.fd[1]);
	if (r < 0)
		return r;
	r = map_segment(c, &fds.fd[0]);
	if (r < 0)
		return r;
	c->doorbell = STEAL_FD(fds.fd[2]);
	message_init(&m, SPARQ_MSG_MAPPED);
	return conn_call(c, &m);
}

/* ---- public ------------------------------------------------------------------- */

static int open_params(const struct sparq_open_params *given, struct sparq_open_params *ret)
{
	struct sparq_open_params p = {};
	int r = given ? struct_take(&p, sizeof(p), given) : 0;

	if (r < 0)
		return r;
	if (p.queues > SPARQ_MAX_QUEUES || p.sq_entries > SPARQ_MAX_SQ_ENTRIES ||
	    (p.sq_entries & (p.sq_entries - 1)) || p.node < 0)
		return -EINVAL;
	/* The preset of the arena is the daemon's; the others are checked in its answer. */
	if (!p.queues)
		p.queues = 1;
	if (!p.sq_entries)
		p.sq_entries = 64;
	*ret = p;
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

	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->refs = 1;
	c->pid = getpid();
	c->socket = c->doorbell = -1;
	c->segment = c->page = SEGMENT_NULL;
	if (!path)
		path = secure_getenv("SPARQ_SOCKET");
	if (!path)
		path = SPARQ_SOCKET_PATH;
	r = socket_connect(path, SOCK_SEQPACKET, OPEN_TIMEOUT_NS, &c->socket);
	if (r < 0)
		conn_fail(c, r, "%.160s: %s", path, strerror(-r));
	else
		r = shake_hands(c, &p);
	if (r < 0)
		return open_failed(&p, r, c->error);
	*ret = STEAL_PTR(c);
	return 0;
}

sparq *sparq_close(sparq *c)
{
	if (c)
		conn_end(c);
	return conn_unref(c);
}

int sparq_fd(sparq *c)
{
	return c->socket;
}

int sparq_dispatch(sparq *c)
{
	struct hello_fds fds = { { -1, -1, -1 } };
	struct pollfd p = { .fd = c->socket, .events = POLLIN };
	unsigned n_fds = ARRAY_SIZE(fds.fd);
	union message m;
	size_t bytes;

	c->error[0] = '\0';
	if (load_relaxed(&c->dead) || is_child(c))
		return conn_fail(c, -ENOTCONN, "the session is over");
	if (poll(&p, 1, 0) <= 0)
		return 0;
	/* No message of this major version begins with the daemon: what comes now is an answer that
	 * its call did not wait for, or the end. */
	if (message_receive(c->socket, &m, &bytes, fds.fd, &n_fds) > 0) {
		hello_fds_deinit(&fds);
		return 1;
	}
	conn_end(c);
	return conn_fail(c, -ENOTCONN, "the daemon has closed the session");
}

int sparq_info_get(sparq *c, struct sparq_info *ret)
{
	struct sparq_info info = {};
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_INFO);
	r = conn_call(c, &m);
	if (r < 0)
		return r;
	info.abi = c->told.abi;
	info.generation = c->told.generation;
	info.pid = c->told.pid;
	info.max_rows = c->told.max_rows;
	info.max_items = c->told.max_items;
	info.features = c->told.features;
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
