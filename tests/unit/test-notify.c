/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager hears, with this test in its place. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/notify.h"
#include "shm/base.h"

static int manager = -1; /* its socket */

static int setup(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t n = sizeof(sa_family_t); /* the kernel chooses an abstract name */
	char name[sizeof(a.sun_path) + 1] = "@";

	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(manager, (struct sockaddr *)&a, n), 0);
	n = sizeof(a);
	assert_int_equal(getsockname(manager, (struct sockaddr *)&a, &n), 0);
	memcpy(name + 1, a.sun_path + 1, n - sizeof(sa_family_t) - 1);
	setenv("NOTIFY_SOCKET", name, 1);
	return 0;
}

static int teardown(void **state)
{
	unsetenv("NOTIFY_SOCKET");
	close_fd(&manager);
	return 0;
}

static void hears(const char *expected)
{
	char text[512];
	ssize_t n = recv(manager, text, sizeof(text) - 1, 0);

	if (!expected) {
		assert_int_equal(n, -1);
		return;
	}
	assert_true(n >= 0);
	text[n] = '\0';
	assert_memory_equal(text, expected, strlen(expected));
}

static void test_messages(void **state)
{
	notify_ready();
	hears("READY=1");
	notify_status("serving %d clients", 3);
	hears("STATUS=serving 3 clients");
	notify_watchdog();
	hears("WATCHDOG=1");
	notify_extend(7000000);
	hears("EXTEND_TIMEOUT_USEC=7000000");
	notify_reloading();
	hears("RELOADING=1\nMONOTONIC_USEC=");
	notify_stopping();
	hears("STOPPING=1");
	hears(NULL);
	unsetenv("NOTIFY_SOCKET");
	notify_ready();
	hears(NULL);
}

static void test_watchdog(void **state)
{
	char pid[16];

	assert_int_equal(notify_watchdog_ns(), 0);
	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("WATCHDOG_PID", pid, 1);
	setenv("WATCHDOG_USEC", "30000000", 1);
	assert_int_equal(notify_watchdog_ns(), 30000000000);
	setenv("WATCHDOG_PID", "1", 1); /* somebody else's */
	assert_int_equal(notify_watchdog_ns(), 0);
	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
}

static void test_descriptors(void **state)
{
	char control[CMSG_SPACE(sizeof(int) * 8)] __attribute__((aligned(16))), text[64];
	struct iovec data = { text, sizeof(text) };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fds[2] = { STDIN_FILENO, manager }, many[NOTIFY_MOST_FDS + 1] = { 0 };

	assert_int_equal(notify_send("FDSTORE=1", fds, 2), 1);
	assert_int_equal(recvmsg(manager, &m, 0), 9);
	assert_memory_equal(text, "FDSTORE=1", 9);
	c = CMSG_FIRSTHDR(&m);
	assert_non_null(c);
	assert_int_equal(c->cmsg_type, SCM_RIGHTS);
	assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(int) * 2));
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(notify_send("FDSTORE=1", many, NOTIFY_MOST_FDS + 1), -E2BIG);
}

/* The status is one line, whatever a name in it has: another line would be another message. */
static void test_status_is_a_line(void **state)
{
	notify_status("refused: %s", "a\nREADY=1");
	hears("STATUS=refused: a READY=1");
}

/* What the daemon tells its clients after a barrier may rely on what it sent before. */
static void test_barrier(void **state)
{
	char text[64];
	pid_t child;
	int status;

	assert_int_equal(notify_barrier(20), -ETIMEDOUT); /* nobody reads */
	hears("BARRIER=1"); /* received without its descriptor, which the kernel closes */
	child = fork();
	if (child == 0)
		_exit(notify_barrier(10000) == 1 ? 0 : 1);
	while (recv(manager, text, sizeof(text), 0) < 0)
		usleep(1000);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* A manager that is gone is an error, one that never was is none; and what cannot be an address. */
static void test_addresses(void **state)
{
	close_fd(&manager);
	assert_int_equal(notify_watchdog(), -ECONNREFUSED);
	setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
	assert_int_equal(notify_watchdog(), -ENOENT);
	setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
	assert_int_equal(notify_watchdog(), -EAFNOSUPPORT);
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_watchdog(), 0);
	assert_int_equal(notify_barrier(1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_status_is_a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_barrier, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
		cmocka_unit_test(test_watchdog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
