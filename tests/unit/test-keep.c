/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a manager hands over and what it is given to keep. Each case is a child
 * of its own: descriptors from 3 on are those that a manager would pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/keep.h"
#include "shm/base.h"

#define GIVEN_MOST 300

/* cmocka's asserts are for the parent. */
#define WANT(c)                                                                                    \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "line %d: %s\n", __LINE__, #c);                            \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)

static struct {
	char names[8192];
	int fd[GIVEN_MOST];
	unsigned n;
} given;

static void give(const char *name, int fd)
{
	size_t n = strlen(given.names);

	snprintf(given.names + n, sizeof(given.names) - n, "%s%s", given.n ? ":" : "", name);
	given.fd[given.n++] = fd;
}

static int memory(mode_t mode, const char *word)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, 4096) < 0 || fchmod(fd, mode) < 0 ||
	    pwrite(fd, word, strlen(word) + 1, 0) < 0)
		_exit(2);
	return fd;
}

static int listening(int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0)
		_exit(2);
	return fd;
}

/* To where a manager puts them, and takes them from there. */
static int take(struct kept *ret)
{
	char number[16];

	for (unsigned i = 0; i < given.n; i++)
		given.fd[i] = fcntl(given.fd[i], F_DUPFD, 1000);
	for (unsigned i = 0; i < given.n; i++)
		dup2(given.fd[i], 3 + (int)i);
	close_range(3 + given.n, ~0u, 0);
	snprintf(number, sizeof(number), "%u", given.n);
	setenv("LISTEN_FDS", number, 1);
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDNAMES", given.names, 1);
	return keep_take(ret);
}

static void in_child(int (*test)(void))
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(test());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* ---- cases -------------------------------------------------------------------- */

static int all_kinds(void)
{
	struct kept k;
	char word[8];
	int fd;

	give("control", listening(SOCK_STREAM));
	give("pool-1", memory(0600, "one"));
	give("stored", open("/dev/null", O_RDONLY));
	give("session", listening(SOCK_SEQPACKET));
	give("catalogue", memory(0600, "cat"));
	give("pool-0", memory(0600, "zero"));
	WANT(take(&k) == 0 && k.error == 0);
	WANT(k.control == 3 && k.session == 6);
	WANT(k.n == 3 && kept_left(&k) == 3);
	WANT(!is_open(5)); /* what nobody asked for must not stay open */
	WANT(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID") && !getenv("LISTEN_FDNAMES"));
	fd = kept_steal(&k, "pool-0");
	WANT(fd >= 0 && pread(fd, word, 5, 0) == 5 && strcmp(word, "zero") == 0);
	WANT(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	WANT(kept_steal(&k, "pool-0") == -ENOENT && kept_steal(&k, "pool-2") == -ENOENT);
	WANT(kept_left(&k) == 2);
	kept_deinit(&k);
	/* Who took one has it for good, and nothing else is left. */
	WANT(is_open(fd) && !is_open(3) && !is_open(4) && !is_open(6) && !is_open(7));
	kept_deinit(&k);
	return 0;
}

static int sockets_without_names(void)
{
	struct kept k;

	given.fd[given.n++] = listening(SOCK_SEQPACKET);
	given.fd[given.n++] = listening(SOCK_STREAM);
	given.fd[given.n++] = listening(SOCK_STREAM); /* one too many */
	WANT(take(&k) == 0 && k.error == 0);
	WANT(k.session == 3 && k.control == 4 && !is_open(5) && k.n == 0);
	return 0;
}

static int unknown_names(void)
{
	static const char *const names[] = { "pool-00",    "pool-252", "pool-",
					     "pool--1",    "pool-1x",  "Catalogue",
					     "catalogue2", "",         "pool-99999999999" };
	struct kept k;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		give(names[i], memory(0600, ""));
	give("pool-251", memory(0600, ""));
	WANT(take(&k) == 0 && k.error == 0);
	WANT(k.n == 1 && strcmp(k.stored[0].name, "pool-251") == 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		WANT(!is_open(3 + (int)i));
	return 0;
}

/* As many as a message carries; a manager may send more than that, of which none is ours. */
static int as_many_as_can_be(void)
{
	char name[KEEP_NAME_BYTES];
	struct kept k;

	give("catalogue", memory(0600, ""));
	for (unsigned i = 0; i < KEEP_MOST + 10; i++) {
		keep_pool_name(i, name);
		give(name, memory(0600, ""));
	}
	WANT(take(&k) == 0 && k.error == 0 && k.n == KEEP_MOST);
	WANT(kept_steal(&k, "pool-251") >= 0 && kept_steal(&k, "pool-252") == -ENOENT);
	return 0;
}

static int one_file_twice(void)
{
	int fd = memory(0600, "");
	struct kept k;

	give("catalogue", fd);
	give("catalogue", fd);
	WANT(take(&k) == 0 && k.error == 0 && k.n == 1 && !is_open(4));
	return 0;
}

/* Whatever is wrong with one, none is used: half a memory is worse than none. The sockets are, for
 * those who connect are to hear of it. */
static int refused(const char *name, int fd, const char *why)
{
	struct kept k;

	give("session", listening(SOCK_SEQPACKET));
	give("catalogue", memory(0600, ""));
	give(name, fd);
	WANT(take(&k) == 0);
	WANT(k.error == -EUCLEAN && strstr(k.why, why) && strstr(k.why, name));
	WANT(k.n == 0 && k.session == 3 && !is_open(4) && !is_open(5));
	return 0;
}

static int two_files_of_a_name(void)
{
	return refused("catalogue", memory(0600, ""), "twice");
}

static int no_memory(void)
{
	return refused("pool-0", open("/dev/null", O_RDWR), "no memfd");
}

static int sealed(void)
{
	int fd = memory(0600, "");

	WANT(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
	return refused("pool-0", fd, "cannot be written");
}

static int read_only(void)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory(0600, ""));
	return refused("pool-0", open(path, O_RDONLY), "cannot be written");
}

static int open_to_others(void)
{
	return refused("pool-0", memory(0640, ""), "other users");
}

static int not_open(void)
{
	char number[16];
	struct kept k;

	close_range(3, ~0u, 0);
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDS", "1", 1);
	WANT(keep_take(&k) == -EBADF);
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDS", "many", 1);
	WANT(keep_take(&k) == -EINVAL);
	return 0;
}

/* Inherited variables of another process are not for us. */
static int somebody_elses(void)
{
	struct kept k;

	setenv("LISTEN_PID", "1", 1);
	setenv("LISTEN_FDS", "5", 1);
	WANT(keep_take(&k) == 0 && k.n == 0 && k.session == -1 && k.control == -1);
	return 0;
}

static void test_handed_over(void **state)
{
	in_child(all_kinds);
	in_child(sockets_without_names);
	in_child(unknown_names);
	in_child(as_many_as_can_be);
	in_child(one_file_twice);
	in_child(two_files_of_a_name);
	in_child(no_memory);
	in_child(sealed);
	in_child(read_only);
	in_child(open_to_others);
	in_child(not_open);
	in_child(somebody_elses);
}

/* ---- handing on ------------------------------------------------------------------ */

static int manager(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char name[sizeof(a.sun_path) + 1] = "@";
	socklen_t n = sizeof(a);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	memcpy(name + 1, a.sun_path + 1, n - sizeof(sa_family_t) - 1);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

/* What it hears, and the descriptor that came with it; -1: none. */
static int hears(int fd, const char *expected)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(16))), text[128];
	struct iovec data = { text, sizeof(text) - 1 };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &m, 0);
	int given_fd = -1;

	assert_true(n >= 0);
	text[n] = '\0';
	assert_string_equal(text, expected);
	if (CMSG_FIRSTHDR(&m))
		memcpy(&given_fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return given_fd;
}

static void test_handing_on(void **state)
{
	int fd, mine = memory(0600, "mine");
	char word[8];

	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(keep_kind(), KEEP_NONE);
	assert_int_equal(keep_push("catalogue", mine), 0);
	assert_int_equal(keep_drop("catalogue"), 0);
	assert_int_equal(keep_settle(), 0);

	fd = manager();
	assert_int_equal(keep_kind(), KEEP_SYSTEMD);
	setenv("SPARQD_KEEPER", "1", 1);
	assert_int_equal(keep_kind(), KEEP_KEEPER);
	assert_int_equal(keep_push("pool-0", mine), 0);
	close(mine);
	mine = hears(fd, "FDSTORE=1\nFDPOLL=0\nFDNAME=pool-0");
	assert_int_equal(pread(mine, word, 5, 0), 5);
	assert_string_equal(word, "mine");
	close(mine);
	assert_int_equal(keep_drop("pool-0"), 0);
	assert_int_equal(hears(fd, "FDSTOREREMOVE=1\nFDNAME=pool-0"), -1);
	close(fd);
	assert_int_equal(keep_push("pool-0", STDIN_FILENO), -ECONNREFUSED);
	assert_int_equal(keep_settle(), -ECONNREFUSED);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("SPARQD_KEEPER");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handed_over),
		cmocka_unit_test(test_handing_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
