/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages. The daemon relies on it that a packet which passes has the
 * size of its type and strings that end, and that no packet, whatever it
 * brings, leaves a descriptor open. Both sides rely on errors carrying text.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base.h"
#include "shm/message.h"

static const uint16_t types[] = {
	SPARQ_MSG_HELLO,         SPARQ_MSG_MAPPED,       SPARQ_MSG_NAME,        SPARQ_MSG_INFO,
	SPARQ_MSG_QUEUE_FD, SPARQ_MSG_CACHE_CREATE, SPARQ_MSG_CACHE_UNREF, SPARQ_MSG_CACHE_SET,
	SPARQ_MSG_CACHE_STAT,    SPARQ_MSG_SEQ_CREATE,   SPARQ_MSG_SEQ_ATTACH,  SPARQ_MSG_SEQ_FORK,
	SPARQ_MSG_SEQ_DROP,      SPARQ_MSG_SEQ_TRUNCATE, SPARQ_MSG_SEQ_STAT,
	SPARQ_MSG_CACHE_TABLE, SPARQ_MSG_CACHE_ATTACH, SPARQ_MSG_SEQ_ADOPT,
	SPARQ_MSG_SEQ_EXPORT,    SPARQ_MSG_SEQ_IMPORT,   SPARQ_MSG_SEQ_IMPORT_PIECE,
	SPARQ_MSG_SEQ_IMPORT_END,
	SPARQ_MSG_SEQ_PIN,       SPARQ_MSG_STATS,
	SPARQ_MSG_SEQ_PREFETCH,
	SPARQ_MSG_SEQ_TOKENS, SPARQ_MSG_SEQ_CREATE_PREFIX,
};

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void make_socket(int ends[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

/* ---- checking ----------------------------------------------------------- */

static void test_sizes(void **state)
{
	assert_int_equal(message_size(SPARQ_MSG_HELLO), sizeof(struct sparq_msg_hello));
	assert_int_equal(message_size(SPARQ_MSG_HELLO | SPARQ_MSG_REPLY),
			 sizeof(struct sparq_msg_hello_reply));
	assert_int_equal(message_size(SPARQ_MSG_CACHE_CREATE | SPARQ_MSG_REPLY),
			 sizeof(struct sparq_msg_cache));
	assert_int_equal(message_size(0), 0);
	assert_int_equal(message_size(SPARQ_MSG_REPLY), 0);
	assert_int_equal(message_size(0x7fff), 0);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		assert_in_range(message_size(types[i]), sizeof(struct sparq_msg),
				MESSAGE_MAX_BYTES);
		assert_in_range(message_size(types[i] | SPARQ_MSG_REPLY), sizeof(struct sparq_msg),
				MESSAGE_MAX_BYTES);
		assert_string_not_equal(message_name(types[i]), "unknown");
	}
	assert_string_equal(message_name(SPARQ_MSG_SEQ_FORK | SPARQ_MSG_REPLY), "SEQ_FORK");
	assert_string_equal(message_name(7), "unknown");
}

/* Every type, every length of a packet, both directions: one length is right. */
static void test_wrong_sizes(void **state)
{
	union message m;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		for (unsigned reply = 0; reply < 2; reply++) {
			uint16_t type = types[i] | (reply ? SPARQ_MSG_REPLY : 0);

			for (size_t n = 0; n <= MESSAGE_MAX_BYTES; n++) {
				bool right = n == message_size(type);
				const char *why = NULL;

				message_init(&m, type);
				assert_int_equal(message_check(&m, n, reply, &why),
						 right ? 0 : -EBADMSG);
				m.head.size = (uint16_t)n;
				assert_int_equal(message_check(&m, n, reply, &why),
						 right ? 0 : -EBADMSG);
				assert_true(right || why);
			}
		}
}

static void test_every_type_number(void **state)
{
	union message m;
	unsigned known = 0;

	for (uint32_t type = 0; type <= UINT16_MAX; type++) {
		memset(&m, 0, sizeof(m));
		m.head.type = (uint16_t)type;
		m.head.size = (uint16_t)message_size(m.head.type);
		if (message_check(&m, m.head.size, type & SPARQ_MSG_REPLY, NULL) == 0)
			known++;
		/* A request is no reply, nor the other way. */
		assert_int_equal(message_check(&m, m.head.size, !(type & SPARQ_MSG_REPLY), NULL),
				 -EBADMSG);
	}
	assert_int_equal(known, 2 * ARRAY_SIZE(types));
}

struct text {
	uint16_t type;
	size_t at, bytes;
};
/* clang-format off */
#define TEXT(type, of, field) \
	{ SPARQ_MSG_##type, offsetof(struct of, field), sizeof(((struct of *)NULL)->field) }
/* clang-format on */

/* Listed here a second time: a string that message.c forgot is found. */
static const struct text texts[] = {
	TEXT(NAME, sparq_msg_name, kind),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, name),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, k_format),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, v_format),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, policy),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, device),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, model),
	TEXT(CACHE_CREATE, sparq_msg_cache_create, options),
	TEXT(CACHE_SET, sparq_msg_cache_set, key),
	TEXT(CACHE_SET, sparq_msg_cache_set, value),
	TEXT(CACHE_ATTACH, sparq_msg_cache_attach, name),
	TEXT(SEQ_IMPORT, sparq_msg_seq_import, name),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, name),
	TEXT(SEQ_CREATE_PREFIX, sparq_msg_seq_prefix, name),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, k_format),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, v_format),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, policy),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, device),
	TEXT(CACHE_ATTACH | SPARQ_MSG_REPLY, sparq_msg_cache_shape, model),
	TEXT(SEQ_CREATE, sparq_msg_seq_create, name),
	TEXT(SEQ_ATTACH, sparq_msg_seq_create, name),
	TEXT(NAME | SPARQ_MSG_REPLY, sparq_msg_name, name),
	TEXT(INFO | SPARQ_MSG_REPLY, sparq_msg_info, version),
	TEXT(INFO | SPARQ_MSG_REPLY, sparq_msg_info, isa),
};

static void test_unterminated_strings(void **state)
{
	union message m;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const struct text *t = &texts[i];
		bool reply = t->type & SPARQ_MSG_REPLY;
		const char *why = NULL;

		message_init(&m, t->type);
		memset(m.bytes + t->at, 'a', t->bytes - 1);
		assert_int_equal(message_check(&m, m.head.size, reply, &why), 0);
		m.bytes[t->at + t->bytes - 1] = 'a';
		assert_int_equal(message_check(&m, m.head.size, reply, &why), -EBADMSG);
		assert_non_null(strstr(why, "does not end"));
	}
}

/* Bytes a request may set: the rest of it must be zero. Fields are found by trying every byte. */
static size_t settable_bytes(uint16_t type)
{
	size_t n = 0;

	for (size_t at = sizeof(struct sparq_msg); at < message_size(type); at++) {
		union message m;

		message_init(&m, type);
		m.bytes[at] = 1;
		n += message_check(&m, m.head.size, false, NULL) == 0;
	}
	return n;
}

static void test_reserved(void **state)
{
	union message m;

	assert_int_equal(settable_bytes(SPARQ_MSG_HELLO), sizeof(struct sparq_msg_hello) - 16);
	assert_int_equal(settable_bytes(SPARQ_MSG_NAME), 16 + 4); /* kind, index */
	assert_int_equal(settable_bytes(SPARQ_MSG_INFO), 0);
	assert_int_equal(settable_bytes(SPARQ_MSG_QUEUE_FD), 4);
	assert_int_equal(settable_bytes(SPARQ_MSG_CACHE_CREATE),
			 sizeof(struct sparq_msg_cache_create) - 16 - 8);
	assert_int_equal(settable_bytes(SPARQ_MSG_SEQ_DROP), 8);
	assert_int_equal(settable_bytes(SPARQ_MSG_SEQ_FORK), 16);

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		message_init(&m, types[i]);
		m.head.rsv = 1;
		assert_int_equal(message_check(&m, m.head.size, false, NULL), -EBADMSG);
		message_init(&m, types[i]);
		m.head.res = -1;
		assert_int_equal(message_check(&m, m.head.size, false, NULL), -EBADMSG);
		/* Ignored in replies: a later daemon may use it. */
		message_init(&m, types[i] | SPARQ_MSG_REPLY);
		m.head.rsv = 1;
		assert_int_equal(message_check(&m, m.head.size, true, NULL), 0);
		m.head.res = 1;
		assert_int_equal(message_check(&m, m.head.size, true, NULL), -EBADMSG);
	}
}

/* ---- replies ------------------------------------------------------------ */

static void test_reply(void **state)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_CREATE);
	m.head.cookie = 77;
	strcpy(m.seq_create.name, "leftover");
	message_reply(&m, &m.head); /* in place: nothing of the request is left */
	assert_int_equal(m.head.type, SPARQ_MSG_SEQ_CREATE | SPARQ_MSG_REPLY);
	assert_int_equal(m.head.size, sizeof(struct sparq_msg_seq));
	assert_int_equal(m.head.cookie, 77);
	for (size_t i = sizeof(m.head); i < sizeof(m); i++)
		assert_int_equal(m.bytes[i], 0);
	assert_int_equal(message_check(&m, m.head.size, true, NULL), 0);
}

static void test_fail(void **state)
{
	union message m;

	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.head.cookie = 78;
	strcpy(m.cache_create.policy, "sparkle");
	message_fail(&m, &m.head, -EINVAL, "policy \"%s\" is unknown", m.cache_create.policy);
	assert_int_equal(m.head.type, SPARQ_MSG_CACHE_CREATE | SPARQ_MSG_REPLY);
	assert_int_equal(m.head.size, sizeof(struct sparq_msg_error));
	assert_int_equal(m.head.cookie, 78);
	assert_int_equal(m.head.res, -EINVAL);
	assert_string_equal(m.error.text, "policy \"sparkle\" is unknown");
	assert_int_equal(message_check(&m, m.head.size, true, NULL), 0);
	assert_int_equal(message_check(&m, sizeof(struct sparq_msg), true, NULL), -EBADMSG);
	memset(m.error.text, 'a', sizeof(m.error.text));
	assert_int_equal(message_check(&m, m.head.size, true, NULL), -EBADMSG);
}

static void test_fail_cuts_long_text(void **state)
{
	char longer[2 * SPARQ_ERROR_TEXT];
	union message m;

	memset(longer, 'b', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	message_init(&m, SPARQ_MSG_MAPPED);
	message_fail(&m, &m.head, -EIO, "%s", longer);
	assert_int_equal(strlen(m.error.text), SPARQ_ERROR_TEXT - 1);
	assert_int_equal(message_check(&m, m.head.size, true, NULL), 0);
}

/* ---- packets ------------------------------------------------------------ */

static void test_send_receive(void **state)
{
	union message out, in;
	int ends[2], fds[MESSAGE_MAX_FDS], came[MESSAGE_MAX_FDS];
	unsigned before = open_fds(), n_fds;
	size_t bytes;

	make_socket(ends);
	for (unsigned n = 0; n <= MESSAGE_MAX_FDS; n++) {
		for (unsigned i = 0; i < n; i++)
			fds[i] = dup(ends[0]);
		message_init(&out, SPARQ_MSG_HELLO | SPARQ_MSG_REPLY);
		out.hello_reply.pid = 42;
		assert_int_equal(message_send(ends[0], &out, fds, n), 0);
		n_fds = MESSAGE_MAX_FDS;
		assert_int_equal(message_receive(ends[1], &in, &bytes, came, &n_fds), 1);
		assert_int_equal(bytes, sizeof(struct sparq_msg_hello_reply));
		assert_memory_equal(&in, &out, bytes);
		assert_int_equal(n_fds, n);
		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(fcntl(came[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
			close(came[i]);
			close(fds[i]);
		}
	}
	close(ends[0]);
	n_fds = 0;
	assert_int_equal(message_receive(ends[1], &in, &bytes, came, &n_fds), 0);
	close(ends[1]);
	assert_int_equal(open_fds(), before);
}

static void test_would_block(void **state)
{
	union message m;
	unsigned n_fds = 0;
	size_t bytes;
	int ends[2], r;

	make_socket(ends);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	assert_int_equal(message_receive(ends[0], &m, &bytes, NULL, &n_fds), -EAGAIN);
	message_init(&m, SPARQ_MSG_MAPPED);
	do {
		r = message_send(ends[0], &m, NULL, 0);
	} while (r == 0);
	assert_int_equal(r, -EAGAIN);
	close(ends[1]);
	assert_int_equal(message_send(ends[0], &m, NULL, 0), -ECONNRESET); /* it left unread ones */
	assert_int_equal(message_send(ends[0], &m, NULL, 0), -EPIPE); /* and no SIGPIPE */
	close(ends[0]);
}

/* `n` descriptors with a packet of `bytes`, as a client would that never read our code. */
static void send_raw(int socket, const void *packet, size_t bytes, unsigned n)
{
	char control[CMSG_SPACE(64 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec io = { (void *)packet, bytes };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1 };

	if (n > 0) {
		struct cmsghdr *c = (struct cmsghdr *)(void *)control;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		for (unsigned i = 0; i < n; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &socket, sizeof(int));
	}
	assert_int_equal(sendmsg(socket, &h, 0), bytes);
}

/* CVE-2022-0669 and its kind: whatever comes with a packet, refused or not, is not kept. */
static void test_surplus_fds_are_closed(void **state)
{
	unsigned before = open_fds();

	for (unsigned sent = 0; sent <= 64; sent++)
		for (unsigned allowed = 0; allowed <= MESSAGE_MAX_FDS; allowed++) {
			int ends[2], came[MESSAGE_MAX_FDS] = { -1, -1, -1 };
			unsigned n_fds = allowed;
			union message m;
			size_t bytes;
			int r;

			make_socket(ends);
			message_init(&m, SPARQ_MSG_MAPPED);
			send_raw(ends[0], &m, m.head.size, sent);
			r = message_receive(ends[1], &m, &bytes, came, &n_fds);
			assert_int_equal(r, sent <= allowed ? 1 : -EBADMSG);
			for (unsigned i = 0; r == 1 && i < n_fds; i++)
				close(came[i]);
			close(ends[0]);
			close(ends[1]);
			assert_int_equal(open_fds(), before);
		}
}

static void test_empty_and_oversized_packets(void **state)
{
	static const uint8_t big[MESSAGE_MAX_BYTES + 1];
	unsigned before = open_fds();

	for (unsigned sent = 0; sent <= 5; sent++) {
		int ends[2], came[MESSAGE_MAX_FDS];
		unsigned n_fds = MESSAGE_MAX_FDS;
		union message m;
		size_t bytes;

		make_socket(ends);
		send_raw(ends[0], big, 0, sent);
		assert_int_equal(message_receive(ends[1], &m, &bytes, came, &n_fds), 0);
		n_fds = MESSAGE_MAX_FDS;
		send_raw(ends[0], big, sizeof(big), sent);
		assert_int_equal(message_receive(ends[1], &m, &bytes, came, &n_fds), -EBADMSG);
		close(ends[0]);
		close(ends[1]);
		assert_int_equal(open_fds(), before);
	}
}

/* ---- calls -------------------------------------------------------------- */

#define LONG_NS 20000000000
#define SHORT_NS 20000000

struct peer { /* answers one request with `n` packets */
	int socket;
	int64_t timeout_ns; /* of the call; 0: long */
	union message answer[3];
	unsigned n_fds[3], n;
};

static void *peer_main(void *arg)
{
	struct peer *p = arg;
	union message m;
	unsigned n_fds = 0;
	size_t bytes;

	if (message_receive(p->socket, &m, &bytes, NULL, &n_fds) == 1)
		for (unsigned i = 0; i < p->n; i++) {
			int fds[MESSAGE_MAX_FDS] = { p->socket, p->socket, p->socket };

			message_send(p->socket, &p->answer[i], fds, p->n_fds[i]);
		}
	else
		shutdown(p->socket, SHUT_RDWR);
	return NULL;
}

static int call(struct peer *p, union message *m, int *fds, unsigned n_fds, char *text)
{
	pthread_t thread;
	int ends[2], r;

	make_socket(ends);
	p->socket = ends[1];
	pthread_create(&thread, NULL, peer_main, p);
	r = message_call(ends[0], m, fds, n_fds, p->timeout_ns ? p->timeout_ns : LONG_NS, text);
	pthread_join(thread, NULL);
	close(ends[0]);
	close(ends[1]);
	return r;
}

static void request(union message *m)
{
	message_init(m, SPARQ_MSG_SEQ_DROP);
	m->head.cookie = 5;
	m->seq.sequence = 9;
}

static void test_call(void **state)
{
	struct peer p = { .n = 1 };
	union message m;

	request(&m);
	message_reply(&p.answer[0], &m.head);
	p.answer[0].seq.rows = 123;
	assert_int_equal(call(&p, &m, NULL, 0, NULL), 0);
	assert_int_equal(m.seq.rows, 123);
}

static void test_call_error_reply(void **state)
{
	char text[SPARQ_ERROR_TEXT] = "";
	struct peer p = { .n = 1 };
	union message m;

	request(&m);
	message_fail(&p.answer[0], &m.head, -ENOENT, "no sequence %d", 9);
	assert_int_equal(call(&p, &m, NULL, 0, text), -ENOENT);
	assert_string_equal(text, "no sequence 9");
	request(&m);
	assert_int_equal(call(&p, &m, NULL, 0, NULL), -ENOENT);
}

/* A call that gave up leaves its reply in the socket: the next call passes over it. */
static void test_call_passes_over_old_reply(void **state)
{
	unsigned before = open_fds();
	struct peer p = { .n = 2, .n_fds = { 2, 0 } };
	union message m;

	request(&m);
	message_reply(&p.answer[0], &m.head);
	p.answer[0].head.cookie = 4;
	message_reply(&p.answer[1], &m.head);
	p.answer[1].seq.rows = 7;
	assert_int_equal(call(&p, &m, NULL, 0, NULL), 0);
	assert_int_equal(m.seq.rows, 7);
	assert_int_equal(open_fds(), before);
}

static void test_call_counts_fds(void **state)
{
	unsigned before = open_fds();
	int fds[MESSAGE_MAX_FDS];
	struct peer p = { .n = 1 };
	union message m;

	for (p.n_fds[0] = 0; p.n_fds[0] <= MESSAGE_MAX_FDS; p.n_fds[0]++) {
		request(&m);
		message_reply(&p.answer[0], &m.head);
		assert_int_equal(call(&p, &m, fds, 2, NULL), p.n_fds[0] == 2 ? 0 : -EBADMSG);
		if (p.n_fds[0] == 2) {
			close(fds[0]);
			close(fds[1]);
		}
		assert_int_equal(open_fds(), before);
	}
	/* An error reply brings none, whatever was asked for. */
	p.n_fds[0] = 1;
	request(&m);
	message_fail(&p.answer[0], &m.head, -EPERM, "no");
	assert_int_equal(call(&p, &m, fds, 1, NULL), -EBADMSG);
	assert_int_equal(open_fds(), before);
}

static void test_call_wrong_replies(void **state)
{
	struct peer p = { .n = 1 };
	union message m;

	request(&m);
	message_reply(&p.answer[0], &m.head);
	p.answer[0].head.type = SPARQ_MSG_SEQ_FORK | SPARQ_MSG_REPLY; /* same cookie and size */
	assert_int_equal(call(&p, &m, NULL, 0, NULL), -EBADMSG);
	request(&m);
	p.answer[0] = m; /* an echo is not a reply */
	assert_int_equal(call(&p, &m, NULL, 0, NULL), -EBADMSG);
}

static void test_call_gives_up(void **state)
{
	struct peer p = { .n = 0, .timeout_ns = SHORT_NS };
	struct timespec t0, t1;
	union message m;
	int ends[2];

	request(&m);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	assert_int_equal(call(&p, &m, NULL, 0, NULL), -ETIMEDOUT);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	assert_true((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000 >= 19);

	make_socket(ends);
	close(ends[1]);
	request(&m);
	assert_int_equal(message_call(ends[0], &m, NULL, 0, -1, NULL), -EPIPE);
	close(ends[0]);
}

static void test_call_end_of_stream(void **state)
{
	union message m;
	int ends[2];

	make_socket(ends);
	shutdown(ends[1], SHUT_WR);
	request(&m);
	assert_int_equal(message_call(ends[0], &m, NULL, 0, -1, NULL), -ECONNRESET);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_wrong_sizes),
		cmocka_unit_test(test_every_type_number),
		cmocka_unit_test(test_unterminated_strings),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_reply),
		cmocka_unit_test(test_fail),
		cmocka_unit_test(test_fail_cuts_long_text),
		cmocka_unit_test(test_send_receive),
		cmocka_unit_test(test_would_block),
		cmocka_unit_test(test_surplus_fds_are_closed),
		cmocka_unit_test(test_empty_and_oversized_packets),
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_call_error_reply),
		cmocka_unit_test(test_call_passes_over_old_reply),
		cmocka_unit_test(test_call_counts_fds),
		cmocka_unit_test(test_call_wrong_replies),
		cmocka_unit_test(test_call_gives_up),
		cmocka_unit_test(test_call_end_of_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
