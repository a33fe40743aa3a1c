/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the exporter listens. The figures name every user of the daemon, so what other machines can
 * reach is refused unless it was asked for by name.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "client/exporter.h"
#include "shm/base.h"

#define UNIX "unix:"
#define BACKLOG 16
#define SOCKET_FLAGS (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un path;
	struct sockaddr_storage room;
};

static int PRINTF_LIKE(3, 4) fail(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, EXPORTER_WHY_BYTES, format, args);
	va_end(args);
	return error;
}

static bool is_local(const union address *a)
{
	switch (a->any.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr) ||
		       (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr) &&
			a->v6.sin6_addr.s6_addr[12] == IN_LOOPBACKNET);
	default:
		return false;
	}
}

int exporter_check(int fd, bool public, char *why)
{
	union address a = { .room = { .ss_family = AF_UNSPEC } };
	char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
	socklen_t n = sizeof(a);

	if (getsockname(fd, &a.any, &n) < 0)
		return fail(why, -errno, "descriptor %d: %s", fd, strerror(errno));
	why[0] = '\0';
	if (is_local(&a))
		return 0;
	getnameinfo(&a.any, n, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	if (!public)
		return fail(why, -EPERM,
			    "%s port %s can be reached from other machines, and the figures name "
			    "every user: use 127.0.0.1 or a unix socket, or say --public",
			    host, port);
	fail(why, 0, "%s port %s: everybody who reaches it sees the figures of every user", host,
	     port);
	return 0;
}

/* What an exporter that was killed has left is in the way. */
static void remove_stale(const union address *a)
{
	CLOSE_FD int fd = socket(AF_UNIX, SOCKET_FLAGS, 0);
	struct stat st;

	if (fd >= 0 && lstat(a->path.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, &a->any, sizeof(a->path)) < 0 && errno == ECONNREFUSED)
		unlink(a->path.sun_path);
}

static int parse_path(const char *path, union address *ret, socklen_t *ret_bytes, char *why)
{
	if (!*path || strlen(path) >= sizeof(ret->path.sun_path))
		return fail(why, -EINVAL, "unix:%s: a path of 1 to %zu characters", path,
			    sizeof(ret->path.sun_path) - 1);
	ret->path.sun_family = AF_UNIX;
	strcpy(ret->path.sun_path, path);
	*ret_bytes = sizeof(ret->path);
	return 0;
}

/* "127.0.0.1:9841", "[::1]:9841". */
static int parse_port(const char *where, union address *ret, socklen_t *ret_bytes, char *why)
{
	const struct addrinfo wanted = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM,
	};
	const char *colon = strrchr(where, ':');
	struct addrinfo *found = NULL;
	bool quoted = where[0] == '[';
	char host[INET6_ADDRSTRLEN];
	size_t n;

	n = colon ? (size_t)(colon - where) : 0;
	quoted = quoted && n > 1 && where[n - 1] == ']';
	if (n == 0 || n >= sizeof(host) || !colon[1] ||
	    (snprintf(host, sizeof(host), "%.*s", (int)(quoted ? n - 2 : n), where + quoted) < 0) ||
	    getaddrinfo(host, colon + 1, &wanted, &found) != 0)
		return fail(why, -EINVAL,
			    "%s: neither unix:PATH nor an address in numbers with a port, "
			    "127.0.0.1:9841 or [::1]:9841",
			    where);
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	*ret_bytes = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

static int bind_to(int fd, const union address *a, socklen_t n)
{
	mode_t saved;
	int r;

	if (a->any.sa_family != AF_UNIX) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
		return bind(fd, &a->any, n) < 0 ? -errno : 0;
	}
	remove_stale(a);
	saved = umask(0117); /* 0660 from its first moment */
	r = bind(fd, &a->any, n) < 0 ? -errno : 0;
	umask(saved);
	return r;
}

int exporter_listen(const char *where, bool public, int *ret, char *why)
{
	union address a = { .room = { .ss_family = AF_UNSPEC } };
	bool is_path = !strncmp(where, UNIX, strlen(UNIX));
	char warning[EXPORTER_WHY_BYTES];
	CLOSE_FD int fd = -1;
	socklen_t n;
	int r;

	r = is_path ? parse_path(where + strlen(UNIX), &a, &n, why)
		    : parse_port(where, &a, &n, why);
	if (r < 0)
		return r;
	fd = socket(a.any.sa_family, SOCKET_FLAGS, 0);
	r = fd < 0 ? -errno : bind_to(fd, &a, n);
	if (r < 0)
		return fail(why, r, "%s: %s", where, strerror(-r));
	/* Before anybody can connect. */
	r = exporter_check(fd, public, warning);
	if (r < 0)
		return fail(why, r, "%s", warning);
	if (listen(fd, BACKLOG) < 0)
		return fail(why, -errno, "%s: %s", where, strerror(errno));
	fail(why, 0, "%s", warning);
	*ret = STEAL_FD(fd);
	return 0;
}

void exporter_unlisten(const char *where)
{
	if (where && !strncmp(where, UNIX, strlen(UNIX)))
		unlink(where + strlen(UNIX));
}
