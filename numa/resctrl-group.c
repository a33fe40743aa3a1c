/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel gives a new thread the group of the one that makes it (resctrl of the kernel's
 * documentation), so a list that no longer grows once its threads were moved is the whole one. A
 * daemon that has just died and is being started again has none for a moment, and then another.
 */
#include "numa/resctrl-group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define TEXT_BYTES (256u * 1024) /* thirty thousand threads */
#define LOOK_EVERY_MS 20u
#define SETTLES_MOST 20u /* a service whose threads come and go has those moved that make them */

static int make_group(int root, char *why)
{
	int r;

	if (faccessat(root, "sys/fs/resctrl/mon_groups", F_OK, 0) < 0) {
		snprintf(why, RESCTRL_WHY_BYTES,
			 "/sys/fs/resctrl is not mounted, or counts nothing: mount -t resctrl "
			 "resctrl /sys/fs/resctrl, if the processor has it");
		return -ENODEV;
	}
	r = mkdirat(root, RESCTRL_GROUP, 0755) < 0 ? -errno : 0;
	if (r == 0 || r == -EEXIST)
		return 0;
	if (r == -ENOSPC)
		snprintf(why, RESCTRL_WHY_BYTES,
			 "/" RESCTRL_GROUP ": the processor has no group left: rmdir one of "
			 "/sys/fs/resctrl/mon_groups");
	else
		snprintf(why, RESCTRL_WHY_BYTES, "/" RESCTRL_GROUP ": %s", strerror(-r));
	return r;
}

/* One that has ended meanwhile is none. */
static int move_thread(int tasks, const char *id)
{
	ssize_t n = write(tasks, id, strlen(id));

	return n < 0 && errno != ESRCH ? -errno : 0;
}

static int move_threads(int tasks, char *text, unsigned *ret_threads)
{
	char *at = NULL;
	unsigned n = 0;

	for (char *id = strtok_r(text, "\n", &at); id; id = strtok_r(NULL, "\n", &at)) {
		char line[32];
		int r;

		snprintf(line, sizeof(line), "%.30s\n", id);
		r = move_thread(tasks, line);
		if (r < 0)
			return r;
		n++;
	}
	*ret_threads = n;
	return 0;
}

/* Those of a control group that is not there are none: "". */
static int read_threads(int root, const char *cgroup, char *text, char *why)
{
	char path[256];
	int r;

	snprintf(path, sizeof(path), "sys/fs/cgroup/%s/cgroup.threads", cgroup);
	r = sysfs_text(root, path, text, TEXT_BYTES);
	if (r == -ENOENT || r == -ENODEV) /* the latter while it is being removed */
		text[0] = '\0';
	if ((r < 0 && r != -ENOENT && r != -ENODEV) || !text[0])
		snprintf(why, RESCTRL_WHY_BYTES,
			 "/%.100s: %s: does the unit run, and is this its group? systemctl show -P "
			 "ControlGroup",
			 path, strerror(r < 0 ? -r : ESRCH));
	return r == -ENOENT || r == -ENODEV ? 0 : r;
}

/* Until nothing has changed for so long. */
static int follow(int root, int tasks, const char *cgroup, unsigned settle_ms, char *text[2],
		  unsigned *ret_threads, char *why)
{
	const struct timespec pause = { .tv_nsec = LOOK_EVERY_MS * 1000000 };
	unsigned same_ms = 0;
	int r = 0;

	for (unsigned ms = 0; same_ms <= settle_ms && ms < SETTLES_MOST * settle_ms;
	     ms += LOOK_EVERY_MS, same_ms += LOOK_EVERY_MS) {
		r = read_threads(root, cgroup, text[0], why);
		if (r == 0 && strcmp(text[0], text[1]) != 0) {
			memcpy(text[1], text[0], TEXT_BYTES);
			same_ms = 0;
			r = move_threads(tasks, text[0], ret_threads);
			if (r < 0)
				snprintf(why, RESCTRL_WHY_BYTES, "/" RESCTRL_GROUP "/tasks: %s",
					 strerror(-r));
		}
		if (r < 0)
			return r;
		nanosleep(&pause, NULL);
	}
	return text[1][0] ? 0 : -ENOENT;
}

int resctrl_group(int root, const char *cgroup, unsigned settle_ms, unsigned *ret_threads,
		  char *why)
{
	FREE_MEMORY char *now = calloc(1, TEXT_BYTES), *before = calloc(1, TEXT_BYTES);
	CLOSE_FD int tasks = -1;
	unsigned threads = 0;
	int r = now && before ? make_group(root, why) : -ENOMEM;

	if (r < 0)
		return r;
	tasks = openat(root, RESCTRL_GROUP "/tasks", O_WRONLY | O_CLOEXEC);
	if (tasks < 0) {
		r = -errno;
		snprintf(why, RESCTRL_WHY_BYTES, "/" RESCTRL_GROUP "/tasks: %s", strerror(-r));
		return r;
	}
	r = follow(root, tasks, cgroup, settle_ms, (char *[2]){ now, before }, &threads, why);
	if (r == 0)
		*ret_threads = threads;
	return r;
}
