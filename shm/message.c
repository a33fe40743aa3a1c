/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages. What a message of a type looks like is said once, in two
 * tables: its sizes, and those of its fields that have a rule (a string must
 * end, a field that a request does not use must be zero). Everything else is
 * for those who know what the values mean.
 */
#include "shm/clock.h"
#include "shm/message.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/base.h"

/* ---- the tables --------------------------------------------------------- */

struct kind {
	uint16_t type;
	uint16_t request_bytes, reply_bytes;
	const char *name;
};

/* clang-format off */
#define KIND(name, request, reply) \
	{ SPARQ_MSG_##name, sizeof(struct request), sizeof(struct reply), #name }
/* clang-format on */

static const struct kind kinds[] = {
	KIND(HELLO, sparq_msg_hello, sparq_msg_hello_reply),
	KIND(MAPPED, sparq_msg, sparq_msg),
	KIND(NAME, sparq_msg_name, sparq_msg_name),
	KIND(INFO, sparq_msg_info, sparq_msg_info),
	KIND(QUEUE_FD, sparq_msg_queue, sparq_msg_queue),
	KIND(STATS, sparq_msg, sparq_msg_stats),
	KIND(CACHE_CREATE, sparq_msg_cache_create, sparq_msg_cache),
	KIND(CACHE_UNREF, sparq_msg_cache, sparq_msg_cache),
	KIND(CACHE_SET, sparq_msg_cache_set, sparq_msg),
	KIND(CACHE_STAT, sparq_msg_cache, sparq_msg_cache_stat),
	KIND(CACHE_TABLE, sparq_msg_cache_table, sparq_msg),
	KIND(CACHE_ATTACH, sparq_msg_cache_attach, sparq_msg_cache_shape),
	KIND(SEQ_CREATE, sparq_msg_seq_create, sparq_msg_seq),
	KIND(SEQ_ATTACH, sparq_msg_seq_create, sparq_msg_seq),
	KIND(SEQ_FORK, sparq_msg_seq, sparq_msg_seq),
	KIND(SEQ_DROP, sparq_msg_seq, sparq_msg_seq),
	KIND(SEQ_TRUNCATE, sparq_msg_seq, sparq_msg_seq),
	KIND(SEQ_STAT, sparq_msg_seq, sparq_msg_seq_stat),
	KIND(SEQ_ADOPT, sparq_msg_seq, sparq_msg_seq),
	KIND(SEQ_EXPORT, sparq_msg_seq_export, sparq_msg_seq_exported),
	KIND(SEQ_IMPORT, sparq_msg_seq_import, sparq_msg),
	KIND(SEQ_IMPORT_PIECE, sparq_msg_seq_piece, sparq_msg),
	KIND(SEQ_IMPORT_END, sparq_msg_seq_import_end, sparq_msg_seq),
	KIND(SEQ_PREFETCH, sparq_msg_seq_create, sparq_msg_seq_prefetch),
	KIND(SEQ_TOKENS, sparq_msg_seq_tokens, sparq_msg_seq),
	KIND(SEQ_CREATE_PREFIX, sparq_msg_seq_prefix, sparq_msg_seq),
	KIND(SEQ_PIN, sparq_msg_seq, sparq_msg_seq),
};

enum rule {
	TEXT,   /* ends inside its field, in requests and replies */
	UNUSED, /* zero in a request: reserved, or what only the reply fills */
};

struct field {
	uint16_t type;
	uint16_t at, bytes;
	enum rule rule;
	const char *why; /* it was refused */
};

/* clang-format off */
#define FIELD(type, of, field, rule, why) \
	{ SPARQ_MSG_##type, offsetof(struct of, field), sizeof(((struct of *)NULL)->field), \
	  rule, why }
/* clang-format on */
#define TEXT_IN(type, of, field) \
	FIELD(type, of, field, TEXT, #field " does not end inside its field")
#define ZERO_IN(type, of, field) FIELD(type, of, field, UNUSED, #field " is not 0")
#define HEAD_BYTES sizeof(struct sparq_msg)

static const struct field fields[] = {
	TEXT_IN(NAME, sparq_msg_name, kind),
	ZERO_IN(NAME, sparq_msg_name, rsv),
	ZERO_IN(NAME, sparq_msg_name, name),
	TEXT_IN(NAME, sparq_msg_name, name),
	{ SPARQ_MSG_INFO, HEAD_BYTES, sizeof(struct sparq_msg_info) - HEAD_BYTES, UNUSED,
	  "what only the reply fills is not 0" },
	TEXT_IN(INFO, sparq_msg_info, version),
	TEXT_IN(INFO, sparq_msg_info, isa),
	ZERO_IN(QUEUE_FD, sparq_msg_queue, rsv),
	ZERO_IN(CACHE_CREATE, sparq_msg_cache_create, rsv),
	ZERO_IN(CACHE_CREATE, sparq_msg_cache_create, rsv2),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, name),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, k_format),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, v_format),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, policy),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, device),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, model),
	TEXT_IN(CACHE_CREATE, sparq_msg_cache_create, options),
	TEXT_IN(CACHE_SET, sparq_msg_cache_set, key),
	TEXT_IN(CACHE_SET, sparq_msg_cache_set, value),
	ZERO_IN(CACHE_TABLE, sparq_msg_cache_table, rsv),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_attach, name),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_shape, k_format),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_shape, v_format),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_shape, policy),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_shape, device),
	TEXT_IN(CACHE_ATTACH, sparq_msg_cache_shape, model),
	TEXT_IN(SEQ_CREATE, sparq_msg_seq_create, name),
	TEXT_IN(SEQ_ATTACH, sparq_msg_seq_create, name),
	TEXT_IN(SEQ_PREFETCH, sparq_msg_seq_create, name),
	ZERO_IN(SEQ_DROP, sparq_msg_seq, rows),
	ZERO_IN(SEQ_ADOPT, sparq_msg_seq, rows),
	ZERO_IN(SEQ_CREATE_PREFIX, sparq_msg_seq_prefix, rsv),
	TEXT_IN(SEQ_CREATE_PREFIX, sparq_msg_seq_prefix, name),
	ZERO_IN(SEQ_EXPORT, sparq_msg_seq_export, rsv),
	TEXT_IN(SEQ_IMPORT, sparq_msg_seq_import, name),
	ZERO_IN(SEQ_IMPORT_PIECE, sparq_msg_seq_piece, rsv),
	ZERO_IN(SEQ_IMPORT_END, sparq_msg_seq_import_end, rsv),
};

static const struct kind *find_kind(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].type == (type & ~SPARQ_MSG_REPLY))
			return &kinds[i];
	return NULL;
}

size_t message_size(uint16_t type)
{
	const struct kind *k = find_kind(type);

	if (!k)
		return 0;
	return type & SPARQ_MSG_REPLY ? k->reply_bytes : k->request_bytes;
}

const char *message_name(uint16_t type)
{
	const struct kind *k = find_kind(type);

	return k ? k->name : "unknown";
}

/* ---- checking ----------------------------------------------------------- */

static int refuse(const char **why, const char *text)
{
	if (why)
		*why = text;
	return -EBADMSG;
}

static bool all_zero(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

/* A reply may be shorter than the request whose type it has: then a field is not in it. */
static int check_fields(const union message *m, bool reply, const char **why)
{
	uint16_t type = m->head.type & (uint16_t)~SPARQ_MSG_REPLY;

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		const uint8_t *at = m->bytes + f->at;

		if (f->type != type || (size_t)f->at + f->bytes > m->head.size)
			continue;
		if (f->rule == TEXT && !memchr(at, 0, f->bytes))
			return refuse(why, f->why);
		if (f->rule == UNUSED && !reply && !all_zero(at, f->bytes))
			return refuse(why, f->why);
	}
	return 0;
}

static int check_error(const union message *m, size_t n, const char **why)
{
	if (n != sizeof(m->error))
		return refuse(why, "wrong size of an error reply");
	if (!memchr(m->error.text, 0, sizeof(m->error.text)))
		return refuse(why, "text does not end inside its field");
	return 0;
}

int message_check(const union message *m, size_t n, bool reply, const char **why)
{
	size_t bytes;

	if (n < HEAD_BYTES)
		return refuse(why, "shorter than a head");
	if (m->head.size != n)
		return refuse(why, "size is not that of the packet");
	if (reply != ((m->head.type & SPARQ_MSG_REPLY) != 0))
		return refuse(why, reply ? "not a reply" : "not a request");
	bytes = message_size(m->head.type);
	if (bytes == 0)
		return refuse(why, "unknown type");
	if (reply && m->head.res < 0)
		return check_error(m, n, why);
	if (m->head.res != 0)
		return refuse(why, "res is not 0");
	if (n != bytes)
		return refuse(why, "wrong size for its type");
	/* Readers of output ignore what is reserved: a later daemon may use it. */
	if (!reply && m->head.rsv != 0)
		return refuse(why, "rsv of the head is not 0");
	return check_fields(m, reply, why);
}

/* ---- making ------------------------------------------------------------- */

void message_init(union message *m, uint16_t type)
{
	size_t bytes = message_size(type);

	assert(bytes > 0);
	memset(m, 0, sizeof(*m));
	m->head.type = type;
	m->head.size = (uint16_t)bytes;
}

void message_reply(union message *m, const struct sparq_msg *request)
{
	struct sparq_msg head = *request; /* may lie in *m */

	message_init(m, head.type | SPARQ_MSG_REPLY);
	m->head.cookie = head.cookie;
}

void message_fail(union message *m, const struct sparq_msg *request, int error, const char *format,
		  ...)
{
	struct sparq_msg head = *request;
	char text[SPARQ_ERROR_TEXT];
	va_list arguments;

	assert(error < 0);
	/* First, because the arguments may be strings of the request, which may be *m. */
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);

	memset(m, 0, sizeof(*m));
	m->head.type = head.type | SPARQ_MSG_REPLY;
	m->head.size = sizeof(m->error);
	m->head.cookie = head.cookie;
	m->head.res = error;
	memcpy(m->error.text, text, strlen(text));
}

/* ---- sending and receiving ---------------------------------------------- */

#define CONTROL_BYTES CMSG_SPACE(MESSAGE_MAX_FDS * sizeof(int))

static int send_packet(int socket, const union message *m, const int *fds, unsigned n_fds,
		       int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CONTROL_BYTES];
	} control = { .bytes = { 0 } };
	struct iovec io = { (void *)m, m->head.size };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1 };
	ssize_t n;

	assert(n_fds <= MESSAGE_MAX_FDS && m->head.size <= sizeof(*m));
	if (n_fds > 0) {
		h.msg_control = control.bytes;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
	}
	do {
		n = sendmsg(socket, &h, MSG_NOSIGNAL | flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == m->head.size ? 0 : -EMSGSIZE; /* not a SEQPACKET socket */
}

int message_send(int socket, const union message *m, const int *fds, unsigned n_fds)
{
	return send_packet(socket, m, fds, n_fds, 0);
}

static void close_all(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close_fd(&fds[i]);
}

/* Takes every descriptor of a packet into `ret`, at most `room`: all of them are ours to close. */
static unsigned take_fds(struct msghdr *h, int *ret, unsigned room)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (char *)c + at, sizeof(fd));
			if (n < room)
				ret[n++] = fd;
			else
				close_fd(&fd);
		}
	}
	return n;
}

int message_receive(int socket, union message *ret, size_t *ret_bytes, int *fds, unsigned *n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CONTROL_BYTES];
	} control;
	struct iovec io = { ret, sizeof(*ret) };
	struct msghdr h = {
		.msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	int came[CONTROL_BYTES / sizeof(int)]; /* padding may hold more than MESSAGE_MAX_FDS */
	unsigned n_came;
	ssize_t n;

	do {
		n = recvmsg(socket, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	n_came = take_fds(&h, came, ARRAY_SIZE(came));
	/* An empty packet reads like the end of the stream, and its sender means nothing else by
	 * it; it can still bring descriptors. */
	if (n == 0 || n_came > *n_fds || (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		close_all(came, n_came);
		return n == 0 ? 0 : -EBADMSG;
	}
	if (n_came > 0)
		memcpy(fds, came, n_came * sizeof(int));
	*n_fds = n_came;
	*ret_bytes = (size_t)n;
	return 1;
}

/* ---- a call ------------------------------------------------------------- */

/* 0 when the socket has one of `events` or has failed, which the next call on it tells. */
static int wait_socket(int socket, short events, int64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = { .fd = socket, .events = events };
		int64_t left_ms = -1;
		int r;

		if (deadline_ns != INT64_MAX) {
			left_ms = DIV_UP(deadline_ns - clock_now_ns(), 1000000);
			left_ms = MIN(MAX(left_ms, 0), INT32_MAX);
		}
		r = poll(&p, 1, (int)left_ms);
		if (r > 0)
			return 0;
		if (r == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int send_by(int socket, const union message *m, int64_t deadline_ns)
{
	int r;

	while ((r = send_packet(socket, m, NULL, 0, MSG_DONTWAIT)) == -EAGAIN) {
		r = wait_socket(socket, POLLOUT, deadline_ns);
		if (r < 0)
			break;
	}
	return r;
}

/* The next reply, whole and checked, with `*n_fds` descriptors in `fds`. */
static int receive_by(int socket, union message *ret, int *fds, unsigned *n_fds,
		      int64_t deadline_ns)
{
	size_t bytes;
	int r;

	*n_fds = MESSAGE_MAX_FDS;
	do {
		r = wait_socket(socket, POLLIN, deadline_ns);
		if (r < 0)
			return r;
		r = message_receive(socket, ret, &bytes, fds, n_fds);
	} while (r == -EAGAIN); /* the socket may be non-blocking after all */
	if (r < 0)
		return r;
	if (r == 0)
		return -ECONNRESET;
	r = message_check(ret, bytes, true, NULL);
	if (r < 0)
		close_all(fds, *n_fds);
	return r;
}

/* Gives the caller what a reply to its request brought: 0, or the error that it says. */
static int take_reply(const union message *reply, int *came, unsigned n_came, int *fds,
		      unsigned n_fds, char *text)
{
	unsigned expected = reply->head.res < 0 ? 0 : n_fds;

	if (n_came != expected) {
		close_all(came, n_came);
		return -EBADMSG;
	}
	if (reply->head.res < 0) {
		if (text)
			memcpy(text, reply->error.text, SPARQ_ERROR_TEXT);
		return reply->head.res;
	}
	if (n_came > 0)
		memcpy(fds, came, n_came * sizeof(int));
	return 0;
}

int message_call(int socket, union message *m, int *fds, unsigned n_fds, int64_t timeout_ns,
		 char *text)
{
	struct sparq_msg request = m->head;
	int64_t deadline_ns;
	int came[MESSAGE_MAX_FDS];
	unsigned n_came;
	int r;

	if (timeout_ns < 0 || __builtin_add_overflow(clock_now_ns(), timeout_ns, &deadline_ns))
		deadline_ns = INT64_MAX;
	r = send_by(socket, m, deadline_ns);
	if (r < 0)
		return r;
	for (;;) {
		r = receive_by(socket, m, came, &n_came, deadline_ns);
		if (r < 0)
			return r;
		if (m->head.cookie == request.cookie)
			break;
		close_all(came, n_came); /* the answer to a call that gave up waiting */
	}
	if (m->head.type != (request.type | SPARQ_MSG_REPLY)) {
		close_all(came, n_came);
		return -EBADMSG;
	}
	return take_reply(m, came, n_came, fds, n_fds, text);
}
