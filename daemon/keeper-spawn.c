/* SPDX-License-Identifier: Apache-2.0 */
/* A child with its descriptors and its environment. The keeper has one thread: anything may be
 * called between fork and exec. */
#include "daemon/keeper-spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "shm/base.h"

#define FIRST_FD 3
#define GIVEN_MOST (2 + STASH_MOST)
#define STATUS_NO_PROGRAM 127

struct given {
	int fd[GIVEN_MOST];
	char names[GIVEN_MOST * STASH_NAME_BYTES];
	unsigned n;
};

static void give(struct given *g, const char *name, int fd)
{
	size_t at = strlen(g->names);

	if (fd < 0)
		return;
	snprintf(g->names + at, sizeof(g->names) - at, "%s%s", g->n ? ":" : "", name);
	g->fd[g->n++] = fd;
}

/* To FIRST_FD and on: first all out of the way, for the places may be those of others of them. */
static int place(struct given *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		g->fd[i] = fcntl(g->fd[i], F_DUPFD_CLOEXEC, FIRST_FD + (int)g->n);
		if (g->fd[i] < 0)
			return -errno;
	}
	for (unsigned i = 0; i < g->n; i++)
		if (dup2(g->fd[i], FIRST_FD + (int)i) < 0)
			return -errno;
	return 0;
}

static int set_number(const char *name, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	return setenv(name, text, 1) < 0 ? -errno : 0;
}

static int set_environment(const struct keeper_params *p, const struct given *g)
{
	int r = set_number("LISTEN_FDS", g->n);

	if (r == 0)
		r = set_number("LISTEN_PID", (uint64_t)getpid());
	if (r == 0 &&
	    (setenv("LISTEN_FDNAMES", g->names, 1) < 0 ||
	     setenv("NOTIFY_SOCKET", p->notify_path, 1) < 0 || setenv("SPARQD_KEEPER", "1", 1) < 0))
		r = -errno;
	if (r == 0 && p->watchdog_ns)
		r = set_number("WATCHDOG_USEC", p->watchdog_ns / 1000);
	if (r == 0 && p->watchdog_ns)
		r = set_number("WATCHDOG_PID", (uint64_t)getpid());
	if (!p->watchdog_ns) /* a manager's above us is for us */
		unsetenv("WATCHDOG_USEC");
	return r;
}

static _Noreturn void become(const struct keeper_params *p, struct given *g)
{
	sigset_t none;
	int r = place(g);

	if (r == 0)
		r = set_environment(p, g);
	if (r == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execv(p->program, p->argv);
		r = -errno;
	}
	log_error("keeper: cannot run %s: %s", p->program, strerror(-r));
	_exit(STATUS_NO_PROGRAM);
}

int keeper_spawn(const struct keeper_params *p, const struct stash *s, pid_t *ret)
{
	struct given g = { .n = 0 };
	pid_t pid;

	give(&g, "session", p->session);
	give(&g, "control", p->control);
	for (unsigned i = 0; i < s->n; i++)
		give(&g, s->held[i].name, s->held[i].fd);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		become(p, &g);
	*ret = pid;
	return 0;
}
