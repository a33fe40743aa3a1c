/* SPDX-License-Identifier: Apache-2.0 */
/* A thread beside the control thread: see aside.h. */
#include "daemon/aside.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "kernels/kernels.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* A tenth of the weight of a worker: not the lowest, or on a machine whose workers poll without end
 * an administrator would wait for minutes. */
#define NICE 10

struct aside {
	struct loop *loop;
	struct loop_source source;
	int event_fd; /* something has ended */
	pthread_t thread;
	bool started;

	pthread_mutex_t mutex; /* of all below */
	pthread_cond_t work;
	bool stopping;
	struct aside_job *queued, *ended; /* in order */
	struct aside_job *running;        /* written by the thread */
	unsigned n_queued;
};

static void append(struct aside_job **list, struct aside_job *j)
{
	while (*list)
		list = &(*list)->next;
	j->next = NULL;
	*list = j;
}

static struct aside_job *take(struct aside_job **list)
{
	struct aside_job *j = *list;

	if (j)
		*list = j->next;
	return j;
}

/* ---- the thread ----------------------------------------------------------------- */

/* NULL: it is to end. */
static struct aside_job *next_job(struct aside *a)
{
	struct aside_job *j = NULL;

	pthread_mutex_lock(&a->mutex);
	while (!a->queued && !a->stopping)
		pthread_cond_wait(&a->work, &a->mutex);
	if (!a->stopping) {
		j = a->running = take(&a->queued);
		a->n_queued--;
	}
	pthread_mutex_unlock(&a->mutex);
	return j;
}

static void end_job(struct aside *a, struct aside_job *j)
{
	uint64_t one = 1;

	pthread_mutex_lock(&a->mutex);
	a->running = NULL;
	append(&a->ended, j);
	pthread_mutex_unlock(&a->mutex);
	if (write(a->event_fd, &one, sizeof(one)) < 0)
		return; /* full: it is readable */
}

static void *aside_thread(void *arg)
{
	struct aside *a = arg;
	struct aside_job *j;

	kv_thread_init();
	/* Of this thread alone on Linux. Where it is forbidden, jobs are as rare and as short. */
	setpriority(PRIO_PROCESS, 0, NICE);
	while ((j = next_job(a)) != NULL) {
		j->run(j);
		end_job(a, j);
	}
	return NULL;
}

static int start_thread(struct aside *a)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&a->thread, NULL, aside_thread, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return -r;
	pthread_setname_np(a->thread, "aside");
	a->started = true;
	return 0;
}

/* ---- control thread ---------------------------------------------------------------- */

static void hand_back(struct aside_job *j)
{
	if (load_relaxed(&j->cancelled))
		j->drop(j);
	else
		j->done(j);
}

static void on_ended(void *arg, uint32_t events)
{
	struct aside *a = arg;
	struct aside_job *j;
	uint64_t n;

	if (read(a->event_fd, &n, sizeof(n)) < 0)
		assert(errno == EAGAIN);
	for (;;) {
		pthread_mutex_lock(&a->mutex);
		j = take(&a->ended);
		pthread_mutex_unlock(&a->mutex);
		if (!j)
			return;
		hand_back(j);
	}
}

int aside_new(struct loop *l, struct aside **ret)
{
	struct aside *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->loop = l;
	a->source = LOOP_SOURCE_NULL;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->work, NULL);
	a->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = a->event_fd < 0 ? -errno : loop_add(l, &a->source, a->event_fd, POLLIN, on_ended, a);
	if (r < 0) {
		aside_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

struct aside *aside_free(struct aside *a)
{
	struct aside_job *j;

	if (!a)
		return NULL;
	pthread_mutex_lock(&a->mutex);
	a->stopping = true;
	if (a->running)
		store_relaxed(&a->running->cancelled, 1);
	pthread_cond_signal(&a->work);
	pthread_mutex_unlock(&a->mutex);
	if (a->started)
		pthread_join(a->thread, NULL);
	loop_remove(a->loop, &a->source);
	while ((j = take(&a->ended)) || (j = take(&a->queued)))
		j->drop(j);
	close_fd(&a->event_fd);
	pthread_cond_destroy(&a->work);
	pthread_mutex_destroy(&a->mutex);
	free(a);
	return NULL;
}

int aside_put(struct aside *a, struct aside_job *j)
{
	int r = a->started ? 0 : start_thread(a);

	if (r < 0)
		return r;
	pthread_mutex_lock(&a->mutex);
	if (a->n_queued < ASIDE_QUEUED) {
		store_relaxed(&j->cancelled, 0);
		append(&a->queued, j);
		a->n_queued++;
		pthread_cond_signal(&a->work);
	} else {
		r = -EAGAIN;
	}
	pthread_mutex_unlock(&a->mutex);
	return r;
}

void aside_cancel(struct aside *a, struct aside_job *j)
{
	struct aside_job **at;
	bool waits;

	pthread_mutex_lock(&a->mutex);
	for (at = &a->queued; *at && *at != j; at = &(*at)->next)
		;
	waits = *at;
	if (waits) {
		*at = j->next;
		a->n_queued--;
	}
	pthread_mutex_unlock(&a->mutex);
	if (waits)
		j->drop(j);
	else
		store_relaxed(&j->cancelled, 1);
}

bool aside_is_cancelled(const struct aside *a)
{
	return a && pthread_equal(pthread_self(), a->thread) &&
	       load_relaxed(&a->running->cancelled);
}
