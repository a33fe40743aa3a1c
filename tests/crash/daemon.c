/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon under test and its store: see daemon.h. */
#include "tests/crash/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/base.h"
#include "shm/clock.h"

#define FIRST_FD 3 /* of those handed over, by the protocol */
#define SETTINGS 64
#define MESSAGE_BYTES 4096
#define STOP_TRIES 1000
#define STOP_US 5000

static int failed(const char *what)
{
	int error = errno ? errno : EIO;

	fprintf(stderr, "%s: %s\n", what, strerror(error));
	return -error;
}

/* ---- sockets --------------------------------------------------------------- */

static int bind_socket(const char *path, int type, int *ret)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return failed("socket");
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    (type == SOCK_SEQPACKET && listen(fd, 64) < 0)) {
		close(fd);
		return failed(path);
	}
	*ret = fd;
	return 0;
}

static int open_store(struct daemon *d)
{
	char path[sizeof(d->socket)];
	int r;

	/* Clients wait in its backlog while no daemon is there. */
	r = bind_socket(d->socket, SOCK_SEQPACKET, &d->listener);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/notify", d->directory);
	r = bind_socket(path, SOCK_DGRAM | SOCK_NONBLOCK, &d->notify);
	return r < 0 ? r : setenv("NOTIFY_SOCKET", path, 1);
}

/* ---- starting -------------------------------------------------------------- */

/* In the child: what is handed over, from FIRST_FD on. */
static void hand_over(const struct daemon *d)
{
	int fds[DAEMON_FDS + 1], n = 0;
	char names[sizeof(d->kept)] = "session", number[16];

	if (d->mode != DAEMON_STORE)
		return;
	fds[n++] = d->listener;
	for (unsigned i = 0; i < d->n_kept && !d->forgets; i++) {
		strcat(strcat(names, ":"), d->kept[i].name);
		fds[n++] = d->kept[i].fd;
	}
	/* Out of the way first, so that none is overwritten before it is moved. */
	for (int i = 0; i < n; i++)
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FD + DAEMON_FDS + 1);
	for (int i = 0; i < n; i++)
		dup2(fds[i], FIRST_FD + i);
	snprintf(number, sizeof(number), "%d", n);
	setenv("LISTEN_FDS", number, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
}

__attribute__((noreturn)) static void become_daemon(const struct daemon *d)
{
	static const char *const small[] = {
		"huge_pages=no",      "pin_workers=no",
		"pool_bytes=48M",     "catalogue_bytes=4M",
		"max_sequences=1024", "max_caches=512",
		"workers=2",          "user_session_rate=0",
		"reattach_s=1",       NULL,
	};
	char *argv[SETTINGS], control[sizeof(d->directory) + 16];
	int n = 0, log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (log >= 0)
		dup2(log, STDERR_FILENO);
	snprintf(control, sizeof(control), "%s/control", d->directory);
	argv[n++] = (char *)d->path;
	if (d->mode == DAEMON_KEEPER)
		argv[n++] = (char *)"--keeper";
	argv[n++] = (char *)"--config";
	argv[n++] = (char *)"/dev/null";
	argv[n++] = (char *)"--socket";
	argv[n++] = (char *)d->socket;
	argv[n++] = (char *)"--control";
	argv[n++] = control;
	for (const char *const *at = small; *at; at++) {
		argv[n++] = (char *)"--set";
		argv[n++] = (char *)*at;
	}
	for (const char *const *at = d->set; at && *at && n < SETTINGS - 2; at++) {
		argv[n++] = (char *)"--set";
		argv[n++] = (char *)*at;
	}
	argv[n] = NULL;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	hand_over(d);
	execv(d->path, argv);
	perror(d->path);
	_exit(127);
}

static int spawn(struct daemon *d)
{
	d->child = fork();
	if (d->child < 0) {
		d->child = 0;
		return failed("fork");
	}
	if (d->child == 0)
		become_daemon(d);
	if (d->mode != DAEMON_STORE)
		return 0;
	d->pidfd = (int)syscall(SYS_pidfd_open, d->child, 0);
	return d->pidfd < 0 ? failed("pidfd_open") : 0;
}

const char *daemon_scratch(void)
{
	const char *base = getenv("TMPDIR");

	/* The path of a socket has to fit behind it. */
	return base && *base && strlen(base) < 32 ? base : "/tmp";
}

int daemon_start(struct daemon *d, enum daemon_mode mode, const char *path, const char *const *set)
{
	int log, r = 0;

	*d = DAEMON_NULL;
	d->mode = mode;
	d->path = path;
	d->set = set;
	snprintf(d->directory, sizeof(d->directory), "%s/sparq-crash.XXXXXX", daemon_scratch());
	if (!mkdtemp(d->directory))
		return failed(d->directory);
	snprintf(d->socket, sizeof(d->socket), "%s/sock", d->directory);
	snprintf(d->log, sizeof(d->log), "%s/log", d->directory);
	log = open(d->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (log < 0)
		return failed(d->log);
	close(log); /* there before its first reader */
	if (mode == DAEMON_STORE)
		r = open_store(d);
	return r < 0 ? r : spawn(d);
}

/* ---- the store ---------------------------------------------------------------- */

static void forget(struct daemon *d, const char *name)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_kept; i++) {
		if (!strcmp(d->kept[i].name, name))
			close(d->kept[i].fd);
		else
			d->kept[n++] = d->kept[i];
	}
	d->n_kept = n;
}

static void keep(struct daemon *d, const char *name, int fd)
{
	if (d->n_kept == DAEMON_FDS) {
		close(fd);
		return;
	}
	snprintf(d->kept[d->n_kept].name, sizeof(d->kept[0].name), "%s", name);
	d->kept[d->n_kept++].fd = fd;
}

/* One message, whose descriptors are taken over. BARRIER=1: what was sent before is done. */
static void obey(struct daemon *d, char *text, const int *fds, unsigned n)
{
	const char *name = "stored";
	bool store = false, remove = false;
	char *save;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		store |= !strcmp(line, "FDSTORE=1");
		remove |= !strcmp(line, "FDSTOREREMOVE=1");
		if (!strncmp(line, "FDNAME=", 7))
			name = line + 7;
	}
	if (remove)
		forget(d, name);
	for (unsigned i = 0; i < n; i++) {
		if (store)
			keep(d, name, fds[i]);
		else
			close(fds[i]);
	}
}

static bool receive(struct daemon *d)
{
	char text[MESSAGE_BYTES + 1], control[CMSG_SPACE(DAEMON_FDS * sizeof(int))];
	struct iovec iov = { text, MESSAGE_BYTES };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(d->notify, &m, MSG_CMSG_CLOEXEC);
	int fds[DAEMON_FDS];
	unsigned n_fds = 0;

	if (n < 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), n_fds * sizeof(int));
	}
	text[n] = 0;
	obey(d, text, fds, n_fds);
	return true;
}

bool daemon_died(pid_t child)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid;
}

bool daemon_alive(struct daemon *d)
{
	while (d->notify >= 0 && receive(d))
		;
	if (d->mode == DAEMON_OUTSIDE)
		return true;
	return d->child > 0 && !daemon_died(d->child);
}

/* ---- ending -------------------------------------------------------------------- */

void daemon_wait(struct daemon *d, uint32_t us)
{
	int64_t left, end = clock_now_ns() + us * INT64_C(1000);
	struct pollfd fds[] = {
		{ .fd = d->pidfd, .events = POLLIN },
		{ .fd = d->notify, .events = POLLIN },
	};

	while ((left = end - clock_now_ns()) > 0 && !fds[0].revents) {
		struct timespec t = { left / NS_PER_S, left % NS_PER_S };

		ppoll(fds, ARRAY_SIZE(fds), &t, NULL);
		/* It waits until it is listened to. */
		if (fds[1].revents)
			daemon_alive(d);
	}
}

int daemon_kill(struct daemon *d, pid_t pid)
{
	if (pid <= 0 || (kill(pid, SIGKILL) < 0 && errno != ESRCH))
		return failed("kill");
	return 0;
}

void daemon_watch(struct daemon *d, pid_t pid)
{
	if (d->mode == DAEMON_STORE)
		return;
	close_fd(&d->pidfd);
	d->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
}

int daemon_restart(struct daemon *d)
{
	int status;

	if (d->mode != DAEMON_STORE) {
		close_fd(&d->pidfd);
		return 0;
	}
	if (waitpid(d->child, &status, 0) < 0)
		return failed("waitpid");
	d->child = 0;
	close_fd(&d->pidfd);
	/* What it handed over before it died. */
	daemon_alive(d);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		fprintf(stderr, "the daemon ended by itself: status 0x%x\n", status);
		return -ECHILD;
	}
	return spawn(d);
}

void daemon_show_log(const struct daemon *d)
{
	char command[sizeof(d->log) + 32];

	snprintf(command, sizeof(command), "tail -n 30 %s >&2", d->log);
	if (d->directory[0] && system(command) != 0)
		fprintf(stderr, "no log\n");
}

void daemon_stop(struct daemon *d)
{
	char command[sizeof(d->directory) + 16];

	if (d->child > 0) {
		kill(d->child, SIGTERM);
		/* It tells its manager that it stops, who must listen. */
		for (unsigned i = 0; i < STOP_TRIES && daemon_alive(d); i++)
			daemon_wait(d, STOP_US);
		kill(d->child, SIGKILL);
		waitpid(d->child, NULL, 0);
		d->child = 0;
	}
	while (d->n_kept)
		close(d->kept[--d->n_kept].fd);
	close_fd(&d->listener);
	close_fd(&d->notify);
	close_fd(&d->pidfd);
	snprintf(command, sizeof(command), "rm -rf %s", d->directory);
	if (d->directory[0] && system(command) != 0)
		fprintf(stderr, "%s: not removed\n", d->directory);
	d->directory[0] = 0;
}
