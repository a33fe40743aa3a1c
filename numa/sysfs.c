/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, lists and fields of sysfs and procfs. */
#include "numa/sysfs.h"

#include <fcntl.h>
#include <string.h>

#include "shm/base.h"

int sysfs_text(int dir, const char *path, char *ret, size_t n)
{
	CLOSE_FD int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;

	if (fd < 0)
		return -errno;
	while (used < n - 1) {
		ssize_t got = read(fd, ret + used, n - 1 - used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	ret[used] = '\0';
	return 0;
}

int sysfs_number(int dir, const char *path, uint64_t *ret)
{
	char text[32], *end;
	unsigned long long value;
	int r = sysfs_text(dir, path, text, sizeof(text));

	if (r < 0)
		return r;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (end == text || errno)
		return -EINVAL;
	*ret = value;
	return 0;
}

/* One range "3" or "3-7" into the set; what follows it. NULL: no range. */
static const char *parse_range(const char *text, cpu_set_t *set)
{
	char *end;
	long first = strtol(text, &end, 10), last = first;

	if (end == text || first < 0)
		return NULL;
	if (*end == '-') {
		text = end + 1;
		last = strtol(text, &end, 10);
		if (end == text)
			return NULL;
	}
	if (last < first || last >= CPU_SETSIZE)
		return NULL;
	for (long i = first; i <= last; i++)
		CPU_SET((size_t)i, set);
	return end;
}

int sysfs_parse_list(const char *text, cpu_set_t *ret)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	/* An empty list is a set too: a node without CPUs, nothing offline. */
	while (*text != '\0' && *text != '\n') {
		text = parse_range(text, &set);
		if (!text || !strchr(",\n", *text)) /* strchr finds the final NUL as well */
			return -EINVAL;
		if (*text == ',')
			text++;
	}
	*ret = set;
	return 0;
}

int sysfs_list(int dir, const char *path, cpu_set_t *ret)
{
	char text[4096];
	int r = sysfs_text(dir, path, text, sizeof(text));

	return r < 0 ? r : sysfs_parse_list(text, ret);
}

/* A key may stand behind "Node 0 ": what counts is that a word starts there. */
const char *sysfs_field(const char *text, const char *key)
{
	for (const char *at = strstr(text, key); at; at = strstr(at + 1, key)) {
		if (at != text && at[-1] != '\n' && at[-1] != ' ')
			continue;
		at += strlen(key);
		return at + strspn(at, " \t");
	}
	return NULL;
}

uint64_t sysfs_kilobytes(const char *text, const char *key)
{
	const char *field = sysfs_field(text, key);

	return field ? strtoull(field, NULL, 10) * KIB : 0;
}

uint64_t sysfs_available(const char *meminfo)
{
	return sysfs_kilobytes(meminfo, "MemFree:") + sysfs_kilobytes(meminfo, "Active(file):") +
	       sysfs_kilobytes(meminfo, "Inactive(file):");
}
