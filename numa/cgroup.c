/* SPDX-License-Identifier: Apache-2.0 */
/* Memory limits of control groups, of both versions of their file system. */
#include "numa/cgroup.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "numa/sysfs.h"
#include "shm/base.h"

#define NO_LIMIT (UINT64_C(1) << 62) /* version 1 says it as a number near 2^63 */

/* The names of one version's files, below the mount point of its hierarchy. */
struct layout {
	const char *entry; /* what its line in /proc/self/cgroup has before the path */
	const char *mount, *limit, *used;
	const char *active_cache, *inactive_cache; /* in memory.stat; NULL: no cache in it */
};

static const struct layout memory_layouts[] = {
	{ "0::", "sys/fs/cgroup", "memory.max", "memory.current", "active_file ",
	  "inactive_file " },
	{ ":memory:", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
	  "total_active_file ", "total_inactive_file " },
};

static const struct layout small_layouts[] = {
	{ "0::", "sys/fs/cgroup", "hugetlb.2MB.max", "hugetlb.2MB.current", NULL, NULL },
	{ ":hugetlb:", "sys/fs/cgroup/hugetlb", "hugetlb.2MB.limit_in_bytes",
	  "hugetlb.2MB.usage_in_bytes", NULL, NULL },
};

static const struct layout large_layouts[] = {
	{ "0::", "sys/fs/cgroup", "hugetlb.1GB.max", "hugetlb.1GB.current", NULL, NULL },
	{ ":hugetlb:", "sys/fs/cgroup/hugetlb", "hugetlb.1GB.limit_in_bytes",
	  "hugetlb.1GB.usage_in_bytes", NULL, NULL },
};

static uint64_t cached(int root, const char *group, const struct layout *l)
{
	char path[PATH_MAX + 64], stat[8192];
	const char *active, *inactive;

	snprintf(path, sizeof(path), "%s/memory.stat", group);
	if (sysfs_text(root, path, stat, sizeof(stat)) < 0)
		return 0;
	active = sysfs_field(stat, l->active_cache);
	inactive = sysfs_field(stat, l->inactive_cache);
	return (active ? strtoull(active, NULL, 10) : 0) +
	       (inactive ? strtoull(inactive, NULL, 10) : 0);
}

/* What one group leaves, if it is less than what is known; "max" is no number and so no limit, as
 * is a missing file, and so is what version 1 has in its place. */
static void look_at(int root, const char *group, const struct layout *l, struct cgroup_room *room)
{
	char path[PATH_MAX + 64], file[PATH_MAX + 64];
	uint64_t limit, used, left;

	snprintf(file, sizeof(file), "%s/%s", group, l->limit);
	if (sysfs_number(root, file, &limit) < 0 || limit >= NO_LIMIT)
		return;
	snprintf(path, sizeof(path), "%s/%s", group, l->used);
	if (sysfs_number(root, path, &used) < 0)
		return;
	if (l->active_cache)
		used -= MIN(used, cached(root, group, l));
	left = limit - MIN(limit, used);
	if (left >= room->left)
		return;
	room->left = left;
	room->limit = limit;
	snprintf(room->file, sizeof(room->file), "%.*s", (int)sizeof(room->file) - 1, file);
}

/* Our group's path in this hierarchy, as a string of its own; NULL. */
static char *group_path(char *groups, const struct layout *l)
{
	char *at = strstr(groups, l->entry);

	if (!at)
		return NULL;
	at += strlen(l->entry);
	at[strcspn(at, "\n")] = '\0';
	return at;
}

static void look_at_hierarchy(int root, const struct layout *l, struct cgroup_room *room)
{
	char groups[8192], group[PATH_MAX], *path, *slash;

	if (sysfs_text(root, "proc/self/cgroup", groups, sizeof(groups)) < 0)
		return;
	path = group_path(groups, l);
	if (!path ||
	    (size_t)snprintf(group, sizeof(group), "%s%s", l->mount, path) >= sizeof(group))
		return;
	/* From our group to the one above it, until the mount point itself has been asked. */
	for (;;) {
		look_at(root, group, l, room);
		slash = strrchr(group + strlen(l->mount), '/');
		if (!slash)
			return;
		*slash = '\0';
	}
}

/* Both versions' hierarchies: a machine may have one, or a half of each. */
static void find_room(const char *root, const struct layout layouts[2], struct cgroup_room *ret)
{
	CLOSE_FD int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	*ret = CGROUP_ROOM_NULL;
	for (unsigned i = 0; dir >= 0 && i < 2; i++)
		look_at_hierarchy(dir, &layouts[i], ret);
}

void cgroup_memory_room(const char *root, struct cgroup_room *ret)
{
	find_room(root, memory_layouts, ret);
}

uint64_t cgroup_memory_left(const char *root)
{
	struct cgroup_room room;

	cgroup_memory_room(root, &room);
	return room.left;
}

void cgroup_hugetlb_room(const char *root, size_t page_bytes, struct cgroup_room *ret)
{
	find_room(root, page_bytes == GIB ? large_layouts : small_layouts, ret);
}
