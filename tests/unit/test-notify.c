/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager hears and hands over, with this test in its place. */
#include <fcntl.h>
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

/* Two listening sockets and something else, in any order, at the descriptors that systemd uses. */
static int passed_child(const int type[3])
{
	int session, control;
	char pid[16];

	for (unsigned i = 0; i < 3; i++) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		int fd = type[i] ? socket(AF_UNIX, type[i], 0) : open("/dev/null", O_RDONLY);

		if (type[i] &&
		    (bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0))
			return 1;
		if (dup2(fd, 10 + (int)i) < 0)
			return 2;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(10 + i, 3 + i) < 0)
			return 3;
	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "3", 1);
	if (notify_sockets(&session, &control) < 0)
		return 4;
	for (int i = 0; i < 3; i++) {
		if (type[i] == SOCK_SEQPACKET && session != 3 + i)
			return 5;
		if (type[i] == SOCK_STREAM && control != 3 + i)
			return 6;
		if (!type[i] && fcntl(3 + i, F_GETFD) != -1)
			return 7; /* what nobody asked for must not stay open */
	}
	return getenv("LISTEN_FDS") ? 8 : 0; /* nor be offered to a child */
}

static void test_sockets(void **state)
{
	static const int orders[][3] = {
		{ SOCK_SEQPACKET, SOCK_STREAM, 0 },
		{ 0, SOCK_STREAM, SOCK_SEQPACKET },
	};
	int session = 0, control = 0, status;

	assert_int_equal(notify_sockets(&session, &control), 0);
	assert_int_equal(session, -1);
	assert_int_equal(control, -1);
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(passed_child(orders[i]));
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test(test_watchdog),
		cmocka_unit_test(test_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
