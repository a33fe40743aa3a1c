/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper: one child at a time, and what it must not lose. */
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "daemon/heard.h"
#include "daemon/keeper-spawn.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/notify.h"
#include "daemon/stash.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)
#define PAUSE_LEAST_NS (10 * MS)
#define PAUSE_MOST_NS (5 * S)
#define SERVED_NS (10 * S) /* after which a crash is a new one, not the last one again */

struct keeper {
	const struct keeper_params *p;
	struct loop *loop;
	int signal_fd, notify_fd, pidfd;
	struct loop_source signals, messages, child;
	struct loop_timer restart, watchdog, deadline, outer;
	struct stash stash;
	pid_t pid;                   /* 0: no child */
	uint64_t ready_ns, pause_ns; /* ready_ns 0: not yet */
	bool served;                 /* some child was ready once */
	bool stopping, again;        /* SIGTERM; SIGUSR1 */
	struct log_limit strangers;
};
#define KEEPER_NULL                                                                                \
	((struct keeper){ .signal_fd = -1,                                                         \
			  .notify_fd = -1,                                                         \
			  .pidfd = -1,                                                             \
			  .signals = LOOP_SOURCE_NULL,                                             \
			  .messages = LOOP_SOURCE_NULL,                                            \
			  .child = LOOP_SOURCE_NULL })

uint64_t keeper_pause(uint64_t last_ns, uint64_t served_ns)
{
	if (last_ns == 0 || served_ns >= SERVED_NS)
		return PAUSE_LEAST_NS;
	return MIN(2 * last_ns, PAUSE_MOST_NS);
}

/* ---- a child that does not answer ------------------------------------------- */

static void on_deadline(void *arg)
{
	struct keeper *k = arg;

	log_error("keeper: the daemon (pid %d) does not end: killing it", k->pid);
	kill(k->pid, SIGKILL);
}

static void on_watchdog(void *arg)
{
	struct keeper *k = arg;

	log_error("keeper: the daemon (pid %d) made no progress for %" PRIu64
		  " s (keeper_watchdog_s): aborting it",
		  k->pid, k->p->watchdog_ns / S);
	kill(k->pid, SIGABRT);
	loop_timer_set(k->loop, &k->deadline, k->p->abort_ns, on_deadline, k);
}

static void feed_watchdog(struct keeper *k)
{
	if (k->p->watchdog_ns && !k->stopping)
		loop_timer_set(k->loop, &k->watchdog, k->p->watchdog_ns, on_watchdog, k);
}

/* ---- what the child says ---------------------------------------------------- */

static void store(struct keeper *k, struct heard *h)
{
	for (unsigned i = 0; i < h->n_fds; i++) {
		int r = stash_put(&k->stash, h->name, STEAL_FD(h->fd[i]));

		if (r < 0)
			log_error("keeper: cannot keep \"%s\": %s", h->name,
				  r == -ENOSPC ? "253 descriptors are kept already"
					       : "this cannot be a name");
	}
}

static void apply(struct keeper *k, struct heard *h)
{
	if (h->remove)
		stash_remove(&k->stash, h->name);
	if (h->store)
		store(k, h);
	if (h->status[0])
		notify_status("%s", h->status);
	if (h->extend_usec)
		notify_extend(h->extend_usec);
	if (h->ready) {
		k->served = true;
		if (!k->ready_ns)
			k->ready_ns = clock_now_ns();
		notify_ready();
	}
	if (h->ready || (h->watchdog && k->ready_ns))
		feed_watchdog(k);
}

/* Everything that is there: 0, or -errno. */
static int read_messages(struct keeper *k)
{
	for (;;) {
		CLEANUP(heard_deinit) struct heard h = HEARD_NULL;
		int r = heard_receive(k->notify_fd, &h);

		if (r == 0 || (r < 0 && r != -EBADMSG))
			return r;
		if (r > 0 && k->pid && h.from.pid == k->pid)
			apply(k, &h);
		else if (!log_limited(&k->strangers))
			log_warning("keeper: a message that is not the daemon's (pid %d, uid %u)",
				    h.from.pid, h.from.uid);
	}
}

static void on_message(void *arg, uint32_t events)
{
	struct keeper *k = arg;
	int r = read_messages(k);

	if (r < 0)
		log_error("keeper: cannot hear the daemon: %s", strerror(-r));
}

/* ---- its life ------------------------------------------------------------------ */

static void start(struct keeper *k);

static void on_restart(void *arg)
{
	start(arg);
}

static void start_later(struct keeper *k, const char *what)
{
	uint64_t served = k->ready_ns ? clock_now_ns() - k->ready_ns : 0;

	k->pause_ns = keeper_pause(k->pause_ns, served);
	log_event(EVENT_RESTARTING, NULL,
		  "keeper: the daemon %s; %u descriptors are kept, starting it again in %" PRIu64
		  " ms",
		  what, k->stash.n, k->pause_ns / MS);
	notify_status("the daemon %s: starting it again, %u descriptors are kept", what,
		      k->stash.n);
	loop_timer_set(k->loop, &k->restart, k->pause_ns, on_restart, k);
}

static void end(struct keeper *k, int status)
{
	log_notice("keeper: the daemon ended with status %d: the %u descriptors of its memory are "
		   "dropped, and the KV in them",
		   status, k->stash.n);
	loop_stop(k->loop, status);
}

/* What follows from the end of a child. */
static void decide(struct keeper *k, int status)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	char what[96];

	if (WIFEXITED(status))
		snprintf(what, sizeof(what), "ended with status %d", code);
	else
		snprintf(what, sizeof(what), "was ended by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	if (k->stopping) {
		end(k, code >= 0 ? code : EXIT_FAILURE);
	} else if (k->again) {
		log_notice("keeper: starting the daemon anew; %u descriptors are kept", k->stash.n);
		start(k);
	} else if (code == 0) {
		end(k, 0);
	} else if (code > 0 && !k->served) {
		/* It never served: whoever wrote its configuration is waiting for an answer. */
		log_error("keeper: the daemon %s at its first start: not starting it again", what);
		loop_stop(k->loop, code);
	} else {
		start_later(k, what);
	}
}

/* The child was the one that listened; now nobody but us is there. */
static void claim_sockets(const struct keeper *k)
{
	if (k->p->session >= 0)
		listener_claim(k->p->session);
	if (k->p->control >= 0)
		listener_claim(k->p->control);
}

static void on_child(void *arg, uint32_t events)
{
	struct keeper *k = arg;
	int status = 0;

	/* What it said last, before its number can be another's. */
	read_messages(k);
	if (waitpid(k->pid, &status, WNOHANG) != k->pid)
		return;
	loop_remove(k->loop, &k->child);
	close_fd(&k->pidfd);
	loop_timer_cancel(k->loop, &k->watchdog);
	loop_timer_cancel(k->loop, &k->deadline);
	k->pid = 0;
	claim_sockets(k);
	decide(k, status);
}

static int watch_child(struct keeper *k)
{
	k->pidfd = pidfd_open(k->pid, 0);
	if (k->pidfd < 0)
		return -errno;
	return loop_add(k->loop, &k->child, k->pidfd, POLLIN, on_child, k);
}

static void start(struct keeper *k)
{
	int r;

	k->again = false;
	k->ready_ns = 0;
	r = keeper_spawn(k->p, &k->stash, &k->pid);
	if (r == 0)
		r = watch_child(k);
	if (r == 0) {
		log_info("keeper: the daemon is pid %d, with %u kept descriptors", k->pid,
			 k->stash.n);
		return;
	}
	if (k->pid) { /* nobody would hear of its end */
		kill(k->pid, SIGKILL);
		waitpid(k->pid, NULL, 0);
		k->pid = 0;
	}
	start_later(k, strerror(-r));
}

/* ---- signals ---------------------------------------------------------------------- */

static void stop(struct keeper *k)
{
	k->stopping = true;
	notify_stopping();
	loop_timer_cancel(k->loop, &k->watchdog);
	if (!k->pid) {
		end(k, 0);
		return;
	}
	kill(k->pid, SIGTERM);
	loop_timer_set(k->loop, &k->deadline, k->p->stop_ns, on_deadline, k);
}

static void start_anew(struct keeper *k)
{
	if (!k->pid || k->stopping || k->again)
		return;
	k->again = true;
	kill(k->pid, SIGTERM);
	loop_timer_set(k->loop, &k->deadline, k->p->stop_ns, on_deadline, k);
}

static void on_signal(void *arg, uint32_t events)
{
	struct signalfd_siginfo info;
	struct keeper *k = arg;

	while (read(k->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			start_anew(k);
		else if (info.ssi_signo != SIGHUP && !k->stopping)
			stop(k);
		else if (k->pid)
			kill(k->pid, (int)info.ssi_signo);
	}
}

/* ---- all of it ---------------------------------------------------------------------- */

/* A manager above us watches us, not the daemon, which is what we are for. */
static void on_outer(void *arg)
{
	struct keeper *k = arg;

	notify_watchdog();
	loop_timer_set(k->loop, &k->outer, notify_watchdog_ns() / 3, on_outer, k);
}

static int open_signals(struct keeper *k)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->signal_fd < 0)
		return -errno;
	return loop_add(k->loop, &k->signals, k->signal_fd, POLLIN, on_signal, k);
}

/* In the file system and ours alone: an abstract name could be flooded by anybody. */
static int open_notify(struct keeper *k)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	mode_t before;
	int on = 1, r;

	if (strlen(k->p->notify_path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, k->p->notify_path);
	k->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->notify_fd < 0)
		return -errno;
	unlink(a.sun_path); /* of a keeper that was killed */
	before = umask(0177);
	r = bind(k->notify_fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	umask(before);
	if (r == 0 && setsockopt(k->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		r = -errno;
	if (r < 0)
		return r;
	return loop_add(k->loop, &k->messages, k->notify_fd, POLLIN, on_message, k);
}

static void keeper_deinit(struct keeper *k)
{
	if (k->notify_fd >= 0)
		unlink(k->p->notify_path);
	loop_free(k->loop);
	stash_deinit(&k->stash);
	close_fd(&k->notify_fd);
	close_fd(&k->signal_fd);
	close_fd(&k->pidfd);
}

int keeper_run(const struct keeper_params *p)
{
	CLEANUP(keeper_deinit) struct keeper k = KEEPER_NULL;
	int r;

	k.p = p;
	r = loop_new(LOOP_EPOLL, &k.loop);
	if (r == 0)
		r = open_signals(&k);
	if (r == 0)
		r = open_notify(&k);
	if (r < 0)
		return r;
	if (notify_watchdog_ns())
		on_outer(&k);
	start(&k);
	return loop_run(k.loop);
}
