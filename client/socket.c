/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connects to a socket in the file system, with a deadline: while a daemon
 * restarts, systemd holds the socket and a full backlog makes connect() wait.
 */
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "client/private.h"

int socket_connect(const char *path, int type, int64_t timeout_ns, int *ret)
{
	CLOSE_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	/* 0 would be no limit at all. */
	int64_t limit_us = MAX(timeout_ns / 1000, 1000);
	struct timeval limit = { limit_us / 1000000, limit_us % 1000000 };
	size_t n = strlen(path);

	if (fd < 0)
		return -errno;
	if (!n)
		return -EINVAL;
	if (n >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, n);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EAGAIN) /* what a unix socket says when the limit has passed */
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
	*ret = STEAL_FD(fd);
	return 0;
}
