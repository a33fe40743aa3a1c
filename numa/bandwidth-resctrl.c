/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory bandwidth monitoring of resctrl: what passed the last-level caches, of the monitoring
 * group "sparqd" if there is one (sparqd-resctrl(8) makes it), else of the whole machine. mon_data
 * has a folder for each cache; the kernel says "Unavailable" or "Unassigned" where the hardware
 * has no figure, and that is none: never 0.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/bandwidth.h"
#include "numa/sysfs.h"
#include "shm/base.h"

#define RESCTRL "sys/fs/resctrl"
#define GROUP RESCTRL "/mon_groups/sparqd"
#define DOMAINS_MAX 64u

struct bandwidth {
	bool of_group;
	unsigned n;
	unsigned cache[DOMAINS_MAX]; /* ids of the node's last-level caches */
	uint64_t first[DOMAINS_MAX];
};

static int probe(const struct bandwidth_machine *m, char *why)
{
	char features[256];
	int r = sysfs_text(m->root, RESCTRL "/info/L3_MON/mon_features", features,
			   sizeof(features));

	if (r == 0 && strstr(features, "mbm_total_bytes"))
		return 0;
	if (r == 0 || faccessat(m->root, RESCTRL "/info", F_OK, 0) == 0)
		snprintf(why, BANDWIDTH_WHY_BYTES,
			 "this processor's resctrl does not count bandwidth");
	else if (r == -EACCES)
		snprintf(why, BANDWIDTH_WHY_BYTES, "/sys/fs/resctrl: %s", strerror(-r));
	else
		snprintf(
			why, BANDWIDTH_WHY_BYTES,
			"not mounted: mount -t resctrl resctrl /sys/fs/resctrl, if the CPU has it");
	return r == -EACCES ? r : -ENODEV;
}

/* Is this cache one of the node's? */
static bool is_of_node(const struct bandwidth_machine *m, unsigned cache, unsigned node)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		char path[96];
		uint64_t id;

		if (topo_node_of_cpu(m->topo, cpu) != (int)node)
			continue;
		snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/cache/index3/id", cpu);
		if (sysfs_number(m->root, path, &id) == 0 && id == cache)
			return true;
	}
	return false;
}

/* What a cache's file says: 0, -ENODATA with its own word in `why`. */
static int read_cache(const struct bandwidth_machine *m, const struct bandwidth *b, unsigned cache,
		      uint64_t *ret, char *why)
{
	char path[160], text[64], *end;
	int r;

	snprintf(path, sizeof(path), "%s/mon_data/mon_L3_%02u/mbm_total_bytes",
		 b->of_group ? GROUP : RESCTRL, cache);
	r = sysfs_text(m->root, path, text, sizeof(text));
	if (r < 0) {
		snprintf(why, BANDWIDTH_WHY_BYTES, "cache %u: %s", cache, strerror(-r));
		return r;
	}
	text[strcspn(text, "\n")] = '\0';
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || *end || !isdigit((unsigned char)text[0])) {
		snprintf(why, BANDWIDTH_WHY_BYTES, "cache %u: the kernel says \"%.40s\"", cache,
			 text);
		return -ENODATA;
	}
	return 0;
}

static int add_caches(const struct bandwidth_machine *m, unsigned node, struct bandwidth *b)
{
	int fd = openat(m->root, b->of_group ? GROUP "/mon_data" : RESCTRL "/mon_data",
			O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	unsigned cache;

	if (!d) {
		close_fd(&fd);
		return -errno;
	}
	while ((e = readdir(d)))
		if (b->n < DOMAINS_MAX && sscanf(e->d_name, "mon_L3_%u", &cache) == 1 &&
		    is_of_node(m, cache, node))
			b->cache[b->n++] = cache;
	closedir(d);
	return b->n ? 0 : -ENODEV;
}

static bool has_group(const struct bandwidth_machine *m)
{
	return faccessat(m->root, GROUP, F_OK, 0) == 0;
}

static int open_resctrl(const struct bandwidth_machine *m, unsigned node, struct bandwidth **ret,
			char *why)
{
	FREE_MEMORY struct bandwidth *b = calloc(1, sizeof(*b));
	int r = b ? 0 : -ENOMEM;

	if (r == 0) {
		b->of_group = has_group(m);
		r = add_caches(m, node, b);
	}
	if (r < 0) {
		snprintf(why, BANDWIDTH_WHY_BYTES, "no last-level cache of this node: %s",
			 strerror(-r));
		return r;
	}
	for (unsigned i = 0; i < b->n; i++) {
		r = read_cache(m, b, b->cache[i], &b->first[i], why);
		if (r < 0)
			return r;
	}
	*ret = STEAL_PTR(b);
	return 0;
}

/* One cache without a figure leaves the node without one. -ESTALE: what it was opened for, the
 * group or the whole machine, is not what is to be counted now. */
static int read_resctrl(const struct bandwidth_machine *m, struct bandwidth *b,
			struct bandwidth_count *ret, char *why)
{
	uint64_t sum = 0;

	if (has_group(m) != b->of_group) {
		snprintf(why, BANDWIDTH_WHY_BYTES, "the group sparqd has just been %s",
			 b->of_group ? "removed" : "made");
		return -ESTALE;
	}
	for (unsigned i = 0; i < b->n; i++) {
		uint64_t now = 0;
		int r = read_cache(m, b, b->cache[i], &now, why);

		if (r < 0)
			return r;
		if (now < b->first[i]) /* the group was made anew */
			b->first[i] = 0;
		sum += now - b->first[i];
	}
	*ret = BANDWIDTH_NOTHING;
	ret->total_bytes = sum;
	return 0;
}

static void close_resctrl(struct bandwidth *b)
{
	free(b);
}

const struct bandwidth_source bandwidth_resctrl = {
	.name = "resctrl",
	.probe = probe,
	.open = open_resctrl,
	.read = read_resctrl,
	.close = close_resctrl,
};
