/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues and arenas across the daemon's end. Every engine thread sits in one of these
 * calls when it comes: none may lose a completion, hang, or find memory gone or
 * changed that it was not told of.
 */
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "client/private.h"
#include "fake-daemon.h"
#include "shm/atomic.h"
#include "shm/clock.h"

struct setup {
	struct fake f;
	sparq *c;
	sparq_queue *q;
};

static void start(struct setup *t, unsigned queues)
{
	struct sparq_open_params p = {
		.size = sizeof(p),
		.queues = queues,
		.sq_entries = 16,
		.arena_bytes = 1 << 16,
		.reconnect_ms = 5000,
	};

	fake_start(&t->f);
	assert_int_equal(sparq_open(t->f.path, &p, &t->c), 0);
	assert_int_equal(sparq_queue_create(t->c, NULL, &t->q), 0);
}

static void stop(struct setup *t)
{
	t->q = sparq_queue_close(t->q);
	t->c = sparq_close(t->c);
	fake_stop(&t->f);
}

static int64_t now_ms(void)
{
	return clock_now_ns() / NS_PER_MS;
}

static void put(sparq_queue *q, uint64_t user_data)
{
	struct sparq_sqe *e = sparq_get_sqe(q);

	assert_non_null(e);
	sparq_prep_truncate(e, 1, 0, (uint32_t)user_data & 0xffff);
	e->user_data = user_data;
}

static void take(sparq_queue *q, uint64_t user_data, int res)
{
	struct sparq_cqe *cqe = NULL;

	assert_int_equal(sparq_wait(q, &cqe, 5 * NS_PER_S), 0);
	assert_int_equal(cqe->user_data, user_data);
	assert_int_equal(cqe->res, res);
	sparq_seen(q, 1);
}

static void round_trips(sparq_queue *q, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		put(q, i);
		assert_int_equal(sparq_submit(q, 0), 1);
		take(q, i, (int)i + 1);
	}
}

/* ---- one queue ------------------------------------------------------------------- */

/* Published, lost, over, and on. More than a lap each time, so that positions begin anew. */
static void test_resume(void **state)
{
	struct sparq_cqe *cqe = NULL;
	struct setup t = {};

	start(&t, 1);
	assert_int_equal(sparq_queue_resume(t.q, -1), 0); /* nothing to do */
	for (unsigned round = 0; round < 5; round++) {
		round_trips(t.q, 20 + round);
		store_release(&t.f.hold, 1);
		put(t.q, 1);
		put(t.q, FAKE_HELD | 2);
		assert_int_equal(sparq_submit(t.q, 1), 2);
		put(t.q, 3); /* never submitted */
		fake_restart(&t.f);
		assert_int_equal(sparq_queue_resume(t.q, -1), -EBUSY);
		assert_non_null(strstr(sparq_queue_error(t.q), "2 completions"));
		take(t.q, 1, 2);
		assert_int_equal(sparq_queue_resume(t.q, -1), -EBUSY);
		take(t.q, FAKE_HELD | 2, -ECONNRESET);
		assert_int_equal(sparq_wait(t.q, &cqe, -1), -ENOTCONN);
		assert_null(sparq_get_sqe(t.q));
		assert_int_equal(sparq_submit(t.q, 0), -ENOTCONN);
		store_release(&t.f.hold, 0);
		assert_int_equal(sparq_queue_resume(t.q, NS_PER_S), 0);
		assert_string_equal(sparq_queue_error(t.q), "");
		assert_int_equal(sparq_wait(t.q, &cqe, 0), -ETIME); /* nothing of the old one */
	}
	assert_int_equal(load_acquire(&t.f.n_sessions), 6);
	assert_int_equal(waiter_lost_wakes(), 0);
	stop(&t);
}

static void *back_soon(void *arg)
{
	poll(NULL, 0, 200);
	fake_back(arg);
	return NULL;
}

static void test_resume_waits(void **state)
{
	struct setup t = {};
	pthread_t thread;
	int64_t begin;

	start(&t, 1);
	fake_away(&t.f);
	begin = now_ms();
	assert_int_equal(sparq_queue_resume(t.q, 0), -ETIME);
	assert_in_range(now_ms() - begin, 0, 2000);
	assert_int_equal(sparq_queue_resume(t.q, 100 * NS_PER_MS), -ETIME);
	assert_in_range(now_ms() - begin, 100, 4000);
	assert_non_null(strstr(sparq_queue_error(t.q), t.f.path));
	assert_int_equal(pthread_create(&thread, NULL, back_soon, &t.f), 0);
	assert_int_equal(sparq_queue_resume(t.q, -1), 0);
	pthread_join(thread, NULL);
	round_trips(t.q, 3);
	stop(&t);
}

struct resumer {
	sparq_queue *q;
	int64_t timeout_ns;
	int result;
};

static void *resume(void *arg)
{
	struct resumer *r = arg;

	r->result = sparq_queue_resume(r->q, r->timeout_ns);
	return NULL;
}

/* Who waits without end is let go when the connection is closed. */
static void test_close_ends_it(void **state)
{
	struct setup t = {};
	struct resumer r;
	pthread_t thread;
	int64_t begin;

	start(&t, 1);
	fake_away(&t.f);
	r = (struct resumer){ t.q, -1, 1 };
	assert_int_equal(pthread_create(&thread, NULL, resume, &r), 0);
	poll(NULL, 0, 100);
	begin = now_ms();
	t.c = sparq_close(t.c);
	pthread_join(thread, NULL);
	assert_int_equal(r.result, -ENOTCONN);
	assert_in_range(now_ms() - begin, 0, 1000);
	t.q = sparq_queue_close(t.q);
	fake_stop(&t.f);
}

/* Each has its own time, whoever it is that tries. */
static void test_waiters(void **state)
{
	sparq_queue *second = NULL;
	struct setup t = {};
	struct resumer r;
	pthread_t thread;
	int64_t begin;

	start(&t, 2);
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), 0);
	fake_away(&t.f);
	r = (struct resumer){ t.q, 20 * NS_PER_S, 1 };
	assert_int_equal(pthread_create(&thread, NULL, resume, &r), 0);
	poll(NULL, 0, 50);
	begin = now_ms();
	assert_int_equal(sparq_queue_resume(second, 100 * NS_PER_MS), -ETIME);
	assert_in_range(now_ms() - begin, 99, 3000);
	fake_back(&t.f);
	assert_int_equal(sparq_queue_resume(second, 5 * NS_PER_S), 0);
	pthread_join(thread, NULL);
	assert_int_equal(r.result, 0);
	round_trips(t.q, 2);
	round_trips(second, 2);
	second = sparq_queue_close(second);
	stop(&t);
}

static void test_child(void **state)
{
	struct setup t = {};
	pid_t child;
	int status;

	start(&t, 1);
	child = fork();
	if (child == 0) {
		int r = sparq_queue_resume(t.q, -1);

		sparq_queue_close(t.q);
		sparq_close(t.c);
		_exit(r == -ENOTCONN ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	round_trips(t.q, 2);
	stop(&t);
}

/* ---- memory ------------------------------------------------------------------------ */

static bool is_mapped(const void *p)
{
	uintptr_t page = (uintptr_t)p & ~(uintptr_t)4095;

	return msync((void *)page, 4096, MS_ASYNC) == 0; /* ENOMEM: nothing there */
}

/* The old arena stays, with what is in it, until the last who may use it has moved on. */
static void test_arena(void **state)
{
	uint8_t *before, *after, *second_before;
	sparq_buf *b = NULL, *other = NULL;
	sparq_queue *second = NULL;
	struct setup t = {};
	uint64_t addr;

	start(&t, 2);
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), 0);
	assert_int_equal(sparq_buf_alloc(t.c, 4096, &b), 0);
	assert_int_equal(sparq_buf_alloc(t.c, 4096, &other), 0);
	before = sparq_buf_data(b, NULL);
	second_before = sparq_buf_data(other, NULL);
	addr = sparq_buf_addr(b);
	memset(before, 0xaa, 4096);
	fake_restart(&t.f);
	assert_int_equal(sparq_queue_resume(t.q, NS_PER_S), 0);
	assert_int_equal(before[4095], 0xaa);
	after = sparq_buf_data(b, NULL);
	assert_ptr_not_equal(after, before);
	assert_int_equal(sparq_buf_addr(b), addr);
	assert_int_equal(after[4095], 0);
	memset(after, 0xbb, 4096);
	assert_int_equal(before[4095], 0xaa); /* both at once */
	assert_ptr_not_equal(sparq_buf_data(other, NULL), second_before);
	memset(before, 0xcc, 4096); /* the second queue's thread has not heard of it */
	assert_true(is_mapped(before));
	assert_int_equal(sparq_queue_resume(second, NS_PER_S), 0);
	assert_false(is_mapped(before));
	assert_int_equal(after[4095], 0xbb);
	/* An address that was not asked for again may still be used. */
	fake_restart(&t.f);
	assert_int_equal(sparq_queue_resume(t.q, NS_PER_S), 0);
	second = sparq_queue_close(second);
	assert_true(is_mapped(after));
	sparq_buf_data(b, NULL);
	assert_true(is_mapped(after)); /* the other's */
	other = sparq_buf_unref(other);
	assert_false(is_mapped(after));
	sparq_buf_unref(b);
	stop(&t);
}

/* A new queue would take addresses for those of a new arena that the program has from the old. */
static void test_new_queue(void **state)
{
	sparq_queue *second = NULL;
	struct setup t = {};
	const char *name;

	start(&t, 2);
	fake_restart(&t.f);
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), -ENOTCONN);
	assert_int_equal(sparq_name(t.c, "format", 0, &name), 0); /* this reconnects, unsaid */
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), -ENOTCONN);
	assert_non_null(strstr(sparq_error(t.c), "sparq_dispatch"));
	assert_null(second);
	assert_int_equal(sparq_dispatch(t.c), 1);
	assert_int_equal(sparq_dispatch(t.c), 0);
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), 0);
	round_trips(second, 3);
	second = sparq_queue_close(second);
	assert_int_equal(sparq_queue_resume(t.q, 0), 0);
	/* A pair that was closed before begins anew after the end, too. */
	fake_restart(&t.f);
	assert_int_equal(sparq_queue_resume(t.q, NS_PER_S), 0);
	assert_int_equal(sparq_queue_create(t.c, NULL, &second), 0);
	round_trips(second, 3);
	second = sparq_queue_close(second);
	stop(&t);
}

/* ---- event loop ---------------------------------------------------------------------- */

/* Both descriptors keep their numbers; what is behind them is new, so epoll is told again. */
static void test_event_loop(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct sparq_cqe *cqe[4];
	struct setup t = {};
	int fd, own, epoll = epoll_create1(EPOLL_CLOEXEC);

	start(&t, 1);
	own = sparq_fd(t.c);
	fd = sparq_queue_fd(t.q);
	assert_true(own >= 0 && fd >= 0 && epoll >= 0);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, own, &event), 0);
	assert_int_equal(sparq_peek(t.q, cqe, 4), 0);
	fake_restart(&t.f);
	assert_true(epoll_wait(epoll, &event, 1, 5000) == 1);
	assert_int_equal(sparq_dispatch(t.c), 1);
	assert_int_equal(sparq_fd(t.c), own);
	assert_int_equal(sparq_peek(t.q, cqe, 4), -ENOTCONN);
	assert_int_equal(sparq_queue_resume(t.q, 0), 0);
	assert_int_equal(sparq_queue_fd(t.q), fd);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0); /* neither is in it any more */
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, own, &event), 0);
	for (uint64_t i = 0; i < 500; i++) {
		put(t.q, i);
		assert_int_equal(sparq_submit(t.q, 0), 1);
		while (sparq_peek(t.q, cqe, 4) == 0)
			assert_int_equal(epoll_wait(epoll, &event, 1, 5000), 1);
		assert_int_equal(cqe[0]->user_data, i);
		sparq_seen(t.q, 1);
	}
	assert_int_equal(sparq_dispatch(t.c), 0);
	fake_restart(&t.f);
	while (epoll_wait(epoll, &event, 1, 5000) == 1 && sparq_dispatch(t.c) != 1)
		;
	assert_int_equal(load_acquire(&t.f.n_sessions), 3);
	close_fd(&epoll);
	stop(&t);
}

/* ---- many threads ----------------------------------------------------------------------- */

#define THREADS 4
#define RESTARTS 20

struct worker {
	sparq_queue *q;
	sparq_buf *buf;
	uint32_t *stop;
	uint64_t done, lost, resumes;
	const char *failed;
};

static int resume_all(struct worker *w)
{
	int r = sparq_queue_resume(w->q, 20 * NS_PER_S);

	if (r == 0)
		w->resumes++;
	return r;
}

/* One entry and what comes of it: 0 done, 1 lost, -ENOTCONN. */
static int work_once(struct worker *w, uint64_t i)
{
	struct sparq_sqe *e = sparq_get_sqe(w->q);
	struct sparq_cqe *cqe = NULL;
	int r;

	if (!e)
		return -ENOTCONN;
	*(uint64_t *)sparq_buf_data(w->buf, NULL) = i;
	sparq_prep_nop(e, i);
	r = sparq_submit(w->q, 0);
	if (r < 0)
		return r;
	r = sparq_wait(w->q, &cqe, 20 * NS_PER_S);
	if (r < 0)
		return r;
	if (cqe->user_data != i || (cqe->res < 0 && cqe->res != -ECONNRESET))
		return -EIO;
	r = cqe->res < 0;
	sparq_seen(w->q, 1);
	return r;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; !load_acquire(w->stop); i++) {
		int r = work_once(w, i);

		w->done += r == 0;
		w->lost += r == 1;
		if (r == -ENOTCONN)
			r = resume_all(w);
		if (r < 0) {
			w->failed = strerror(-r);
			break;
		}
	}
	w->q = sparq_queue_close(w->q);
	return NULL;
}

/* However many notice at once, a restart costs one session, and all go on in it. */
static void test_threads(void **state)
{
	struct worker w[THREADS] = {};
	pthread_t thread[THREADS];
	struct setup t = {};
	uint32_t ended = 0;
	const char *name;

	start(&t, THREADS + 1);
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].stop = &ended;
		assert_int_equal(sparq_queue_create(t.c, NULL, &w[i].q), 0);
		assert_int_equal(sparq_buf_alloc(t.c, 4096, &w[i].buf), 0);
		assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < RESTARTS; i++) {
		fake_restart(&t.f);
		if (i % 2)
			assert_int_equal(sparq_name(t.c, "format", 0, &name), 0);
		while (load_acquire(&t.f.n_sessions) < i + 2)
			sched_yield();
		poll(NULL, 0, 10);
	}
	poll(NULL, 0, 50);
	store_release(&ended, 1);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		assert_null(w[i].failed);
		assert_true(w[i].done > 0);
		assert_true(w[i].resumes > 0 && w[i].resumes <= RESTARTS);
		sparq_buf_unref(w[i].buf);
	}
	assert_int_equal(load_acquire(&t.f.n_sessions), RESTARTS + 1);
	stop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resume),        cmocka_unit_test(test_resume_waits),
		cmocka_unit_test(test_close_ends_it), cmocka_unit_test(test_waiters),
		cmocka_unit_test(test_child),         cmocka_unit_test(test_arena),
		cmocka_unit_test(test_new_queue),     cmocka_unit_test(test_event_loop),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
