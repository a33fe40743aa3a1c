/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets: whose name it is, who may connect, what is left behind. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/listen.h"
#include "daemon/log.h"
#include "shm/base.h"

static char directory[] = "/tmp/sparq-listen.XXXXXX";
static char path[80];

static int setup(void **state)
{
	assert_non_null(mkdtemp(strcpy(directory, "/tmp/sparq-listen.XXXXXX")));
	snprintf(path, sizeof(path), "%s/sock", directory);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(directory);
}

static int connect_to(const char *name, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, name);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -errno;
}

static void open_listener(struct listener *l)
{
	char why[CONFIG_WHY_BYTES];

	assert_int_equal(listener_open(l, SOCK_SEQPACKET, path, why), 0);
}

/* The mode says who may connect, so it must be right before anybody can. */
static void test_mode_and_removal(void **state)
{
	struct listener l;
	struct stat st;

	open_listener(&l);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0660);
	listener_stop(&l);
	assert_int_equal(stat(path, &st), -1);
}

/* kill -9 leaves a name behind; the next start takes it. */
static void test_stale(void **state)
{
	struct listener l;

	open_listener(&l);
	close_fd(&l.fd);
	assert_int_equal(connect_to(path, SOCK_SEQPACKET), -ECONNREFUSED);
	open_listener(&l);
	listener_stop(&l);
}

/* The kernel goes on accepting for a process that is dead while something holds its socket: an
 * io_uring being torn down, here us, who share the table of descriptors. */
static void test_dead_but_accepting(void **state)
{
	pid_t child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	struct listener l;
	int status, client;

	if (child == 0) {
		char why[CONFIG_WHY_BYTES];

		_exit(listener_open(&l, SOCK_SEQPACKET, path, why) < 0 ? 0 : l.fd);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WEXITSTATUS(status) > 0);
	client = connect_to(path, SOCK_SEQPACKET);
	assert_true(client >= 0);
	open_listener(&l);
	listener_stop(&l);
	close(client);
	close(WEXITSTATUS(status));
}

/* Two daemons on one name: the second must not take it from the first. */
static void test_in_use(void **state)
{
	struct listener first, second = LISTENER_NULL;
	char why[CONFIG_WHY_BYTES];
	int fd;

	open_listener(&first);
	assert_int_equal(listener_open(&second, SOCK_SEQPACKET, path, why), -EADDRINUSE);
	assert_non_null(strstr(why, path));
	/* Another type of socket is somebody, too. */
	assert_int_equal(listener_open(&second, SOCK_STREAM, path, why), -EADDRINUSE);
	fd = connect_to(path, SOCK_SEQPACKET);
	assert_true(fd >= 0);
	close(fd);
	listener_stop(&first);
}

static void test_not_a_socket(void **state)
{
	struct listener l = LISTENER_NULL;
	char why[CONFIG_WHY_BYTES];
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	close(fd);
	assert_int_equal(listener_open(&l, SOCK_SEQPACKET, path, why), -EEXIST);
	assert_non_null(strstr(why, "is not a socket"));
	assert_int_equal(access(path, F_OK), 0);
}

static void test_no_directory(void **state)
{
	struct listener l = LISTENER_NULL;
	char why[CONFIG_WHY_BYTES];

	assert_int_equal(listener_open(&l, SOCK_SEQPACKET, "/nowhere/at/all", why), -ENOENT);
	assert_string_equal(why, "cannot listen on /nowhere/at/all: No such file or directory");
}

/* A successor that has taken the name over keeps it when its predecessor ends. */
static void test_successor_keeps_name(void **state)
{
	struct listener first, second;

	open_listener(&first);
	unlink(path);
	open_listener(&second);
	listener_stop(&first);
	assert_int_equal(access(path, F_OK), 0);
	listener_stop(&second);
}

static unsigned accepted;

static void on_connection(void *arg, int fd)
{
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	accepted++;
	close(fd);
}

/* Out of descriptors the daemon must neither turn on the spot nor forget the connection. */
static void test_no_descriptors(void **state)
{
	struct rlimit before, none;
	struct listener l;
	struct loop *loop;
	int client;

	accepted = 0;
	assert_int_equal(loop_new(LOOP_EPOLL, &loop), 0);
	open_listener(&l);
	assert_int_equal(listener_start(&l, loop, on_connection, NULL), 0);
	client = connect_to(path, SOCK_SEQPACKET);
	assert_true(client >= 0);
	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){ .rlim_cur = 3, .rlim_max = before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	assert_int_equal(loop_step(loop, 1000000), 0);
	assert_int_equal(accepted, 0);
	assert_int_equal(l.source.events, 0);
	setrlimit(RLIMIT_NOFILE, &before);
	for (unsigned i = 0; i < 100 && !accepted; i++)
		assert_int_equal(loop_step(loop, 10000000), 0);
	assert_int_equal(accepted, 1);
	listener_stop(&l);
	loop_free(loop);
	close(client);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_mode_and_removal),     TEST(test_stale),
		TEST(test_dead_but_accepting),   TEST(test_in_use),
		TEST(test_not_a_socket),         TEST(test_no_directory),
		TEST(test_successor_keeps_name), TEST(test_no_descriptors),
	};

	log_open(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
