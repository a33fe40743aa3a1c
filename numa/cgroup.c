/* SPDX-License-Identifier: Apache-2.0 */
/* Memory limits of control groups, of both versions of their file system. */
#include "numa/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "numa/sysfs.h"
#include "shm/base.h"

/* The names of one version's files, below the mount point of its hierarchy. */
struct layout {
	const char *entry; /* what its line in /proc/self/cgroup has before the path */
	const char *mount, *limit, *used;
	const char *active_cache, *inactive_cache; /* in memory.stat */
};

static const struct layout layouts[] = {
	{ "0::", "sys/fs/cgroup", "memory.max", "memory.current", "active_file ",
	  "inactive_file " },
	{ ":memory:", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
	  "total_active_file ", "total_inactive_file " },
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

/* What one group leaves; "max" is no number and so no limit, as is a missing file. */
static uint64_t left_in(int root, const char *group, const struct layout *l)
{
	char path[PATH_MAX + 64];
	uint64_t limit, used;

	snprintf(path, sizeof(path), "%s/%s", group, l->limit);
	if (sysfs_number(root, path, &limit) < 0)
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%s/%s", group, l->used);
	if (sysfs_number(root, path, &used) < 0)
		return UINT64_MAX;
	used -= MIN(used, cached(root, group, l));
	return limit - MIN(limit, used);
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

static uint64_t left_in_hierarchy(int root, const struct layout *l)
{
	char groups[8192], group[PATH_MAX], *path, *slash;
	uint64_t least = UINT64_MAX;

	if (sysfs_text(root, "proc/self/cgroup", groups, sizeof(groups)) < 0)
		return UINT64_MAX;
	path = group_path(groups, l);
	if (!path ||
	    (size_t)snprintf(group, sizeof(group), "%s%s", l->mount, path) >= sizeof(group))
		return UINT64_MAX;
	/* From our group to the one above it, until the mount point itself has been asked. */
	for (;;) {
		uint64_t left = left_in(root, group, l);

		least = MIN(least, left);
		slash = strrchr(group + strlen(l->mount), '/');
		if (!slash)
			return least;
		*slash = '\0';
	}
}

uint64_t cgroup_memory_left(const char *root)
{
	CLOSE_FD int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t least = UINT64_MAX;

	if (dir < 0)
		return UINT64_MAX;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		uint64_t left = left_in_hierarchy(dir, &layouts[i]);

		least = MIN(least, left);
	}
	return least;
}
