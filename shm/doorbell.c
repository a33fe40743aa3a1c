/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two handshakes of sparq-protocol(7), SLEEPING AND WAKING.
 *
 * Both are the store-buffer test with a fence on each side: the sleeper stores
 * its word, fences and looks at the ring; the waker stores into the ring,
 * fences and looks at the word. At least one sees the other. The signal itself
 * is sticky (an eventfd's count, a bell that differs from the value the futex
 * compares), so one sent before the sleeper sleeps still ends the sleep; only
 * that makes it right to send it once. tests/model proves it and shows what
 * breaks when a piece is missing.
 */
#include "shm/clock.h"
#include "shm/doorbell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Looks without a pause: an answer that is one cache-line round trip away is not made to wait. */
#define SPIN_LOOKS 64
/* Then with pause, then sched_yield: on one CPU the peer needs it. */
#define PAUSE_NS 2000
#define PAUSES_PER_CLOCK 8
/* After a time-out that found work: the waker may be between its store and its wake. */
#define GRACE_NS 20000000

static uint64_t lost_wakes; /* of this process */

/* Shared, not private: the other side is another process. 0 woken or the value differs. */
static int futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
	struct timespec t = { timeout_ns / NS_PER_S, timeout_ns % NS_PER_S };

	if (syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0) == 0 || errno == EAGAIN)
		return 0;
	return -errno;
}

static void futex_wake(uint32_t *word, int n)
{
	syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}

/* 1, also when the count is at its maximum: then it is readable all the same. */
static int eventfd_ring(int fd)
{
	uint64_t one = 1;
	ssize_t n;

	do {
		n = write(fd, &one, sizeof(one));
	} while (n < 0 && errno == EINTR);
	return n < 0 && errno != EAGAIN ? -errno : 1;
}

/* ---- client rings the daemon -------------------------------------------- */

int doorbell_ring_slow(struct doorbell *d, uint32_t epoch, bool cold)
{
	bool unheard = epoch != 0 && epoch != d->last_epoch;
	int r;

	/* One write lasts for an epoch: the daemon announces the next one before it scans again. A
	 * cold ring has no epochs: going cold, warm and cold again looks the same from here. */
	if (!unheard && !cold)
		return 0;
	r = eventfd_ring(d->fd);
	if (r > 0 && epoch != 0)
		d->last_epoch = epoch;
	return r;
}

/* ---- daemon sleeps and wakes -------------------------------------------- */

void sleeper_announce(struct sleeper *s)
{
	if (++s->epoch == 0)
		s->epoch = 1;
	store_relaxed(&s->poller->sleep_epoch, s->epoch);
	/* The epoch is visible to whoever publishes after this, or the publish is visible to the
	 * scan that the caller makes now. */
	fence_seq_cst();
}

void sleeper_cancel(struct sleeper *s)
{
	/* Orders nothing: a client that still sees the epoch rings once too often. */
	store_relaxed(&s->poller->sleep_epoch, 0);
}

/* ---- client sleeps ------------------------------------------------------ */

struct wait {
	struct sparq_ring_ctl *ctl;
	int64_t deadline_ns; /* INT64_MAX: none */
	bool (*ready)(void *arg);
	bool (*alive)(void *arg);
	void *arg;
};

/* True if it became ready within `spin_ns`. */
static bool wait_spin(const struct wait *w, uint32_t spin_ns, bool same_cpu)
{
	int64_t start_ns = clock_now_ns(), spent_ns = 0;

	while (spent_ns < spin_ns && start_ns + spent_ns < w->deadline_ns) {
		bool yield = same_cpu || spent_ns >= PAUSE_NS;

		if (yield)
			sched_yield();
		for (unsigned i = 0; i < (yield ? 1 : PAUSES_PER_CLOCK); i++) {
			if (w->ready(w->arg))
				return true;
			cpu_pause();
		}
		spent_ns = clock_now_ns() - start_ns;
	}
	return false;
}

/* A sleep that timed out although there is work. Woken late is no loss: if a wake is on its way it
 * moves the bell or clears cq_need within a pass of the daemon. */
static void count_if_lost(const struct wait *w, uint32_t bell)
{
	if (futex_wait(&w->ctl->cq_bell, bell, GRACE_NS) != -ETIMEDOUT)
		return;
	if (load_relaxed(&w->ctl->cq_need) != 0)
		__atomic_fetch_add(&lost_wakes, 1, __ATOMIC_RELAXED);
}

/* One announced sleep of at most `slice_ns`: 1 ready, 0 not yet, -EINTR. */
static int wait_sleep(const struct wait *w, int64_t slice_ns)
{
	/* Before cq_need: a wake for this announcement is one that moves the bell from here. */
	uint32_t bell = load_acquire(&w->ctl->cq_bell);
	bool found;
	int r = 0;

	store_relaxed(&w->ctl->cq_need, 1);
	/* cq_need is visible to the daemon's check after its next completion, or that completion is
	 * visible to the look below. */
	fence_seq_cst();
	if (!w->ready(w->arg) && load_relaxed(&w->ctl->fatal) == 0) {
		r = futex_wait(&w->ctl->cq_bell, bell, slice_ns);
		if (r == -ETIMEDOUT && w->ready(w->arg))
			count_if_lost(w, bell);
	}
	/* Orders nothing: a daemon that still sees 1 wakes once too often, and the bell's new value
	 * ends a later sleep early, which looks and sleeps again. */
	store_relaxed(&w->ctl->cq_need, 0);
	found = w->ready(w->arg);
	return found ? 1 : r == -EINTR ? -EINTR : 0;
}

/* Spun in vain: sleeps, slice by slice. */
static int wait_slices(const struct wait *w)
{
	for (;;) {
		int64_t left_ns = w->deadline_ns - clock_now_ns();
		int r;

		/* The completions that came before it are seen before it. */
		if (load_acquire(&w->ctl->fatal) != 0)
			return w->ready(w->arg) ? 1 : -ENOTCONN;
		if (left_ns <= 0)
			return w->ready(w->arg) ? 1 : 0;
		r = wait_sleep(w, MIN(left_ns, WAITER_SLICE_NS));
		if (r != 0)
			return r;
		if (w->alive && !w->alive(w->arg))
			return w->ready(w->arg) ? 1 : -ENOTCONN;
	}
}

/* The clock is first read when the looks were in vain: it costs a fifth of a round trip. */
int waiter_wait(struct sparq_ring_ctl *ctl, uint32_t spin_ns, bool same_cpu, int64_t timeout_ns,
		bool (*ready)(void *arg), bool (*alive)(void *arg), void *arg)
{
	struct wait w = { .ctl = ctl, .ready = ready, .alive = alive, .arg = arg };
	unsigned looks = same_cpu || spin_ns == 0 || timeout_ns == 0 ? 1 : SPIN_LOOKS;

	for (unsigned i = 0; i < looks; i++)
		if (ready(arg))
			return 1;
	if (timeout_ns == 0)
		return 0;
	if (timeout_ns < 0 || __builtin_add_overflow(clock_now_ns(), timeout_ns, &w.deadline_ns))
		w.deadline_ns = INT64_MAX;
	if (wait_spin(&w, spin_ns, same_cpu))
		return 1;
	return wait_slices(&w);
}

void waiter_arm(struct sparq_ring_ctl *ctl)
{
	store_relaxed(&ctl->cq_need, 2);
	/* As in wait_sleep: the caller looks once more after this. */
	fence_seq_cst();
}

uint64_t waiter_lost_wakes(void)
{
	return __atomic_load_n(&lost_wakes, __ATOMIC_RELAXED);
}

/* ---- daemon wakes the client -------------------------------------------- */

int waiter_pair(int *ret_daemon, int *ret_client)
{
	int pair[2], least = 1; /* the kernel raises it to what it needs */

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	/* What a client leaves unread, or sends, the daemon would have to hold. */
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
	shutdown(pair[0], SHUT_RD);
	*ret_daemon = pair[0];
	*ret_client = pair[1];
	return 0;
}

/* Full is as good as rung; nobody there is the client's own affair. */
static void queue_ring(int fd)
{
	uint64_t one = 1;

	while (send(fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

static void ring_bell(struct sparq_ring_ctl *ctl, int n)
{
	/* Moved before the wake: a client that has not reached the kernel finds it moved there. */
	fetch_add(&ctl->cq_bell, 1);
	futex_wake(&ctl->cq_bell, n);
}

int waiter_wake(struct sparq_ring_ctl *ctl, int queue_fd)
{
	uint32_t need;

	/* The completions are visible to the client's last look, or its cq_need is visible here. */
	fence_seq_cst();
	if (likely(load_relaxed(&ctl->cq_need) == 0))
		return 0;
	/* Taken, so that one announcement costs one wake. Any value is the client's own affair. */
	need = exchange(&ctl->cq_need, 0);
	if (need == 0)
		return 0;
	if (need == 2 && queue_fd >= 0)
		queue_ring(queue_fd);
	else
		ring_bell(ctl, 1);
	return 1;
}

void waiter_abort(struct sparq_ring_ctl *ctl, uint32_t fatal, int queue_fd)
{
	/* The completions are visible before the error, the error before the bell. */
	store_release(&ctl->fatal, fatal);
	ring_bell(ctl, INT_MAX);
	if (queue_fd >= 0)
		queue_ring(queue_fd);
}

/* ---- what a wake costs -------------------------------------------------- */

#define ROUNDS 64
#define ROUND_LIMIT_NS (50 * 1000 * 1000)

struct pair {
	uint32_t ping, pong;
};

static void pair_await(uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = load_acquire(word)) != value)
		futex_wait(word, seen, ROUND_LIMIT_NS);
}

static void pair_send(uint32_t *word, uint32_t value)
{
	store_release(word, value);
	futex_wake(word, 1);
}

static void *pair_answer(void *arg)
{
	struct pair *p = arg;

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		pair_await(&p->ping, i);
		pair_send(&p->pong, i);
	}
	return NULL;
}

static int compare_ns(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

uint32_t measure_wake_ns(void)
{
	int64_t round_ns[ROUNDS];
	struct pair p = { 0, 0 };
	pthread_t thread;

	if (pthread_create(&thread, NULL, pair_answer, &p) != 0)
		return 50000; /* no thread: an ordinary value */
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		int64_t start_ns = clock_now_ns();

		pair_send(&p.ping, i);
		pair_await(&p.pong, i);
		round_ns[i - 1] = clock_now_ns() - start_ns;
	}
	pthread_join(thread, NULL);
	qsort(round_ns, ROUNDS, sizeof(round_ns[0]), compare_ns);
	return (uint32_t)MIN(round_ns[ROUNDS / 2], UINT32_MAX);
}
