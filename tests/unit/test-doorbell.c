/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and waking. Everybody relies on it that nobody sleeps while there
 * is work for him: the model proves the protocol, this runs the code, with
 * every sleep, every spin budget and no budget at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base.h"
#include "shm/doorbell.h"
#include "shm/ring.h"

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t drain(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* ---- the eventfd, step by step ------------------------------------------ */

static void test_rings_once_per_epoch(void **state)
{
	struct sparq_poller poller = { 0 };
	struct sparq_ring_ctl ctl = { 0 };
	struct doorbell d = { &poller, &ctl, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 0 };
	struct sleeper s = { .poller = &poller };

	assert_int_equal(doorbell_ring(&d), 0);
	for (unsigned epoch = 1; epoch < 5; epoch++) {
		sleeper_announce(&s);
		assert_int_equal(poller.sleep_epoch, epoch);
		assert_int_equal(doorbell_ring(&d), 1);
		assert_int_equal(doorbell_ring(&d), 0);
		assert_int_equal(drain(d.fd), 1);
		sleeper_cancel(&s);
		assert_int_equal(poller.sleep_epoch, 0);
		assert_int_equal(doorbell_ring(&d), 0);
	}
	s.epoch = UINT32_MAX;
	sleeper_announce(&s);
	assert_int_equal(poller.sleep_epoch, 1); /* 0 means awake */
	close(d.fd);
}

/* Cold, warm, cold again looks the same to a client that did not look in between: no epochs. */
static void test_cold_ring_is_rung_every_time(void **state)
{
	struct sparq_poller poller = { 0 };
	struct sparq_ring_ctl ctl = { .sq_cold = 1 };
	struct doorbell d = { &poller, &ctl, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 0 };

	assert_int_equal(doorbell_ring(&d), 1);
	assert_int_equal(doorbell_ring(&d), 1);
	poller.sleep_epoch = 3;
	assert_int_equal(doorbell_ring(&d), 1);
	ctl.sq_cold = 0;
	assert_int_equal(doorbell_ring(&d), 0); /* the epoch was rung in */
	assert_int_equal(drain(d.fd), 3);
	close(d.fd);
}

static void test_full_or_closed_eventfd(void **state)
{
	struct sparq_poller poller = { .sleep_epoch = 1 };
	struct sparq_ring_ctl ctl = { 0 };
	struct doorbell d = { &poller, &ctl, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 0 };
	uint64_t most = UINT64_MAX - 1;

	assert_int_equal(write(d.fd, &most, sizeof(most)), sizeof(most));
	assert_int_equal(doorbell_ring(&d), 1); /* readable, which is all that counts */
	close(d.fd);
	poller.sleep_epoch = 2;
	assert_int_equal(doorbell_ring(&d), -EBADF);
	assert_int_equal(doorbell_ring(&d), -EBADF); /* not taken for rung */
}

/* ---- the bell, step by step --------------------------------------------- */

static bool never(void *arg)
{
	return false;
}

static bool is_set(void *arg)
{
	return load_acquire((uint32_t *)arg) != 0;
}

/* A client that clears O_NONBLOCK, reads nothing and has the daemon ring for ever: it never blocks,
 * nor is it killed when the other end is gone. */
static void test_queue_cannot_block(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	int fd, end, flags;

	assert_int_equal(waiter_pair(&fd, &end), 0);
	flags = fcntl(end, F_GETFL);
	assert_true(flags & O_NONBLOCK);
	assert_int_equal(fcntl(end, F_SETFL, flags & ~O_NONBLOCK), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	for (unsigned i = 0; i < 100000; i++) {
		ctl.cq_need = 2;
		assert_int_equal(waiter_wake(&ctl, fd), 1);
	}
	assert_int_equal(drain(end), 1);
	assert_int_equal(send(end, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	close(end);
	ctl.cq_need = 2;
	assert_int_equal(waiter_wake(&ctl, fd), 1);
	close(fd);
}

static void test_wake_only_who_asks(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	int fd, end;

	assert_int_equal(waiter_pair(&fd, &end), 0);
	assert_int_equal(waiter_wake(&ctl, fd), 0);
	assert_int_equal(ctl.cq_bell, 0);
	ctl.cq_need = 1;
	assert_int_equal(waiter_wake(&ctl, fd), 1);
	assert_int_equal(ctl.cq_need, 0);
	assert_int_equal(ctl.cq_bell, 1);
	assert_int_equal(waiter_wake(&ctl, fd), 0);
	assert_int_equal(drain(end), 0);

	waiter_arm(&ctl);
	assert_int_equal(ctl.cq_need, 2);
	assert_int_equal(waiter_wake(&ctl, fd), 1);
	assert_int_equal(ctl.cq_need, 0);
	assert_int_equal(ctl.cq_bell, 1);
	assert_int_equal(drain(end), 1);

	/* Nonsense is the client's own affair: it is woken some way. */
	ctl.cq_need = 2;
	assert_int_equal(waiter_wake(&ctl, -1), 1);
	assert_int_equal(ctl.cq_bell, 2);
	ctl.cq_need = 0xffffffff;
	assert_int_equal(waiter_wake(&ctl, fd), 1);
	assert_int_equal(ctl.cq_bell, 3);
	assert_int_equal(ctl.cq_need, 0);
	close(fd);
	close(end);
}

static void test_wait_times_out(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	int64_t start = now_ns();

	assert_int_equal(waiter_wait(&ctl, 20000, false, 0, never, NULL, NULL), 0);
	assert_int_equal(waiter_wait(&ctl, 20000, false, 5000000, never, NULL, NULL), 0);
	assert_in_range(now_ns() - start, 5000000, 2000000000);
	assert_int_equal(waiter_wait(&ctl, 0, true, 150000000, never, NULL, NULL), 0);
	assert_int_equal(ctl.cq_need, 0);
	assert_int_equal(waiter_lost_wakes(), 0);
}

static void test_wait_sees_what_is_there(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	uint32_t one = 1;

	assert_int_equal(waiter_wait(&ctl, 0, false, 0, is_set, NULL, &one), 1);
	assert_int_equal(waiter_wait(&ctl, 0, false, -1, is_set, NULL, &one), 1);
	assert_int_equal(ctl.cq_need, 0);
}

static void test_wait_notices_a_dead_daemon(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	int64_t start = now_ns();

	assert_int_equal(waiter_wait(&ctl, 0, false, -1, never, never, NULL), -ENOTCONN);
	assert_in_range(now_ns() - start, WAITER_SLICE_NS, 20ll * WAITER_SLICE_NS);
}

static void test_wait_ends_at_fatal(void **state)
{
	struct sparq_ring_ctl ctl = { .fatal = EPROTO };
	uint32_t one = 1;

	assert_int_equal(waiter_wait(&ctl, 0, false, -1, never, NULL, NULL), -ENOTCONN);
	/* What was completed before is still delivered. */
	assert_int_equal(waiter_wait(&ctl, 0, false, -1, is_set, NULL, &one), 1);
}

static void *abort_later(void *arg)
{
	struct sparq_ring_ctl *ctl = arg;

	while (load_relaxed(&ctl->cq_need) == 0)
		;
	waiter_abort(ctl, EPROTO, -1);
	return NULL;
}

static void test_abort_wakes_at_once(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	pthread_t thread;
	int64_t start = now_ns();

	pthread_create(&thread, NULL, abort_later, &ctl);
	assert_int_equal(waiter_wait(&ctl, 0, false, -1, never, NULL, NULL), -ENOTCONN);
	assert_true(now_ns() - start < WAITER_SLICE_NS);
	assert_int_equal(ctl.fatal, EPROTO);
	pthread_join(thread, NULL);
}

static void on_signal(int number)
{
}

static void *interrupt_later(void *arg)
{
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	pthread_kill(*(pthread_t *)arg, SIGUSR1);
	return NULL;
}

static void test_wait_is_interrupted(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sparq_ring_ctl ctl = { 0 };
	pthread_t thread, self = pthread_self();

	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, interrupt_later, &self);
	assert_int_equal(waiter_wait(&ctl, 0, false, -1, never, NULL, NULL), -EINTR);
	assert_int_equal(ctl.cq_need, 0);
	pthread_join(thread, NULL);
}

/* The positive control of every "0 lost": a waker that never looks at cq_need is found out. */
static bool becomes_ready(void *arg)
{
	return now_ns() > *(int64_t *)arg;
}

static void test_lost_wake_is_counted(void **state)
{
	struct sparq_ring_ctl ctl = { 0 };
	int64_t at = now_ns() + 10000000;

	assert_int_equal(waiter_lost_wakes(), 0);
	assert_int_equal(waiter_wait(&ctl, 0, false, 20000000, becomes_ready, NULL, &at), 1);
	assert_int_equal(waiter_lost_wakes(), 1);
}

static void test_wake_cost(void **state)
{
	assert_in_range(measure_wake_ns(), 500, 100000000);
}

/* ---- ring and doorbell together ----------------------------------------- */

#define SQ 8u
#define CQ 16u
#define STRESS_NS 250000000

struct pair {
	struct sparq_ring_ctl ctl;
	struct sparq_sqe sq[SQ];
	struct sparq_cqe cq[CQ];
	struct sparq_poller poller;
	struct ring_map map;
	int bell, queue_fd, client_fd;
	uint32_t spin_ns;
	bool by_eventfd;
	uint32_t stop;
	uint64_t served, sleeps, lost, wrong;
};

static uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

static void random_gap(uint32_t *state)
{
	uint32_t r = random_next(state);

	if (r % 8 == 0)
		nanosleep(&(struct timespec){ .tv_nsec = r % 60000 }, NULL);
	else
		for (unsigned i = r % 256; i > 0; i--)
			cpu_pause();
}

static unsigned daemon_pass(struct pair *p, struct ring_daemon *r)
{
	struct sparq_sqe e;
	unsigned n = 0;

	while (n < 4 && ring_daemon_copy(r, &e) == 1) {
		ring_daemon_post(r, &(struct sparq_cqe){ .user_data = e.user_data, .res = 1 });
		n++;
	}
	ring_daemon_tell(r, n == 0);
	if (n > 0)
		waiter_wake(&p->ctl, p->queue_fd);
	return n;
}

/* Sleeps up to a second, far longer than any gap: a time-out that finds work is a loss. */
static void daemon_sleep(struct pair *p, struct ring_daemon *r, struct sleeper *s)
{
	struct pollfd fd = { .fd = p->bell, .events = POLLIN };
	unsigned n;
	int woken;

	sleeper_announce(s);
	n = daemon_pass(p, r);
	p->served += n;
	if (n == 0 && !load_acquire(&p->stop)) {
		p->sleeps++;
		woken = poll(&fd, 1, 1000);
		drain(p->bell);
		sleeper_cancel(s);
		n = daemon_pass(p, r);
		p->served += n;
		fetch_add(&p->lost, woken == 0 && n > 0);
	}
	sleeper_cancel(s);
}

static void *daemon_main(void *arg)
{
	struct pair *p = arg;
	struct sleeper s = { .poller = &p->poller };
	struct ring_daemon r;
	unsigned idle = 0;

	ring_daemon_init(&r, &p->map);
	while (!load_acquire(&p->stop)) {
		unsigned n = daemon_pass(p, &r);

		p->served += n;
		idle = n > 0 ? 0 : idle + 1;
		if (idle > p->spin_ns / 100)
			daemon_sleep(p, &r, &s);
	}
	return NULL;
}

static bool has_completion(void *arg)
{
	return ring_client_peek(arg, 0) != NULL;
}

/* One wait of the client, either way. */
static void client_wait(struct pair *p, struct ring_client *r, struct doorbell *d)
{
	struct pollfd fd = { .fd = p->client_fd, .events = POLLIN };

	if (ring_client_tell(r))
		doorbell_ring(d);
	if (!p->by_eventfd) {
		p->wrong += waiter_wait(&p->ctl, p->spin_ns, false, 2000000000, has_completion,
					NULL, r) != 1;
		return;
	}
	waiter_arm(&p->ctl);
	if (!has_completion(r) && poll(&fd, 1, 1000) == 0)
		fetch_add(&p->lost, has_completion(r));
	drain(p->client_fd);
}

/* Bursts that fill the SQ and leave completions unread, so that entries wait for credit too. */
static uint64_t client_run(struct pair *p, uint32_t seed)
{
	struct doorbell d = { &p->poller, &p->ctl, p->bell, 0 };
	int64_t end = now_ns() + STRESS_NS;
	uint64_t sent = 0, seen = 0;
	struct ring_client r;

	ring_client_init(&r, &p->map);
	while (now_ns() < end || seen < sent) {
		struct sparq_sqe *e;
		struct sparq_cqe *c;
		unsigned burst = now_ns() < end ? random_next(&seed) % (4 * SQ) : 0;

		for (; burst > 0 && (e = ring_client_get(&r)); burst--) {
			e->user_data = sent++;
			if (random_next(&seed) % 2 && ring_client_publish(&r))
				doorbell_ring(&d);
		}
		if (ring_client_publish(&r))
			doorbell_ring(&d);
		random_gap(&seed);
		/* Not always to the last one: unread completions are what takes the credit away. */
		while ((seen + CQ < sent || random_next(&seed) % 16) &&
		       (c = ring_client_peek(&r, 0))) {
			p->wrong += c->user_data != seen++;
			if (ring_client_seen(&r, 1))
				doorbell_ring(&d);
		}
		if (seen < sent && !has_completion(&r))
			client_wait(p, &r, &d);
		if (p->wrong || load_relaxed(&p->lost))
			break;
	}
	return seen;
}

static void stress(uint32_t spin_ns, bool by_eventfd)
{
	struct pair *p = calloc(1, sizeof(*p));
	uint64_t lost_before = waiter_lost_wakes(), seen, one = 1;
	pthread_t thread;

	p->map = (struct ring_map){ &p->ctl, p->sq, p->cq, SQ, CQ };
	p->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(waiter_pair(&p->queue_fd, &p->client_fd), 0);
	p->spin_ns = spin_ns;
	p->by_eventfd = by_eventfd;
	pthread_create(&thread, NULL, daemon_main, p);
	seen = client_run(p, 0x9e3779b9u + spin_ns);
	store_release(&p->stop, 1);
	assert_int_equal(write(p->bell, &one, sizeof(one)), sizeof(one));
	pthread_join(thread, NULL);
	print_message("spin %u ns, %s: %lu entries, %lu daemon sleeps\n", spin_ns,
		      by_eventfd ? "eventfd" : "futex", seen, p->sleeps);
	assert_int_equal(p->wrong, 0);
	assert_int_equal(p->lost, 0);
	assert_int_equal(waiter_lost_wakes(), lost_before);
	assert_int_equal(seen, p->served);
	assert_true(seen > 100);
	close(p->bell);
	close(p->queue_fd);
	close(p->client_fd);
	free(p);
}

static void test_stress(void **state)
{
	stress(0, false);
	stress(5000, false);
	stress(40000, false);
	stress(0, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rings_once_per_epoch),
		cmocka_unit_test(test_cold_ring_is_rung_every_time),
		cmocka_unit_test(test_full_or_closed_eventfd),
		cmocka_unit_test(test_queue_cannot_block),
		cmocka_unit_test(test_wake_only_who_asks),
		cmocka_unit_test(test_wait_times_out),
		cmocka_unit_test(test_wait_sees_what_is_there),
		cmocka_unit_test(test_wait_notices_a_dead_daemon),
		cmocka_unit_test(test_wait_ends_at_fatal),
		cmocka_unit_test(test_abort_wakes_at_once),
		cmocka_unit_test(test_wait_is_interrupted),
		cmocka_unit_test(test_lost_wake_is_counted),
		cmocka_unit_test(test_wake_cost),
		cmocka_unit_test(test_stress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
