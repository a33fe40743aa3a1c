/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One varlink call: a JSON object and a NUL byte each way. The library does not
 * parse JSON: the answer goes to the caller as it came.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "client/private.h"
#include "shm/clock.h"

#define ANSWER_BYTES_MAX (16 * MIB)

/* Waits until the socket can be read (or written): the deadline holds for the whole call. */
static int ready(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	int r;

	do {
		int64_t left = deadline - clock_now_ns();

		r = poll(&p, 1, left > 0 ? (int)(left / NS_PER_MS) + 1 : 0);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return r ? 0 : -ETIMEDOUT;
}

static int send_all(int fd, const char *text, size_t n, int64_t deadline)
{
	while (n) {
		ssize_t sent;
		int r = ready(fd, POLLOUT, deadline);

		if (r < 0)
			return r;
		sent = send(fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (sent > 0) {
			text += sent;
			n -= (size_t)sent;
		}
	}
	return 0;
}

/* Makes room for at least one more byte. */
static int grow(char **text, size_t used, size_t *have)
{
	size_t want = *have ? *have * 2 : 4 * KIB;
	char *more;

	if (used < *have)
		return 0;
	if (want > ANSWER_BYTES_MAX)
		return -EMSGSIZE;
	more = realloc(*text, want);
	if (!more)
		return -ENOMEM;
	*text = more;
	*have = want;
	return 0;
}

static int receive_all(int fd, int64_t deadline, char **ret)
{
	FREE_MEMORY char *text = NULL;
	size_t used = 0, have = 0;

	for (;;) {
		ssize_t n;
		int r = grow(&text, used, &have);

		if (r >= 0)
			r = ready(fd, POLLIN, deadline);
		if (r < 0)
			return r;
		n = recv(fd, text + used, have - used, MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET; /* the daemon went away in the middle of an answer */
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n < 0)
			continue;
		used += (size_t)n;
		if (memchr(text + used - n, '\0', (size_t)n)) {
			*ret = STEAL_PTR(text);
			return 0;
		}
	}
}

/* interface.Method: what can stand in a JSON string as it is */
static bool method_is_valid(const char *method)
{
	size_t n = strspn(method, "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");

	return n && n < 256 && !method[n];
}

int sparq_control(const char *path, const char *method, const char *json, char **ret_json)
{
	FREE_MEMORY char *question = NULL;
	CLOSE_FD int fd = -1;
	int64_t deadline = clock_now_ns() + CALL_TIMEOUT_NS;
	int n, r;

	if (!method || !method_is_valid(method) || (json && *json != '{'))
		return -EINVAL;
	if (!path)
		path = secure_getenv("SPARQ_CONTROL");
	r = socket_connect(path ? path : SPARQ_CONTROL_PATH, SOCK_STREAM, CALL_TIMEOUT_NS, &fd);
	if (r < 0)
		return r;
	n = asprintf(&question, "{\"method\":\"%s\",\"parameters\":%s}", method,
		     json ? json : "{}");
	if (n < 0) {
		question = NULL;
		return -ENOMEM;
	}
	r = send_all(fd, question, (size_t)n + 1, deadline); /* with its NUL */
	return r < 0 ? r : receive_all(fd, deadline, ret_json);
}
