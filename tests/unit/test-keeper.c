/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper with this program as its daemon: each case is a story of one or
 * more lives, told by `lives`, and each life says what it saw in a file.
 *
 * What must hold: nothing that was handed over is lost while a next life comes,
 * nobody but the child can hand over or take away, and every end is answered
 * as sparqd(8) says.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

#include "daemon/heard.h"
#include "daemon/keep.h"
#include "daemon/keeper.h"
#include "daemon/notify.h"
#include "daemon/stash.h"
#include "shm/base.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)

static char dir[64], record[96], notify[96];

/* ---- the daemon's side: one life ------------------------------------------------- */

/* Appends a line to the file that the test reads. */
static void say(const char *format, ...)
{
	FILE *f = fopen(getenv("TEST_RECORD"), "a");
	va_list args;

	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	fputc('\n', f);
	fclose(f);
}

static unsigned lives_before(void)
{
	FILE *f = fopen(getenv("TEST_RECORD"), "r");
	unsigned n = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		n += strncmp(line, "life", 4) == 0;
	if (f)
		fclose(f);
	return n;
}

static int memory(const char *word)
{
	int fd = memfd_create(word, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (ftruncate(fd, 4096) < 0 || fchmod(fd, 0600) < 0 ||
	    pwrite(fd, word, strlen(word), 0) < 0)
		_exit(99);
	return fd;
}

static void push(const char *name, const char *word)
{
	int fd = memory(word);

	keep_push(name, fd);
	close(fd);
}

/* "name=word" of each, in the order of their handing over. */
static void say_kept(struct kept *k)
{
	char all[512] = "";

	for (unsigned i = 0; i < k->n; i++) {
		char word[16] = "";
		size_t n = strlen(all);

		if (pread(k->stored[i].fd, word, sizeof(word) - 1, 0) < 0)
			strcpy(word, "?");
		snprintf(all + n, sizeof(all) - n, " %s=%s", k->stored[i].name, word);
	}
	say("life%s%s%s", k->session >= 0 ? " session" : "", k->control >= 0 ? " control" : "",
	    all);
}

static _Noreturn void die(void)
{
	keep_settle();
	raise(SIGKILL);
	_exit(98);
}

static void live_kept(unsigned life, struct kept *k)
{
	if (life == 0) {
		push("pool-0", "zero");
		push("catalogue", "cat");
		notify_ready();
		die();
	}
	if (life == 1) { /* before it says anything: what is held stays held */
		int fd = kept_steal(k, "catalogue");

		keep_push("catalogue", fd); /* again, as every start does */
		raise(SIGSEGV);
	}
	if (life == 2) {
		keep_drop("pool-0");
		push("pool-1", "one");
		die();
	}
}

static void live_settle(unsigned life, struct kept *k)
{
	if (life == 0) {
		notify_ready();
		push("catalogue", "cat");
		say("settled %d", keep_settle());
		raise(SIGKILL);
	}
}

static void live_many(unsigned life, struct kept *k)
{
	if (life == 0) {
		for (unsigned i = 0; i < 260; i++) {
			char name[KEEP_NAME_BYTES];

			keep_pool_name(i, name);
			push(name, "");
		}
		notify_ready();
		raise(SIGKILL); /* what it said last is heard although it is dead */
	}
	say("%u", k->n);
}

static void live_strangers(unsigned life, struct kept *k)
{
	if (life == 0) {
		push("catalogue", "mine");
		notify_ready();
		if (fork() == 0) { /* another process of the same user, with the same environment */
			push("pool-0", "theirs");
			keep_drop("catalogue");
			_exit(0);
		}
		wait(NULL);
		die();
	}
}

static void live_refused(unsigned life, struct kept *k)
{
	if (life == 0)
		_exit(3);
}

static void live_late_failure(unsigned life, struct kept *k)
{
	if (life == 0) {
		push("catalogue", "cat");
		notify_ready();
		die();
	}
	if (life < 4)
		_exit(1);
}

static void live_hung(unsigned life, struct kept *k)
{
	if (life > 1)
		return;
	say("watchdog %d", (int)(notify_watchdog_ns() / MS));
	signal(SIGABRT, life == 0 ? SIG_IGN : SIG_DFL);
	if (life == 0)
		push("catalogue", "cat");
	notify_ready();
	for (;;)
		pause();
}

static void live_fed(unsigned life, struct kept *k)
{
	if (life > 0)
		return;
	push("catalogue", "cat");
	usleep(1300000); /* a start may take as long as it takes */
	notify_ready();
	for (unsigned i = 0; i < 15; i++) {
		usleep(100000);
		notify_watchdog();
	}
}

static void on_term(int signal)
{
	_exit(5);
}

static volatile sig_atomic_t hung_up;

static void on_hup(int signal)
{
	hung_up = 1;
}

static void live_told(unsigned life, struct kept *k)
{
	signal(SIGTERM, on_term);
	signal(SIGHUP, on_hup);
	if (life == 0)
		push("catalogue", "cat");
	notify_ready();
	keep_settle();
	say("ready");
	for (;; usleep(5000))
		if (hung_up) {
			say("hup");
			hung_up = 0;
		}
}

static void live_deaf(unsigned life, struct kept *k)
{
	signal(SIGTERM, SIG_IGN);
	notify_ready();
	keep_settle();
	say("ready");
	for (;;)
		pause();
}

static void live_crashing(unsigned life, struct kept *k)
{
	notify_ready();
	die();
}

static const struct {
	const char *name;
	void (*live)(unsigned life, struct kept *k);
} lives[] = {
	{ "kept", live_kept },         { "settle", live_settle },
	{ "many", live_many },         { "strangers", live_strangers },
	{ "refused", live_refused },   { "late-failure", live_late_failure },
	{ "hung", live_hung },         { "fed", live_fed },
	{ "told", live_told },         { "deaf", live_deaf },
	{ "crashing", live_crashing },
};

static int live(const char *name)
{
	unsigned life = lives_before();
	struct kept k;

	alarm(30); /* should the test fail and leave it alone */
	if (keep_kind() != KEEP_KEEPER || keep_take(&k) < 0 || k.error)
		return 97;
	say_kept(&k);
	for (size_t i = 0; i < ARRAY_SIZE(lives); i++)
		if (strcmp(lives[i].name, name) == 0)
			lives[i].live(life, &k);
	return 0;
}

/* ---- the test's side ---------------------------------------------------------------- */

static int setup(void **state)
{
	strcpy(dir, "/tmp/sparq-keeper.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(record, sizeof(record), "%s/record", dir);
	snprintf(notify, sizeof(notify), "%s/notify", dir);
	setenv("TEST_RECORD", record, 1);
	return 0;
}

static int teardown(void **state)
{
	unlink(record);
	unlink(notify);
	return rmdir(dir);
}

static int listening(int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0)
		_exit(96);
	return fd;
}

static pid_t keep(const char *story, uint64_t watchdog_ns)
{
	static char name[] = "daemon", verb[] = "live";
	char *argv[] = { name, verb, (char *)(uintptr_t)story, NULL };
	pid_t pid = fork();

	if (pid == 0) {
		struct keeper_params p = {
			.program = "/proc/self/exe",
			.argv = argv,
			.notify_path = notify,
			.watchdog_ns = watchdog_ns,
			.abort_ns = 100 * MS,
			.stop_ns = 300 * MS,
		};

		/* Each where the other is to be in the child. */
		p.control = listening(SOCK_STREAM);
		p.session = listening(SOCK_SEQPACKET);

		alarm(30);
		_exit(keeper_run(&p));
	}
	return pid;
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(access(notify, F_OK), -1); /* it cleans up behind itself */
	return WEXITSTATUS(status);
}

static void read_record(char ret[2048])
{
	int fd = open(record, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, 2047);

	ret[MAX(n, 0)] = '\0';
	close(fd);
}

static void recorded(const char *expected)
{
	char text[2048];

	read_record(text);
	assert_string_equal(text, expected);
}

static void await(const char *word, unsigned times)
{
	for (unsigned i = 0; i < 2000; i++) {
		char text[2048];
		unsigned n = 0;

		read_record(text);
		for (const char *p = text; (p = strstr(p, word)); p++)
			n++;
		if (n >= times)
			return;
		usleep(5000);
	}
	fail_msg("\"%s\" does not come %u times", word, times);
}

/* ---- cases ------------------------------------------------------------------------------ */

static void test_kept(void **state)
{
	assert_int_equal(end_of(keep("kept", 0)), 0);
	recorded("life session control\n"
		 "life session control pool-0=zero catalogue=cat\n"
		 "life session control pool-0=zero catalogue=cat\n"
		 "life session control catalogue=cat pool-1=one\n");
}

static void test_settled(void **state)
{
	assert_int_equal(end_of(keep("settle", 0)), 0);
	recorded("life session control\nsettled 0\nlife session control catalogue=cat\n");
}

static void test_too_many(void **state)
{
	char text[2048], *last;

	assert_int_equal(end_of(keep("many", 0)), 0);
	read_record(text);
	text[strlen(text) - 1] = '\0';
	last = strrchr(text, '\n');
	assert_non_null(last);
	/* pool-252 is held, but no name of ours. */
	assert_string_equal(last, "\n252");
}

static void test_strangers(void **state)
{
	assert_int_equal(end_of(keep("strangers", 0)), 0);
	recorded("life session control\nlife session control catalogue=mine\n");
}

static void test_first_start_fails(void **state)
{
	assert_int_equal(end_of(keep("refused", 0)), 3);
	recorded("life session control\n");
}

/* A configuration that was broken while the daemon ran costs no KV. */
static void test_later_start_fails(void **state)
{
	assert_int_equal(end_of(keep("late-failure", 0)), 0);
	recorded("life session control\n"
		 "life session control catalogue=cat\n"
		 "life session control catalogue=cat\n"
		 "life session control catalogue=cat\n"
		 "life session control catalogue=cat\n");
}

static void test_hung(void **state)
{
	assert_int_equal(end_of(keep("hung", 200 * MS)), 0);
	recorded("life session control\nwatchdog 200\n"
		 "life session control catalogue=cat\nwatchdog 200\n"
		 "life session control catalogue=cat\n");
}

static void test_fed(void **state)
{
	assert_int_equal(end_of(keep("fed", 1000 * MS)), 0);
	recorded("life session control\n");
}

static void test_signals(void **state)
{
	pid_t keeper = keep("told", 0);

	await("ready", 1);
	kill(keeper, SIGHUP);
	await("hup", 1);
	kill(keeper, SIGUSR1); /* anew: its end, whatever its status, is not ours */
	await("ready", 2);
	kill(keeper, SIGTERM);
	assert_int_equal(end_of(keeper), 5);
	recorded("life session control\nready\nhup\nlife session control catalogue=cat\nready\n");
}

static void test_deaf(void **state)
{
	pid_t keeper = keep("deaf", 0);

	await("ready", 1);
	kill(keeper, SIGTERM);
	assert_int_equal(end_of(keeper), 1);
}

/* 0: none. */
static pid_t child_of(pid_t keeper)
{
	char path[64], text[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", keeper, keeper);
	f = fopen(path, "r");
	assert_non_null(f);
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	return atoi(text);
}

/* In the pause between two lives. */
static void test_stop_without_child(void **state)
{
	pid_t keeper = keep("crashing", 0);

	await("life", 5); /* 10 + 20 + 40 + 80 ms, and 160 now */
	while (child_of(keeper) > 0)
		usleep(1000);
	kill(keeper, SIGTERM);
	assert_int_equal(end_of(keeper), 0);
	await("life", 5);
}

static void test_no_program(void **state)
{
	static char name[] = "none";
	char *const argv[] = { name, NULL };
	struct keeper_params p = {
		.program = "/nonexistent/program",
		.argv = argv,
		.notify_path = notify,
		.session = -1,
		.control = -1,
	};

	assert_int_equal(keeper_run(&p), 127);
	p.notify_path = "/nonexistent/directory/notify";
	assert_int_equal(keeper_run(&p), -ENOENT);
}

/* If the keeper is killed, the daemon has the only copy: it must live, and hear of it. */
static void test_keeper_killed(void **state)
{
	pid_t keeper = keep("told", 0), child;

	await("ready", 1);
	child = child_of(keeper);
	assert_true(child > 0);
	kill(keeper, SIGKILL);
	assert_int_equal(waitpid(keeper, NULL, 0), keeper);
	kill(child, SIGHUP);
	await("hup", 1);
	setenv("NOTIFY_SOCKET", notify, 1);
	assert_int_equal(notify_watchdog(), -ECONNREFUSED);
	unsetenv("NOTIFY_SOCKET");
	kill(child, SIGKILL);
}

static int manager(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[sizeof(a.sun_path) + 1] = "@";
	socklen_t n = sizeof(a);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	memcpy(name + 1, a.sun_path + 1, n - sizeof(sa_family_t) - 1);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

/* The next one that is not WATCHDOG=1, of which it counts how many came before. */
static unsigned hears(int fd, const char *expected)
{
	char text[512];

	for (unsigned n = 0;; n++) {
		ssize_t bytes = recv(fd, text, sizeof(text) - 1, 0);

		assert_true(bytes > 0);
		text[bytes] = '\0';
		if (!strcmp(text, "WATCHDOG=1"))
			continue;
		assert_memory_equal(text, expected, strlen(expected));
		return n;
	}
}

/* Under a manager that has no store it is told how the daemon is; what it watches is the keeper,
 * also while there is no daemon. */
static void test_manager_above(void **state)
{
	int fd = manager();
	pid_t keeper;

	setenv("WATCHDOG_USEC", "60000", 1);
	keeper = keep("crashing", 0);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	for (unsigned i = 0; i < 5; i++) {
		hears(fd, "READY=1");
		hears(fd, "STATUS=the daemon was ended by signal 9 (Killed): starting it again");
	}
	/* After 10, 20, 40 and 80 ms, 160 until the next. */
	assert_in_range(hears(fd, "READY=1"), 4, 100);
	hears(fd, "STATUS=the daemon was ended");
	kill(keeper, SIGTERM);
	hears(fd, "STOPPING=1");
	assert_int_equal(end_of(keeper), 0);
	close(fd);
}

static void test_pause(void **state)
{
	static const uint64_t expected_ms[] = { 10,  20,   40,   80,   160, 320,
						640, 1280, 2560, 5000, 5000 };
	uint64_t pause = 0;

	for (size_t i = 0; i < ARRAY_SIZE(expected_ms); i++) {
		pause = keeper_pause(pause, 9 * S);
		assert_int_equal(pause, expected_ms[i] * MS);
	}
	assert_int_equal(keeper_pause(pause, 10 * S), 10 * MS);
	assert_int_equal(keeper_pause(pause, 0), 5000 * MS);
}

/* ---- its parts ----------------------------------------------------------------------------- */

static void test_stash(void **state)
{
	struct stash s = STASH_NULL;
	int a = memory("a"), same = dup(a), twin = memory("a");

	assert_int_equal(stash_put(&s, "x", a), 1);
	assert_int_equal(stash_put(&s, "x", same), 0); /* and closed */
	assert_int_equal(fcntl(same, F_GETFD), -1);
	assert_int_equal(stash_put(&s, "y", dup(a)), 1);
	assert_int_equal(stash_put(&s, "x", twin), 1); /* another file, though alike */
	assert_int_equal(s.n, 3);
	assert_int_equal(stash_remove(&s, "x"), 2);
	assert_int_equal(fcntl(a, F_GETFD), -1);
	assert_int_equal(fcntl(twin, F_GETFD), -1);
	assert_int_equal(stash_remove(&s, "x"), 0);
	assert_int_equal(s.n, 1);
	assert_string_equal(s.held[0].name, "y");
	a = s.held[0].fd;
	stash_deinit(&s);
	assert_int_equal(fcntl(a, F_GETFD), -1);
	stash_deinit(&s);
	assert_int_equal(stash_put(&s, "a:b", memory("")), -EINVAL);
	assert_false(stash_name_ok(""));
	assert_false(stash_name_ok("a b"));
	assert_false(
		stash_name_ok("0123456789012345678901234567890123456789012345678901234567890123"));
	assert_true(
		stash_name_ok("012345678901234567890123456789012345678901234567890123456789012"));
}

static void test_lines(void **state)
{
	struct heard h = HEARD_NULL;

	heard_parse(&h, "READY=1\nSTATUS=a = b\nX_OTHER=1\n\nWATCHDOG=1");
	assert_true(h.ready && h.watchdog && !h.store && !h.remove && !h.stopping && !h.reloading);
	assert_string_equal(h.status, "a = b");
	assert_string_equal(h.name, "stored");
	h = HEARD_NULL;
	heard_parse(&h, "FDSTORE=1\nFDNAME=pool-3\nFDPOLL=0\nEXTEND_TIMEOUT_USEC=70");
	assert_true(h.store && !h.ready);
	assert_string_equal(h.name, "pool-3");
	assert_int_equal(h.extend_usec, 70);
	h = HEARD_NULL;
	heard_parse(&h, "READY=10\nREADY\n READY=1\nWATCHDOG=trigger\nFDSTORE=0\nFDNAME=a:b");
	assert_false(h.ready || h.watchdog || h.store);
	assert_string_equal(h.name, "");
	h = HEARD_NULL;
	heard_parse(&h, "");
	assert_false(h.ready);
}

/* Too long, without credentials: not looked at, and its descriptors are closed. */
static void test_datagrams(void **state)
{
	static char text[8192];
	int pair[2], on = 1, end[2];
	struct heard h;
	struct pollfd p;

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	assert_int_equal(heard_receive(pair[0], &h), 0);
	assert_int_equal(send(pair[1], "READY=1", 7, 0), 7);
	assert_int_equal(heard_receive(pair[0], &h), -EBADMSG);
	setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	assert_int_equal(send(pair[1], "READY=1", 7, 0), 7);
	assert_int_equal(heard_receive(pair[0], &h), 1);
	assert_true(h.ready && h.from.pid == getpid());
	memset(text, 'x', sizeof(text));
	memcpy(text, "READY=1\n", 8);
	assert_int_equal(send(pair[1], text, sizeof(text), 0), sizeof(text));
	assert_int_equal(heard_receive(pair[0], &h), -EBADMSG);

	/* A descriptor that nobody took is closed with the message. */
	assert_int_equal(pipe(end), 0);
	{
		char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(16))) = { 0 };
		struct iovec data = { text, 7 };
		struct msghdr m = { .msg_iov = &data,
				    .msg_iovlen = 1,
				    .msg_control = control,
				    .msg_controllen = sizeof(control) };

		*(struct cmsghdr *)control =
			(struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &end[1], sizeof(int));
		assert_int_equal(sendmsg(pair[1], &m, 0), 7);
	}
	close(end[1]);
	assert_int_equal(heard_receive(pair[0], &h), 1);
	assert_int_equal(h.n_fds, 1);
	p = (struct pollfd){ .fd = end[0] };
	assert_int_equal(poll(&p, 1, 0), 0);
	heard_deinit(&h);
	assert_int_equal(poll(&p, 1, 0), 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_stash),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_datagrams),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_settled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strangers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_start_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_later_start_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hung, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deaf, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_without_child, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeper_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_manager_above, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_program, setup, teardown),
	};

	if (argc == 3 && strcmp(argv[1], "live") == 0)
		return live(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
