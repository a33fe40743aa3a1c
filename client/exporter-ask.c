/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the daemon, in a thread: what it holds belongs to it between begin and the readable
 * descriptor, and to the thread of HTTP else.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include "client/exporter.h"
#include "shm/atomic.h"
#include "shm/base.h"

struct exporter_ask {
	pthread_t thread;
	bool started;
	uint32_t stop;  /* atomic */
	int wake, done; /* eventfds */
	const char *socket;
	struct stats *stats, *answer;
	int error;
	char why[SPARQ_ERROR_TEXT];
};

static void ring(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void look(struct exporter_ask *a)
{
	int r;

	a->why[0] = '\0';
	r = a->stats ? stats_refresh(a->stats, a->why) : stats_open(a->socket, &a->stats, a->why);
	a->answer = r < 0 ? NULL : stats_share(a->stats);
	if (r >= 0 && !a->answer)
		r = -ENOMEM;
	a->error = MIN(r, 0);
}

static void *ask_thread(void *arg)
{
	struct exporter_ask *a = arg;
	uint64_t n;

	for (;;) {
		if (read(a->wake, &n, sizeof(n)) < 0)
			continue; /* EINTR */
		if (load_acquire(&a->stop))
			return NULL;
		look(a);
		ring(a->done);
	}
}

struct exporter_ask *exporter_ask_new(const char *socket)
{
	struct exporter_ask *a = calloc(1, sizeof(*a));
	sigset_t all, before;

	if (!a)
		return NULL;
	a->socket = socket;
	a->wake = eventfd(0, EFD_CLOEXEC);
	a->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Signals are for the other thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	a->started = a->wake >= 0 && a->done >= 0 &&
		     pthread_create(&a->thread, NULL, ask_thread, a) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return a->started ? a : exporter_ask_free(a);
}

struct exporter_ask *exporter_ask_free(struct exporter_ask *a)
{
	if (!a)
		return NULL;
	if (a->started) {
		/* Seen by the thread when it is rung. */
		store_release(&a->stop, 1);
		ring(a->wake);
		pthread_join(a->thread, NULL);
	}
	stats_close(a->answer);
	stats_close(a->stats);
	close_fd(&a->wake);
	close_fd(&a->done);
	free(a);
	return NULL;
}

int exporter_ask_fd(const struct exporter_ask *a)
{
	return a->done;
}

void exporter_ask_begin(struct exporter_ask *a)
{
	ring(a->wake);
}

struct stats *exporter_ask_end(struct exporter_ask *a, int *ret_error, char *why)
{
	uint64_t n;

	if (read(a->done, &n, sizeof(n)) < 0) {
		*ret_error = -EAGAIN;
		why[0] = '\0';
		return NULL;
	}
	*ret_error = a->error;
	memcpy(why, a->why, sizeof(a->why));
	return STEAL_PTR(a->answer);
}
