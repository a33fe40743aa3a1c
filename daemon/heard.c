/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving and reading a datagram of sd_notify(3). */
#include "daemon/heard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shm/base.h"

#define TEXT_BYTES 4096

/* ---- the lines -------------------------------------------------------------- */

static void take_flag(struct heard *h, const char *line)
{
	const struct {
		const char *line;
		bool *flag;
	} flags[] = {
		{ "READY=1", &h->ready },       { "RELOADING=1", &h->reloading },
		{ "STOPPING=1", &h->stopping }, { "WATCHDOG=1", &h->watchdog },
		{ "FDSTORE=1", &h->store },     { "FDSTOREREMOVE=1", &h->remove },
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (strcmp(line, flags[i].line) == 0)
			*flags[i].flag = true;
}

/* The value of a line that begins so; NULL: another line. */
static const char *value_of(const char *line, const char *key)
{
	size_t n = strlen(key);

	return strncmp(line, key, n) == 0 && line[n] == '=' ? line + n + 1 : NULL;
}

static void take_line(struct heard *h, const char *line)
{
	const char *value;

	take_flag(h, line);
	value = value_of(line, "FDNAME");
	if (value)
		strcpy(h->name, stash_name_ok(value) ? value : "");
	value = value_of(line, "STATUS");
	if (value)
		snprintf(h->status, sizeof(h->status), "%.255s", value);
	value = value_of(line, "EXTEND_TIMEOUT_USEC");
	if (value)
		h->extend_usec = strtoull(value, NULL, 10);
}

void heard_parse(struct heard *h, const char *text)
{
	char line[TEXT_BYTES];

	strcpy(h->name, "stored");
	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n < sizeof(line)) {
			memcpy(line, text, n);
			line[n] = '\0';
			take_line(h, line);
		}
		text += n + (text[n] == '\n');
	}
}

/* ---- the datagram ------------------------------------------------------------- */

static void take_control(struct heard *h, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS && n == sizeof(h->from)) {
			memcpy(&h->from, CMSG_DATA(c), n);
		} else if (c->cmsg_type == SCM_RIGHTS && n <= sizeof(h->fd)) {
			memcpy(h->fd, CMSG_DATA(c), n);
			h->n_fds = (unsigned)(n / sizeof(int));
		}
	}
}

int heard_receive(int fd, struct heard *ret)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * HEARD_MOST_FDS) +
			   CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	char text[TEXT_BYTES];
	struct iovec data = { text, sizeof(text) - 1 };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	CLEANUP(heard_deinit) struct heard h = HEARD_NULL;
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	take_control(&h, &m);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || h.from.pid == 0)
		return -EBADMSG;
	text[n] = '\0';
	heard_parse(&h, text);
	*ret = STEAL(h, HEARD_NULL);
	return 1;
}

void heard_deinit(struct heard *h)
{
	for (unsigned i = 0; i < h->n_fds; i++)
		close_fd(&h->fd[i]);
	h->n_fds = 0;
}
