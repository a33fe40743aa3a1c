/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: the handshake, what it maps, one request at a time, and the end.
 *
 * The end has many causes (a dead daemon, a broken protocol, sparq_close) and
 * one form: `dead` is set, and every use says so from then on. What it maps stays
 * until nothing refers to it.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "client/private.h"
#include "client/socket-why.h"
#include "shm/atomic.h"

int text_fail(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, SPARQ_ERROR_TEXT, format, args);
	va_end(args);
	return error;
}

struct session *session_ref(struct session *s)
{
	fetch_add(&s->refs, 1);
	return s;
}

static void session_free(struct session *s)
{
	/* MADV_DONTFORK: in a child something of its own may lie where it was. */
	if (getpid() != s->pid)
		s->segment.base = NULL;
	segment_deinit(&s->segment);
	segment_deinit(&s->page);
	close_fd(&s->doorbell);
	close_fd(&s->socket);
	free(s);
}

struct session *session_unref(struct session *s)
{
	if (s && fetch_sub(&s->refs, 1) == 1)
		session_free(s);
	return NULL;
}

static void session_unrefp(struct session **s)
{
	session_unref(*s);
}

bool session_alive(struct session *s)
{
	struct pollfd p = { .fd = s->socket, .events = POLLRDHUP };

	if (load_relaxed(&s->dead))
		return false;
	if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)))
		store_relaxed(&s->dead, 1);
	return !load_relaxed(&s->dead);
}

void session_end(struct session *s)
{
	/* Whoever sees `dead` needs nothing else of what was stored before. */
	store_relaxed(&s->dead, 1);
	if (s->socket >= 0)
		shutdown(s->socket, SHUT_RDWR);
}

/* ---- requests --------------------------------------------------------------- */

static int call_failed(struct session *s, const union message *m, uint16_t type, int error,
		       char *why)
{
	if (m->head.type == (type | SPARQ_MSG_REPLY) && m->head.res == error)
		return error;
	if (error == -ETIMEDOUT)
		return text_fail(why, error, "%s: no answer in time", message_name(type));
	session_end(s);
	if (error == -EBADMSG)
		return text_fail(why, error, "%s: the answer is malformed; the session is over",
				 message_name(type));
	return text_fail(why, -ENOTCONN, "%s: the daemon has closed the session",
			 message_name(type));
}

int session_call(struct session *s, union message *m, int *fds, unsigned n_fds, int64_t timeout_ns,
		 char *why, bool *ret_sent)
{
	uint16_t type = m->head.type;
	int r;

	*ret_sent = false;
	if (load_relaxed(&s->dead))
		return text_fail(why, -ENOTCONN, "%s: the session is over", message_name(type));
	m->head.cookie = ++s->cookie;
	r = message_call(s->socket, m, fds, n_fds, timeout_ns, why);
	/* These two come from a send to a socket that nobody will read from. */
	*ret_sent = r != -EPIPE && r != -ENOTCONN;
	return r < 0 ? call_failed(s, m, type, r, why) : 0;
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

static int map_page(struct session *s, int *fd, char *why)
{
	struct stat st;
	const char *fault;
	int r;

	if (fstat(*fd, &st) < 0)
		return text_fail(why, -errno, "the daemon page: %s", strerror(errno));
	if (st.st_size < (off_t)sizeof(struct sparq_daemon_page) || st.st_size > (off_t)MIB)
		return text_fail(why, -EPROTO, "the daemon page has %lld bytes",
				 (long long)st.st_size);
	r = segment_map(*fd, (size_t)st.st_size, false, &s->page);
	if (r < 0)
		return text_fail(why, r, "the daemon page: %s", strerror(-r));
	*fd = -1; /* the mapping has it now */
	r = hello_check_page(s->page.base, &s->told, &fault);
	return r < 0 ? text_fail(why, r, "%s", fault) : 0;
}

static int map_segment(struct session *s, int *fd, char *why)
{
	int r = segment_map(*fd, s->told.segment_bytes, true, &s->segment);

	if (r < 0)
		return text_fail(why, r, "the session's memory: %s", strerror(-r));
	*fd = -1;
	/* A child of fork() would share the rings, and a ring has one writer. */
	if (madvise(s->segment.base, s->segment.bytes, MADV_DONTFORK) < 0)
		return text_fail(why, -errno, "madvise: %s", strerror(errno));
	return 0;
}

static int shake_hands(struct session *s, const struct sparq_msg_hello *hello, int64_t limit_ns,
		       char *why)
{
	CLEANUP(hello_fds_deinit) struct hello_fds fds = { { -1, -1, -1 } };
	union message m = { .hello = *hello };
	const char *fault;
	bool sent;
	int r;

	r = session_call(s, &m, fds.fd, ARRAY_SIZE(fds.fd), limit_ns, why, &sent);
	if (r < 0)
		return r;
	r = hello_check(&m.hello_reply, hello, &fault);
	if (r < 0)
		return text_fail(why, r, "%s", fault);
	s->told = m.hello_reply;
	r = map_page(s, &fds.fd[1], why);
	if (r < 0)
		return r;
	r = map_segment(s, &fds.fd[0], why);
	if (r < 0)
		return r;
	s->doorbell = STEAL_FD(fds.fd[2]);
	message_init(&m, SPARQ_MSG_MAPPED);
	return session_call(s, &m, NULL, 0, CALL_TIMEOUT_NS, why, &sent);
}

int session_open(const char *path, const struct sparq_msg_hello *hello, int64_t limit_ns, char *why,
		 struct session **ret)
{
	CLEANUP(session_unrefp) struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return text_fail(why, -ENOMEM, "no memory for a session");
	s->refs = 1;
	s->pid = getpid();
	s->socket = s->doorbell = -1;
	s->segment = s->page = SEGMENT_NULL;
	r = socket_connect(path, SOCK_SEQPACKET, limit_ns, &s->socket);
	if (r < 0) {
		socket_why(path, r, why, SPARQ_ERROR_TEXT);
		return r;
	}
	r = shake_hands(s, hello, limit_ns, why);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(s);
	return 0;
}
