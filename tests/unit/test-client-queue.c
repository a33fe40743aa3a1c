/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token path against a daemon that answers, sleeps, keeps entries for
 * itself and dies. Every engine thread sits in one of these calls: none may
 * hang, lose a completion or invent one.
 */
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

#include <cmocka.h>

#include "client/private.h"
#include "fake-daemon.h"
#include "shm/atomic.h"

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct pair {
	struct fake f;
	sparq *c;
	sparq_queue *q;
};

static void start(struct pair *p, unsigned queues, unsigned entries)
{
	struct sparq_open_params params = {
		.size = sizeof(params),
		.queues = queues,
		.sq_entries = entries,
		.arena_bytes = 1 << 16,
	};

	fake_start(&p->f);
	assert_int_equal(sparq_open(p->f.path, &params, &p->c), 0);
	assert_int_equal(sparq_queue_create(p->c, NULL, &p->q), 0);
}

static void stop(struct pair *p)
{
	p->q = sparq_queue_close(p->q);
	p->c = sparq_close(p->c);
	fake_stop(&p->f);
}

static void put(sparq_queue *q, uint64_t user_data)
{
	struct sparq_sqe *e = sparq_get_sqe(q);

	assert_non_null(e);
	sparq_prep_truncate(e, 1, 0, (uint32_t)user_data & 0xffff);
	e->user_data = user_data;
}

static void take(sparq_queue *q, uint64_t user_data)
{
	struct sparq_cqe *cqe = NULL;

	assert_int_equal(sparq_wait(q, &cqe, 5 * NS_PER_S), 0);
	assert_int_equal(cqe->user_data, user_data);
	assert_int_equal(cqe->res, (int)(user_data & 0xffff) + 1);
	sparq_seen(q, 1);
}

/* Many laps, so that every slot of both rings is used again and again. */
static void test_round_trips(void **state)
{
	struct pair p = {};

	start(&p, 1, 16);
	for (uint64_t i = 0; i < 5000; i++) {
		put(p.q, i);
		assert_int_equal(sparq_submit(p.q, 0), 1);
		take(p.q, i);
	}
	assert_int_equal(waiter_lost_wakes(), 0);
	stop(&p);
}

/* A batch with depth: fill until full, submit once, read in pieces, out of order. */
static void test_batches(void **state)
{
	struct sparq_cqe *cqe[8];
	struct pair p = {};
	uint64_t sent = 0, seen = 0;

	start(&p, 1, 64);
	store_release(&p.f.backwards, 1);
	while (seen < 20000) {
		struct sparq_sqe *e;
		int n;

		while (sent - seen < 100 && (e = sparq_get_sqe(p.q)))
			e->user_data = sent++;
		assert_true(sparq_submit(p.q, 1) >= 0);
		n = sparq_peek(p.q, cqe, 8);
		assert_true(n > 0);
		for (int i = 0; i < n; i++)
			assert_true(cqe[i]->user_data < sent);
		sparq_seen(p.q, (unsigned)n);
		seen += (unsigned)n;
	}
	/* `live` is what was not seen: were it wrong, a dead daemon would lose or invent entries.
	 */
	assert_int_equal(p.q->flight.live, sent - seen);
	stop(&p);
}

/* A full ring is an answer, and room comes back. */
static void test_full(void **state)
{
	struct pair p = {};
	int64_t begin = now_ms();
	unsigned n = 0;

	start(&p, 1, 16);
	store_release(&p.f.hold, 1);
	while (n < 48 && now_ms() - begin < 5000) { /* 32 held by the daemon, 16 in the ring */
		struct sparq_sqe *e = sparq_get_sqe(p.q);

		if (!e) {
			sched_yield();
			continue;
		}
		e->user_data = FAKE_HELD | n++;
		assert_int_equal(sparq_submit(p.q, 0), 1);
	}
	assert_int_equal(n, 48);
	assert_null(sparq_get_sqe(p.q));
	store_release(&p.f.hold, 0);
	for (unsigned i = 0; i < n; i++) {
		struct sparq_cqe *cqe = NULL;

		assert_int_equal(sparq_wait(p.q, &cqe, 5 * NS_PER_S), 0);
		assert_int_equal(cqe->user_data, FAKE_HELD | i);
		sparq_seen(p.q, 1);
	}
	assert_non_null(sparq_get_sqe(p.q));
	stop(&p);
}

static void test_times_out(void **state)
{
	struct sparq_cqe *cqe = NULL;
	struct pair p = {};
	int64_t begin;

	start(&p, 1, 16);
	assert_int_equal(sparq_wait(p.q, &cqe, 0), -ETIME);
	assert_int_equal(sparq_peek(p.q, &cqe, 1), 0);
	/* For ever, with nothing on its way: the library says so instead. */
	assert_int_equal(sparq_wait(p.q, &cqe, -1), -ETIME);
	assert_int_equal(sparq_submit(p.q, 3), -ETIME);
	begin = now_ms();
	assert_int_equal(sparq_wait(p.q, &cqe, 30 * NS_PER_MS), -ETIME);
	assert_in_range(now_ms() - begin, 29, 2000);
	store_release(&p.f.hold, 1);
	put(p.q, FAKE_HELD | 3);
	assert_int_equal(sparq_submit(p.q, 0), 1);
	assert_int_equal(sparq_wait(p.q, &cqe, 30 * NS_PER_MS), -ETIME);
	assert_null(cqe);
	store_release(&p.f.hold, 0);
	put(p.q, 4);
	assert_int_equal(sparq_submit(p.q, 2), 1);
	take(p.q, FAKE_HELD | 3);
	take(p.q, 4);
	stop(&p);
}

static void on_alarm(int number) {}

static void test_interrupted(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = { .it_value.tv_usec = 20000 };
	struct sparq_cqe *cqe = NULL;
	struct pair p = {};
	sigset_t set, old;

	/* The fake's thread must not be the one that takes the signal. */
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	start(&p, 1, 16);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	sigaction(SIGALRM, &action, NULL);
	store_release(&p.f.hold, 1);
	put(p.q, FAKE_HELD);
	assert_int_equal(sparq_submit(p.q, 0), 1);
	setitimer(ITIMER_REAL, &timer, NULL);
	assert_int_equal(sparq_wait(p.q, &cqe, 5 * NS_PER_S), -EINTR);
	store_release(&p.f.hold, 0);
	put(p.q, 1);
	assert_int_equal(sparq_submit(p.q, 2), 1);
	take(p.q, FAKE_HELD);
	take(p.q, 1);
	stop(&p);
}

/* ---- event loop ------------------------------------------------------------------ */

/* The loop of sparq_submit(3): peek until it finds nothing, then sleep on the descriptor. */
static void test_event_loop(void **state)
{
	struct sparq_cqe *cqe[4];
	struct pair p = {};
	struct pollfd fd = { .events = POLLIN };
	uint64_t next = 0, sleeps = 0;

	start(&p, 1, 16);
	fd.fd = sparq_queue_fd(p.q);
	assert_true(fd.fd >= 0);
	assert_int_equal(sparq_queue_fd(p.q), fd.fd);
	while (next < 2000) {
		int n;

		put(p.q, next);
		assert_int_equal(sparq_submit(p.q, 0), 1);
		while (!(n = sparq_peek(p.q, cqe, 4))) {
			/* Armed: a wake that got lost would show as a time-out here. */
			assert_int_equal(poll(&fd, 1, 5000), 1);
			sleeps++;
		}
		assert_int_equal(n, 1);
		assert_int_equal(cqe[0]->user_data, next++);
		sparq_seen(p.q, 1);
	}
	assert_true(sleeps > 0);
	/* No work, and once a late signal is drained, no wake. */
	while (sparq_peek(p.q, cqe, 1) == 0 && poll(&fd, 1, 20) == 1)
		assert_true(sleeps++ < 4000);
	/* A wait in between, on the bell, leaves the loop as it was. */
	put(p.q, 7);
	assert_int_equal(sparq_submit(p.q, 0), 1);
	take(p.q, 7);
	put(p.q, 8);
	assert_int_equal(sparq_submit(p.q, 0), 1);
	stop(&p);
}

/* ---- queues -------------------------------------------------------------------------- */

/* A pair goes from one owner to the next in the middle of a lap, with what was in flight. */
static void test_reuse(void **state)
{
	struct pair p = {};
	sparq_queue *second = NULL, *third = NULL;

	start(&p, 2, 16);
	assert_int_equal(sparq_queue_create(p.c, NULL, &second), 0);
	assert_int_equal(sparq_queue_create(p.c, NULL, &third), -EBUSY);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 5; i++)
			put(second, i);
		assert_int_equal(sparq_submit(second, round % 5), 5);
		assert_non_null(sparq_get_sqe(second)); /* got, never submitted */
		second = sparq_queue_close(second);
		assert_int_equal(sparq_queue_create(p.c, NULL, &second), 0);
		put(second, 77);
		assert_int_equal(sparq_submit(second, 0), 1);
		take(second, 77);
	}
	sparq_queue_close(second);
	stop(&p);
}

struct worker {
	sparq_queue *q;
	uint64_t rounds;
	bool ok;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	w->ok = true;
	for (uint64_t i = 0; i < w->rounds && w->ok; i++) {
		struct sparq_sqe *e = sparq_get_sqe(w->q);
		struct sparq_cqe *cqe = NULL;

		sparq_prep_nop(e, i);
		w->ok = sparq_submit(w->q, 0) == 1 && sparq_wait(w->q, &cqe, 5 * NS_PER_S) == 0 &&
			cqe->user_data == i;
		sparq_seen(w->q, 1);
	}
	w->q = sparq_queue_close(w->q);
	return NULL;
}

/* Different queues, and control calls beside them, need no lock of the caller's. */
static void test_threads(void **state)
{
	struct worker w[3];
	pthread_t thread[3];
	const char *name;
	struct pair p = {};

	start(&p, 4, 16);
	for (unsigned i = 0; i < 3; i++) {
		w[i].rounds = 1000;
		assert_int_equal(sparq_queue_create(p.c, NULL, &w[i].q), 0);
		assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(sparq_name(p.c, "format", 0, &name), 0);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(thread[i], NULL);
		assert_true(w[i].ok);
	}
	stop(&p);
}

/* ---- death ------------------------------------------------------------------------------ */

static void *die_soon(void *arg)
{
	poll(NULL, 0, 50);
	fake_die(arg);
	return NULL;
}

/* What was in flight is reported once each, and then there is nothing but -ENOTCONN. */
static void take_the_end(sparq_queue *q, unsigned n_lost)
{
	struct sparq_cqe *cqe = NULL;
	uint64_t seen = 0;

	for (unsigned i = 0; i < n_lost; i++) {
		assert_int_equal(sparq_wait(q, &cqe, 5 * NS_PER_S), 0);
		assert_int_equal(cqe->res, -ECONNRESET);
		assert_true(cqe->user_data & FAKE_HELD);
		assert_false(seen & 1ull << (cqe->user_data & 63));
		seen |= 1ull << (cqe->user_data & 63);
		sparq_seen(q, 1);
	}
	assert_int_equal(sparq_wait(q, &cqe, 5 * NS_PER_S), -ENOTCONN);
	assert_int_equal(sparq_wait(q, &cqe, -1), -ENOTCONN);
	assert_int_equal(sparq_peek(q, &cqe, 1), -ENOTCONN);
	assert_int_equal(sparq_submit(q, 1), -ENOTCONN);
	assert_null(sparq_get_sqe(q));
}

static void test_death_in_wait(void **state)
{
	struct sparq_cqe *cqe = NULL;
	struct pair p = {};
	pthread_t thread;
	int64_t begin;

	start(&p, 1, 16);
	store_release(&p.f.hold, 1);
	for (unsigned i = 0; i < 10; i++)
		put(p.q, i % 2 ? FAKE_HELD | i : i);
	assert_int_equal(sparq_submit(p.q, 5), 10);
	for (unsigned i = 0; i < 10; i += 2)
		take(p.q, i);
	begin = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, die_soon, &p.f), 0);
	assert_int_equal(sparq_wait(p.q, &cqe, 60 * NS_PER_S), 0);
	assert_int_equal(cqe->res, -ECONNRESET);
	/* 50 until it dies, 100 at most until that is noticed, the rest is for a busy machine. */
	assert_in_range(now_ms() - begin, 49, 500);
	pthread_join(thread, NULL);
	take_the_end(p.q, 5);
	stop(&p);
}

static void test_death_before_read(void **state)
{
	struct sparq_cqe *cqe[16];
	struct pair p = {};

	start(&p, 1, 16);
	store_release(&p.f.hold, 1);
	put(p.q, 1);
	put(p.q, FAKE_HELD | 2);
	put(p.q, 3);
	put(p.q, FAKE_HELD | 4);
	assert_int_equal(sparq_submit(p.q, 2), 4);
	put(p.q, 99); /* never submitted: neither delivered nor lost */
	fake_die(&p.f);
	assert_int_equal(sparq_dispatch(p.c), -ENOTCONN);
	assert_int_equal(sparq_peek(p.q, cqe, 1), 1);
	assert_int_equal(sparq_submit(p.q, 0), -ENOTCONN);
	assert_int_equal(sparq_peek(p.q, cqe, 16), 4);
	assert_int_equal(cqe[0]->user_data, 1);
	assert_int_equal(cqe[1]->user_data, 3);
	assert_int_equal(cqe[1]->res, 4);
	assert_int_equal(cqe[2]->user_data, FAKE_HELD | 2);
	assert_int_equal(cqe[2]->res, -ECONNRESET);
	assert_int_equal(cqe[3]->user_data, FAKE_HELD | 4);
	sparq_seen(p.q, 3);
	take_the_end(p.q, 1);
	stop(&p);
}

/* Who only ever peeks has no wait in which to notice. */
static void test_death_of_polled(void **state)
{
	struct sparq_cqe *cqe = NULL;
	int64_t begin = now_ms();
	struct pair p = {};
	int n;

	start(&p, 1, 16);
	store_release(&p.f.hold, 1);
	put(p.q, FAKE_HELD | 1);
	assert_int_equal(sparq_submit(p.q, 0), 1);
	fake_die(&p.f);
	while (!(n = sparq_peek(p.q, &cqe, 1)) && now_ms() - begin < 2000)
		;
	assert_int_equal(n, 1);
	take_the_end(p.q, 1);
	stop(&p);
}

/* Submitting with a wait, and closing, while the daemon dies. */
static void test_death_in_close(void **state)
{
	int64_t begin = now_ms();
	struct pair p = {};
	pthread_t thread;

	start(&p, 2, 16);
	store_release(&p.f.hold, 1);
	put(p.q, FAKE_HELD | 1);
	assert_int_equal(pthread_create(&thread, NULL, die_soon, &p.f), 0);
	assert_int_equal(sparq_submit(p.q, 1), 1);
	p.q = sparq_queue_close(p.q);
	assert_in_range(now_ms() - begin, 0, 1000);
	pthread_join(thread, NULL);
	assert_int_equal(sparq_queue_create(p.c, NULL, &p.q), -ENOTCONN);
	stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_times_out),
		cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_event_loop),
		cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_death_in_wait),
		cmocka_unit_test(test_death_before_read),
		cmocka_unit_test(test_death_of_polled),
		cmocka_unit_test(test_death_in_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
