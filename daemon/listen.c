/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "daemon/listen.h"
#include "daemon/log.h"
#include "shm/base.h"

#define BACKLOG 512
#define ACCEPT_BATCH 16      /* a flood of connections must not starve those that are here */
#define REST_NS 100000000ull /* while descriptors are short */

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	_Static_assert(sizeof(a.sun_path) >= CONFIG_PATH_MAX, "every configured path fits");
	strcpy(a.sun_path, path);
	return a;
}

/* Whether the process that listens at the other end of a connection is gone. The kernel can take a
 * while to close what a killed process had in its io_uring, and accepts for it until then. */
static bool listener_died(int fd)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || cred.pid <= 0)
		return false;
	return kill(cred.pid, 0) < 0 && errno == ESRCH;
}

static bool is_stale(int fd, const char *path)
{
	struct sockaddr_un a = address_of(path);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return errno == ECONNREFUSED;
	return listener_died(fd);
}

/* Whoever died left a name that nobody answers to. 0: it is free now. */
static int remove_stale(int type, const char *path, char *why)
{
	CLOSE_FD int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0; /* bind will say what is wrong, if anything is */
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, CONFIG_WHY_BYTES, "%s exists and is not a socket", path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (is_stale(fd, path))
		return unlink(path) < 0 ? -errno : 0;
	snprintf(why, CONFIG_WHY_BYTES,
		 "somebody listens on %s: another sparqd? Stop it, or give this one its own "
		 "--socket and --control",
		 path);
	return -EADDRINUSE;
}

static int bind_and_listen(int fd, const char *path)
{
	struct sockaddr_un a = address_of(path);
	mode_t before = umask(0117); /* 0660 from the first moment on */
	int r = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;

	umask(before);
	if (r < 0)
		return r;
	return listen(fd, BACKLOG) < 0 ? -errno : 0;
}

int listener_open(struct listener *l, int type, const char *path, char *why)
{
	CLOSE_FD int fd = -1;
	struct stat st;
	int r;

	*why = '\0';
	r = remove_stale(type, path, why);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind_and_listen(fd, path);
	if (r == 0 && lstat(path, &st) < 0)
		r = -errno;
	if (r < 0) {
		snprintf(why, CONFIG_WHY_BYTES, "cannot listen on %s: %s", path, strerror(-r));
		return r;
	}
	*l = LISTENER_NULL;
	strcpy(l->path, path);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->fd = STEAL_FD(fd);
	return 0;
}

void listener_adopt(struct listener *l, int fd)
{
	*l = LISTENER_NULL;
	l->fd = fd;
}

void listener_claim(int fd)
{
	listen(fd, BACKLOG);
}

static void on_rested(void *arg)
{
	struct listener *l = arg;

	if (loop_change(l->loop, &l->source, POLLIN) < 0)
		log_error("the listening socket %s is deaf now: no memory", l->path);
}

/* Out of descriptors or memory: the socket stays readable, so look away for a while. */
static void take_rest(struct listener *l)
{
	log_warning("cannot accept a connection: %s; trying again", strerror(errno));
	if (loop_change(l->loop, &l->source, 0) == 0)
		loop_timer_set(l->loop, &l->rest, REST_NS, on_rested, l);
}

static void on_connection(void *arg, uint32_t events)
{
	struct listener *l = arg;

	for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			l->fn(l->arg, fd);
		else if (errno == EAGAIN)
			return;
		else if (errno != ECONNABORTED && errno != EINTR)
			return take_rest(l);
	}
}

int listener_start(struct listener *l, struct loop *loop, listener_fn *fn, void *arg)
{
	/* A socket that was passed in may block: somebody else can take the connection first. */
	int flags = fcntl(l->fd, F_GETFL);

	if (flags < 0 || fcntl(l->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	l->loop = loop;
	l->fn = fn;
	l->arg = arg;
	return loop_add(loop, &l->source, l->fd, POLLIN, on_connection, l);
}

void listener_stop(struct listener *l)
{
	struct stat st;

	if (l->loop != NULL) {
		loop_timer_cancel(l->loop, &l->rest);
		loop_remove(l->loop, &l->source);
	}
	/* Only the name that was made here: a successor may have taken it over. */
	if (l->path[0] != '\0' && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
	    st.st_ino == l->ino)
		unlink(l->path);
	close_fd(&l->fd);
	*l = LISTENER_NULL;
}
