/* SPDX-License-Identifier: Apache-2.0 */
/* The control loop, with both back ends. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/loop.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS 1000000ll

struct probe {
	struct loop *loop;
	struct loop_source source, *victim;
	struct loop_timer timer;
	unsigned calls;
	uint32_t events;
	bool drain;
};

static int open_loop(void **state)
{
	struct loop *l = NULL;
	/* cmocka hands the group's choice through *state. */
	enum loop_kind kind = *(enum loop_kind *)*state;
	int r = loop_new(kind, &l);

	assert_int_equal(r, 0);
	assert_string_equal(loop_name(l), kind == LOOP_URING ? "io_uring" : "epoll");
	*state = l;
	return 0;
}

static int close_loop(void **state)
{
	*state = loop_free(*state);
	return 0;
}

static void on_event(void *arg, uint32_t events)
{
	struct probe *p = arg;
	uint64_t n;

	p->calls++;
	p->events = events;
	if (p->drain)
		assert_int_equal(read(p->source.fd, &n, sizeof(n)), sizeof(n));
	if (p->victim != NULL)
		loop_remove(p->loop, p->victim);
}

static void on_timer(void *arg)
{
	struct probe *p = arg;

	p->calls++;
}

static int event_fd(unsigned count)
{
	int fd = eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

/* A peer handles one message a call and relies on being called again for the rest. */
static void test_level(void **state)
{
	struct loop *l = *state;
	struct probe p = { .loop = l };
	int fd = event_fd(1);

	assert_int_equal(loop_add(l, &p.source, fd, POLLIN, on_event, &p), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(loop_step(l, 1000 * MS), 0);
	assert_int_equal(p.calls, 3);
	p.drain = true;
	assert_int_equal(loop_step(l, 1000 * MS), 0);
	assert_int_equal(loop_step(l, 5 * MS), 0);
	assert_int_equal(p.calls, 4);
	loop_remove(l, &p.source);
	close(fd);
}

/* A peer that is being torn down must not be called with an event fetched before. */
static void test_remove_in_callback(void **state)
{
	struct loop *l = *state;
	struct probe a = { .loop = l }, b = { .loop = l };
	int fd_a = event_fd(1), fd_b = event_fd(1);

	assert_int_equal(loop_add(l, &a.source, fd_a, POLLIN, on_event, &a), 0);
	assert_int_equal(loop_add(l, &b.source, fd_b, POLLIN, on_event, &b), 0);
	a.victim = &b.source;
	b.victim = &a.source;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(loop_step(l, 5 * MS), 0);
	assert_int_equal(MIN(a.calls, b.calls), 0);
	assert_int_equal(a.source.fd<0, b.calls> 0);
	loop_remove(l, &a.source);
	loop_remove(l, &b.source);
	close(fd_a);
	close(fd_b);
}

static void test_remove_itself(void **state)
{
	struct loop *l = *state;
	struct probe p = { .loop = l };
	int fd = event_fd(1);

	for (unsigned i = 0; i < 100; i++) { /* slots are used again */
		p.victim = &p.source;
		assert_int_equal(loop_add(l, &p.source, fd, POLLIN, on_event, &p), 0);
		assert_int_equal(loop_step(l, 1000 * MS), 0);
		assert_int_equal(loop_step(l, 0), 0);
		assert_int_equal(p.calls, i + 1);
	}
	close(fd);
}

/* A peer with an unsent reply stops reading and waits for room. */
static void test_change(void **state)
{
	struct loop *l = *state;
	struct probe p = { .loop = l };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(loop_add(l, &p.source, pair[0], POLLIN, on_event, &p), 0);
	assert_int_equal(loop_step(l, 5 * MS), 0);
	assert_int_equal(p.calls, 0);
	assert_int_equal(loop_change(l, &p.source, POLLOUT), 0);
	assert_int_equal(loop_step(l, 1000 * MS), 0);
	assert_int_equal(p.calls, 1);
	assert_true(p.events & POLLOUT);
	assert_int_equal(loop_change(l, &p.source, 0), 0);
	assert_int_equal(loop_step(l, 5 * MS), 0);
	assert_int_equal(p.calls, 1);
	/* Death is heard even by who asks for nothing. */
	close(pair[1]);
	assert_int_equal(loop_step(l, 1000 * MS), 0);
	assert_int_equal(p.calls, 2);
	assert_true(p.events & POLLHUP);
	loop_remove(l, &p.source);
	close(pair[0]);
}

static void test_timers(void **state)
{
	struct loop *l = *state;
	struct probe a = { 0 }, b = { 0 }, c = { 0 };
	uint64_t begin = clock_now_ns();

	loop_timer_set(l, &b.timer, 20 * MS, on_timer, &b);
	loop_timer_set(l, &a.timer, 5 * MS, on_timer, &a);
	loop_timer_set(l, &c.timer, 1 * MS, on_timer, &c);
	loop_timer_cancel(l, &c.timer);
	while (a.calls == 0)
		assert_int_equal(loop_step(l, -1), 0);
	assert_true(clock_now_ns() - begin >= 5 * MS);
	assert_int_equal(b.calls, 0);
	loop_timer_set(l, &b.timer, 1 * MS, on_timer, &b); /* moved, not doubled */
	while (b.calls == 0)
		assert_int_equal(loop_step(l, -1), 0);
	assert_int_equal(loop_step(l, 30 * MS), 0);
	assert_int_equal(b.calls, 1);
	assert_int_equal(c.calls, 0);
}

static void test_many(void **state)
{
	enum { N = 400 }; /* more than one batch, more than the rings have entries */
	static struct probe p[N];
	struct loop *l = *state;
	unsigned calls = 0;
	int fd[N];

	for (unsigned i = 0; i < N; i++) {
		p[i] = (struct probe){ .loop = l, .drain = true };
		fd[i] = event_fd(1);
		assert_int_equal(loop_add(l, &p[i].source, fd[i], POLLIN, on_event, &p[i]), 0);
	}
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(loop_step(l, 5 * MS), 0);
	for (unsigned i = 0; i < N; i++) {
		calls += p[i].calls;
		loop_remove(l, &p[i].source);
		close(fd[i]);
	}
	assert_int_equal(calls, N);
}

/* SIGTERM and SIGHUP come as events. */
static void test_signal(void **state)
{
	struct signalfd_siginfo info;
	struct loop *l = *state;
	struct probe p = { .loop = l };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	assert_int_equal(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	assert_int_equal(loop_add(l, &p.source, fd, POLLIN, on_event, &p), 0);
	assert_int_equal(loop_step(l, 1 * MS), 0);
	kill(getpid(), SIGUSR1);
	assert_int_equal(loop_step(l, 1000 * MS), 0);
	assert_int_equal(p.calls, 1);
	assert_int_equal(read(fd, &info, sizeof(info)), sizeof(info));
	loop_remove(l, &p.source);
	close(fd);
}

static void stop(void *arg)
{
	loop_stop(arg, 7);
}

static void test_stop(void **state)
{
	struct loop_timer t = LOOP_TIMER_NULL;
	struct loop *l = *state;

	loop_timer_set(l, &t, 1 * MS, stop, l);
	assert_int_equal(loop_run(l), 7);
}

/* An idle daemon uses no CPU: a loop with nothing to do must not turn. */
static void test_idle(void **state)
{
	struct loop *l = *state;
	struct probe p = { .loop = l };
	struct tms before, after;
	int fd = event_fd(0);

	assert_int_equal(loop_add(l, &p.source, fd, POLLIN, on_event, &p), 0);
	times(&before);
	assert_int_equal(loop_step(l, 200 * MS), 0);
	times(&after);
	assert_true(after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime <= 2);
	loop_remove(l, &p.source);
	close(fd);
}

/* In a container io_uring_setup fails with EPERM: the loop must be epoll's then, and say why. */
static int fallback_child(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };
	struct loop *l;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return 1;
	if (loop_new(LOOP_URING, &l) != -EPERM)
		return 2;
	if (loop_new(LOOP_BEST, &l) < 0)
		return 3;
	if (strcmp(loop_name(l), "epoll") != 0 || loop_fallback(l) != -EPERM)
		return 4;
	loop_free(l);
	return 0;
}

static void test_fallback(void **state)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(fallback_child());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#define WITH(kind, test)                                                                           \
	{                                                                                          \
#test " (" #kind ")", test, open_loop, close_loop, &kind                           \
	}
#define ALL(kind)                                                                                  \
	WITH(kind, test_level), WITH(kind, test_remove_in_callback),                               \
		WITH(kind, test_remove_itself), WITH(kind, test_change), WITH(kind, test_timers),  \
		WITH(kind, test_many), WITH(kind, test_signal), WITH(kind, test_stop),             \
		WITH(kind, test_idle)

int main(void)
{
	static enum loop_kind io_uring = LOOP_URING, epoll = LOOP_EPOLL;
	const struct CMUnitTest on_epoll[] = { ALL(epoll), cmocka_unit_test(test_fallback) };
	const struct CMUnitTest on_uring[] = { ALL(io_uring) };
	struct loop *l;
	int failed = cmocka_run_group_tests(on_epoll, NULL, NULL);

	if (loop_new(LOOP_URING, &l) < 0) {
		print_message("io_uring is not allowed here: only epoll was tested\n");
		return failed;
	}
	loop_free(l);
	return failed + cmocka_run_group_tests(on_uring, NULL, NULL);
}
