/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors by name. */
#include "daemon/stash.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "shm/base.h"

bool stash_name_ok(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n >= STASH_NAME_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] >= 0x7f || name[i] == ':')
			return false;
	return true;
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

int stash_put(struct stash *s, const char *name, int fd)
{
	CLOSE_FD int taken = fd;

	if (!stash_name_ok(name))
		return -EINVAL;
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(s->held[i].name, name) == 0 && same_file(s->held[i].fd, taken))
			return 0;
	if (s->n == STASH_MOST)
		return -ENOSPC;
	strcpy(s->held[s->n].name, name);
	s->held[s->n++].fd = STEAL_FD(taken);
	return 1;
}

unsigned stash_remove(struct stash *s, const char *name)
{
	unsigned left = 0, before = s->n;

	for (unsigned i = 0; i < before; i++) {
		if (strcmp(s->held[i].name, name) == 0)
			close_fd(&s->held[i].fd);
		else
			s->held[left++] = s->held[i];
	}
	s->n = left;
	return before - left;
}

void stash_deinit(struct stash *s)
{
	for (unsigned i = 0; i < s->n; i++)
		close_fd(&s->held[i].fd);
	s->n = 0;
}
