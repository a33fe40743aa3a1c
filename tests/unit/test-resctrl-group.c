/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitoring group for a service's threads, in a tree like the kernel's: sparqd-resctrl(8)
 * relies on it. What only the kernel can do, giving a new group its files, is in the tree before.
 */
#include "numa/resctrl-group.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define CGROUP "system.slice/sparqd.service"
#define THREADS "sys/fs/cgroup/" CGROUP "/cgroup.threads"
#define TASKS RESCTRL_GROUP "/tasks"

static char directory[64], why[RESCTRL_WHY_BYTES];
static int root = -1;

static void run(const char *format, const char *path)
{
	char command[512];

	snprintf(command, sizeof(command), format, directory, path);
	assert_int_equal(system(command), 0);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/sparq-resctrl.XXXXXX");
	assert_non_null(mkdtemp(directory));
	root = open(directory, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	assert_true(root >= 0);
	why[0] = '\0';
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	close_fd(&root);
	run("rm -rf %s%s", "");
	return 0;
}

static void put(const char *path, const char *text)
{
	CLOSE_FD int fd = -1;
	char folder[256];

	snprintf(folder, sizeof(folder), "%s", path);
	*strrchr(folder, '/') = '\0';
	run("mkdir -p %s/%s", folder);
	fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void assert_tasks(const char *expected)
{
	char text[256] = "";

	assert_int_equal(sysfs_text(root, TASKS, text, sizeof(text)), 0);
	assert_string_equal(text, expected);
}

static void fails(int error, const char *word)
{
	unsigned threads = 77;

	assert_int_equal(resctrl_group(root, CGROUP, 100, &threads, why), error);
	assert_int_equal(threads, 77);
	if (!strstr(why, word))
		fail_msg("\"%s\": no \"%s\"", why, word);
}

static void every_thread(void **state)
{
	unsigned threads = 0;

	(void)state;
	put(TASKS, "");
	put(THREADS, "11\n12\n4194304\n");
	assert_int_equal(resctrl_group(root, CGROUP, 100, &threads, why), 0);
	assert_int_equal(threads, 3);
	assert_tasks("11\n12\n4194304\n"); /* once each */
	/* A daemon that was started again. */
	put(TASKS, "");
	put(THREADS, "13\n");
	assert_int_equal(resctrl_group(root, CGROUP, 100, &threads, why), 0);
	assert_int_equal(threads, 1);
	assert_tasks("13\n");
}

static void *start_again(void *arg)
{
	(void)arg;
	usleep(150000);
	put(THREADS, "21\n");
	usleep(150000);
	put(THREADS, "21\n22\n");
	return NULL;
}

/* systemd asks for the group while the daemon is between two lives. */
static void a_daemon_that_is_started_again(void **state)
{
	unsigned threads = 0;
	pthread_t t;

	(void)state;
	put(TASKS, "");
	put(THREADS, "11\n");
	assert_int_equal(pthread_create(&t, NULL, start_again, NULL), 0);
	assert_int_equal(resctrl_group(root, CGROUP, 2000, &threads, why), 0);
	pthread_join(t, NULL);
	assert_int_equal(threads, 2);
	assert_tasks("11\n21\n21\n22\n");
}

static void nothing_is_mounted(void **state)
{
	(void)state;
	put(THREADS, "11\n");
	run("mkdir -p %s/%s", "sys/fs/resctrl");
	fails(-ENODEV, "mount -t resctrl");
}

static void the_group_is_made(void **state)
{
	(void)state;
	put(THREADS, "11\n");
	run("mkdir -p %s/%s", "sys/fs/resctrl/mon_groups");
	fails(-ENOENT, TASKS); /* which the kernel would have put there */
	assert_int_equal(faccessat(root, RESCTRL_GROUP, F_OK, 0), 0);
}

static void no_such_service(void **state)
{
	(void)state;
	put(TASKS, "");
	fails(-ENOENT, "systemctl show -P ControlGroup");
	put(THREADS, ""); /* it has ended */
	fails(-ENOENT, "does the unit run");
	assert_tasks("");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_thread, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_daemon_that_is_started_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_mounted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_group_is_made, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_such_service, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("resctrl-group", tests, NULL, NULL);
}
