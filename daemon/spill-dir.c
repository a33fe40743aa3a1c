/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of spilled sequences: made, locked, tried, cleaned.
 *
 *   sparqd-spill   names the directory by a number; locked by the daemon that uses it
 *   NUMBER.seq     a sequence; NUMBER.seq.tmp one that is being written
 *
 * Nothing else in it is ever touched.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "daemon/name.h"
#include "daemon/spill-private.h"
#include "shm/base.h"

#define LOCK_NAME "sparqd-spill"
#define LOCK_TEXT "sparqd spill directory "
#define PROBE_NAME "0.seq.tmp" /* no file has number 0: what is left of it is removed */
#define ID_MASK ((1u << (64 - SPILL_NUMBER_BITS)) - 1)

void spill_dir_name(uint64_t number, char ret[DISK_NAME_MAX])
{
	snprintf(ret, DISK_NAME_MAX, "%" PRIu64 ".seq", number);
}

/* The number of a file of ours, whole or not; false: it is another's. */
static bool parse_name(const char *name, uint64_t *ret)
{
	uint64_t n = 0;
	const char *p;

	for (p = name; *p >= '0' && *p <= '9'; p++)
		if (checked_mul(n, 10, &n) < 0 || checked_add(n, (uint64_t)(*p - '0'), &n) < 0)
			return false;
	if (p == name || (strcmp(p, ".seq") != 0 && strcmp(p, ".seq.tmp") != 0))
		return false;
	*ret = n;
	return true;
}

/* ---- opening ---------------------------------------------------------------------- */

static int check_owner(int fd, const char *path, char *why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return why_fail(why, errno, "spill_dir = %s: %s", path, strerror(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return why_fail(why, EPERM, "spill_dir = %s belongs to uid %u: chown it to uid %u",
				path, st.st_uid, geteuid());
	if (st.st_mode & 022)
		return why_fail(why, EPERM, "spill_dir = %s: others may write to it: chmod go-w it",
				path);
	return 0;
}

static int open_directory(const char *path, int *ret, char *why)
{
	CLOSE_FD int fd = -1;
	int r;

	if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS)
		return why_fail(why, errno, "spill_dir = %s cannot be made: %s", path,
				strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return why_fail(why, errno, "spill_dir = %s: %s", path, strerror(errno));
	r = check_owner(fd, path, why);
	if (r < 0)
		return r;
	*ret = STEAL_FD(fd);
	return 0;
}

/* The directory's number: what the file says, or a new one. */
static int read_id(int fd, uint32_t *ret)
{
	char text[64] = "";
	uint32_t id = 0;
	int n;

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return -errno;
	if (sscanf(text, LOCK_TEXT "%" SCNx32, &id) == 1 && id && id <= ID_MASK) {
		*ret = id;
		return 0;
	}
	while (!id) {
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return -EIO;
		id &= ID_MASK;
	}
	n = snprintf(text, sizeof(text), LOCK_TEXT "%06" PRIx32 "\n", id);
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n || fsync(fd) < 0)
		return errno ? -errno : -EIO;
	*ret = id;
	return 0;
}

static int lock(struct spill_dir *d, const char *path, char *why)
{
	int r;

	d->lock_fd = openat(d->fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock_fd < 0)
		return why_fail(why, errno, "spill_dir = %s: %s: %s", path, LOCK_NAME,
				strerror(errno));
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno != EWOULDBLOCK
			       ? why_fail(why, errno, "spill_dir = %s: %s", path, strerror(errno))
			       : why_fail(why, EBUSY,
					  "spill_dir = %s is in use by another daemon: each needs "
					  "its own",
					  path);
	r = read_id(d->lock_fd, &d->id);
	return r < 0 ? why_fail(why, -r, "spill_dir = %s: %s: %s", path, LOCK_NAME, strerror(-r))
		     : 0;
}

/* One block, past the cache: only trying tells. 0, or -errno: -EINVAL, not that way. */
static int try_block(const struct spill_dir *d, int flags)
{
	FREE_MEMORY void *block = aligned_alloc(DISK_ALIGN, DISK_ALIGN);
	CLOSE_FD int fd = -1;
	int r = 0;

	if (!block)
		return -ENOMEM;
	memset(block, 0, DISK_ALIGN);
	flags |= O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
	fd = openat(d->fd, PROBE_NAME, flags, 0600);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, block, DISK_ALIGN, 0) != DISK_ALIGN)
		r = errno ? -errno : -ENOSPC;
	unlinkat(d->fd, PROBE_NAME, 0);
	return r;
}

static int try_directory(struct spill_dir *d, const char *path, char *why)
{
	int r = try_block(d, O_DIRECT);

	d->direct = r == 0;
	if (r == -EINVAL)
		r = try_block(d, 0);
	/* A full disk is no reason to give up: what is on it can be loaded, and makes room. */
	if (r < 0 && r != -ENOSPC && r != -EDQUOT)
		return why_fail(why, -r, "spill_dir = %s cannot be written to: %s", path,
				strerror(-r));
	d->direct |= r < 0;
	return 0;
}

/* Calls `visit` with each file of ours. */
static int each_file(const struct spill_dir *d,
		     void (*visit)(void *arg, const char *name, uint64_t number), void *arg)
{
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	uint64_t number;
	DIR *dir;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fd(&fd);
		return -errno;
	}
	while ((e = readdir(dir)))
		if (parse_name(e->d_name, &number))
			visit(arg, e->d_name, number);
	closedir(dir);
	return 0;
}

static void note_number(void *arg, const char *name, uint64_t number)
{
	struct spill_dir *d = arg;

	if (number >= d->next && number < SPILL_NUMBER_MASK)
		d->next = number + 1;
}

int spill_dir_open(const char *path, struct spill_dir *ret, char *why)
{
	CLEANUP(spill_dir_close) struct spill_dir d = SPILL_DIR_NULL;
	int r;

	d.next = 1;
	r = open_directory(path, &d.fd, why);
	if (r == 0)
		r = lock(&d, path, why);
	if (r == 0)
		r = try_directory(&d, path, why);
	if (r < 0)
		return r;
	r = each_file(&d, note_number, &d);
	if (r < 0)
		return why_fail(why, -r, "spill_dir = %s: %s", path, strerror(-r));
	*ret = d;
	d = SPILL_DIR_NULL;
	return 0;
}

void spill_dir_close(struct spill_dir *d)
{
	close_fd(&d->fd);
	close_fd(&d->lock_fd); /* and with it the lock */
}

/* ---- files ------------------------------------------------------------------------ */

/* For people to look at: no name of ours any more. */
static void set_aside(const struct spill_dir *d, const char *name)
{
	char aside[DISK_NAME_MAX + 4];

	snprintf(aside, sizeof(aside), "%s.bad", name);
	renameat(d->fd, name, d->fd, aside);
}

int spill_dir_look(const struct spill_dir *d, uint64_t number, struct sequence_file *ret, char *why)
{
	struct sequence_file head = { .magic = 0 };
	char name[DISK_NAME_MAX];
	CLOSE_FD int fd = -1;
	struct stat st;
	ssize_t n;
	int r;

	spill_dir_name(number, name);
	fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return why_fail(why, errno, "%s in spill_dir: %s", name, strerror(errno));
	n = pread(fd, &head, sizeof(head), 0);
	if (n < 0)
		return why_fail(why, errno, "%s in spill_dir: %s", name, strerror(errno));
	r = sequence_file_check(&head, (uint64_t)st.st_size, why);
	if (r < 0) {
		set_aside(d, name);
		return r;
	}
	*ret = head;
	return 0;
}

struct cleaning {
	const struct spill_dir *dir;
	const uint64_t *number;
	size_t n;
	unsigned removed;
};

static bool is_named(const struct cleaning *c, uint64_t number)
{
	size_t from = 0, to = c->n;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (c->number[middle] == number)
			return true;
		if (c->number[middle] < number)
			from = middle + 1;
		else
			to = middle;
	}
	return false;
}

static void clean(void *arg, const char *name, uint64_t number)
{
	struct cleaning *c = arg;
	bool whole = !strchr(strchr(name, '.') + 1, '.');

	if (whole && is_named(c, number))
		return;
	if (unlinkat(c->dir->fd, name, 0) == 0)
		c->removed++;
}

unsigned spill_dir_clean(const struct spill_dir *d, const uint64_t *number, size_t n)
{
	struct cleaning c = { d, number, n, 0 };

	each_file(d, clean, &c);
	return c.removed;
}
