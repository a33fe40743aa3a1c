/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to the manager. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/notify.h"
#include "shm/base.h"
#include "shm/clock.h"

/* "/path" or "@abstract": 1, 0 there is none, -errno. */
static int manager_address(struct sockaddr_un *ret, socklen_t *ret_bytes)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t n;

	if (!name || !*name)
		return 0;
	n = strlen(name);
	if (*name != '/' && *name != '@')
		return -EAFNOSUPPORT;
	if (n >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, name, n + 1);
	*ret_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*name == '/'));
	if (*name == '@')
		a.sun_path[0] = '\0';
	*ret = a;
	return 1;
}

int notify_send(const char *text, const int *fds, unsigned n_fds)
{
	char control[CMSG_SPACE(sizeof(int) * NOTIFY_MOST_FDS)] __attribute__((aligned(16)));
	struct iovec data = { (void *)(uintptr_t)text, strlen(text) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };
	struct sockaddr_un address;
	CLOSE_FD int fd = -1;
	int r = manager_address(&address, &m.msg_namelen);

	if (r <= 0)
		return r;
	if (n_fds > NOTIFY_MOST_FDS)
		return -E2BIG;
	m.msg_name = &address;
	if (n_fds) {
		struct cmsghdr *c = (void *)control;

		memset(control, 0, CMSG_SPACE(sizeof(int) * n_fds));
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		*c = (struct cmsghdr){ CMSG_LEN(sizeof(int) * n_fds), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 1;
}

int notify_barrier(int timeout_ms)
{
	CLOSE_FD int here = -1;
	struct pollfd p;
	int end[2], r;

	if (pipe2(end, O_CLOEXEC) < 0)
		return -errno;
	here = end[0];
	/* The manager closes its copy when it comes to this message; ours must be gone by then. */
	r = notify_send("BARRIER=1", &end[1], 1);
	close(end[1]);
	if (r <= 0)
		return r;
	p = (struct pollfd){ .fd = here };
	do
		r = poll(&p, 1, timeout_ms);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 1;
}

/* ---- what is said ---------------------------------------------------------- */

void notify_ready(void)
{
	notify_send("READY=1", NULL, 0);
}

void notify_reloading(void)
{
	char text[64];

	/* Type=notify-reload matches the reload to its request by this time stamp. */
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
		 (unsigned long long)clock_now_ns() / 1000);
	notify_send(text, NULL, 0);
}

void notify_stopping(void)
{
	notify_send("STOPPING=1", NULL, 0);
}

void notify_status(const char *format, ...)
{
	char text[512] = "STATUS=";
	size_t n = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + n, sizeof(text) - n, format, args);
	va_end(args);
	/* Another line would be another message. */
	for (char *p = text + n; *p; p++)
		if (*p == '\n')
			*p = ' ';
	notify_send(text, NULL, 0);
}

void notify_extend(uint64_t usec)
{
	char text[64];

	snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)usec);
	notify_send(text, NULL, 0);
}

/* ---- the watchdog ---------------------------------------------------------- */

uint64_t notify_watchdog_ns(void)
{
	const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	unsigned long long usec;
	char *end;

	/* The variables are inherited: only the process they were made for is watched. */
	if (!text || (pid && strtol(pid, NULL, 10) != getpid()))
		return 0;
	errno = 0;
	usec = strtoull(text, &end, 10);
	return errno || *end || usec > UINT64_MAX / 1000 ? 0 : usec * 1000;
}

int notify_watchdog(void)
{
	int r = notify_send("WATCHDOG=1", NULL, 0);

	return MIN(r, 0);
}
