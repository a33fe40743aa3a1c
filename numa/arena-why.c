/* SPDX-License-Identifier: Apache-2.0 */
/* The counters behind an arena, and its excuses. */
#include "numa/arena-why.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "numa/cgroup.h"
#include "numa/sysfs.h"
#include "shm/base.h"

#define THP_FILE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

struct huge_counters {
	bool known; /* the kernel has this page size (and this node) */
	uint64_t total, free, overcommit;
};

static void huge_directory(int node, size_t page_bytes, char *ret, size_t n)
{
	if (node < 0)
		snprintf(ret, n, "/sys/kernel/mm/hugepages/hugepages-%zukB", page_bytes / KIB);
	else
		snprintf(ret, n, "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB", node,
			 page_bytes / KIB);
}

static uint64_t counter(const char *directory, const char *name)
{
	char path[160];
	uint64_t value = 0;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	sysfs_number(AT_FDCWD, path, &value);
	return value;
}

static struct huge_counters count_huge(int node, size_t page_bytes)
{
	struct huge_counters c = { 0 };
	char directory[96];
	uint64_t reserved;

	huge_directory(node, page_bytes, directory, sizeof(directory));
	c.known = access(directory, R_OK) == 0;
	c.total = counter(directory, "nr_hugepages");
	c.free = counter(directory, "free_hugepages");
	/* Promised to mappings that have not touched them yet; counted for the machine only. */
	reserved = counter(directory, "resv_hugepages");
	c.free -= MIN(c.free, reserved);
	huge_directory(-1, page_bytes, directory, sizeof(directory));
	c.overcommit = counter(directory, "nr_overcommit_hugepages");
	return c;
}

static uint64_t available_memory(int node)
{
	char path[80] = "/proc/meminfo", text[8192];

	if (node >= 0)
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	if (sysfs_text(AT_FDCWD, path, text, sizeof(text)) < 0)
		return node >= 0 ? 0 : UINT64_MAX;
	return sysfs_available(text);
}

bool arena_has_room(const struct arena_kind *k, int node, size_t bytes, size_t promised)
{
	struct huge_counters c;

	if (k->memfd_flags == 0)
		return bytes <= available_memory(node) &&
		       bytes + promised <= cgroup_memory_left("/");
	c = count_huge(node, k->page_bytes);
	return c.known && bytes / k->page_bytes <= c.free + c.overcommit;
}

/* "node 3: " or nothing. */
static const char *where(int node, char *buffer, size_t n)
{
	if (node < 0)
		return "";
	snprintf(buffer, n, "node %d: ", node);
	return buffer;
}

static void explain_memory(int node, size_t bytes, int error, char *why)
{
	uint64_t available = available_memory(node), left = cgroup_memory_left("/");
	char at[24];

	if (left < bytes && left < available)
		snprintf(why, ARENA_WHY_BYTES,
			 "the cgroup leaves %" PRIu64
			 " MiB for %zu MiB: raise MemoryMax= of the unit",
			 left / MIB, bytes / MIB);
	else
		snprintf(why, ARENA_WHY_BYTES, "%s%" PRIu64 " MiB available for %zu MiB: %s",
			 where(node, at, sizeof(at)), available / MIB, bytes / MIB,
			 strerror(-error));
}

static const char *page_word(const struct arena_kind *k)
{
	return k->page_bytes == GIB ? "1 GiB" : "2 MiB";
}

static void explain_count(const struct arena_kind *k, int node, uint64_t need,
			  const struct huge_counters *c, char *why)
{
	char at[24], directory[96];
	uint64_t total = c->total + need - c->free;
	int n = snprintf(why, ARENA_WHY_BYTES, "%s%" PRIu64 " of %" PRIu64 " %s pages free; ",
			 where(node, at, sizeof(at)), c->free, need, page_word(k));

	if (node < 0 && k->page_bytes == 2 * MIB) {
		snprintf(why + n, ARENA_WHY_BYTES - (size_t)n, "sysctl vm.nr_hugepages=%" PRIu64,
			 total);
		return;
	}
	huge_directory(node, k->page_bytes, directory, sizeof(directory));
	snprintf(why + n, ARENA_WHY_BYTES - (size_t)n, "echo %" PRIu64 " > %s/nr_hugepages", total,
		 directory);
}

void arena_explain(const struct arena_kind *k, int node, size_t bytes, int error, char *why)
{
	struct huge_counters c = count_huge(node, k->page_bytes);
	uint64_t need = bytes / k->page_bytes;
	char at[24];

	if (error == -ERANGE)
		snprintf(why, ARENA_WHY_BYTES, "%zu MiB are no multiple of %s pages", bytes / MIB,
			 page_word(k));
	else if (k->memfd_flags == 0)
		explain_memory(node, bytes, error, why);
	else if (!c.known)
		snprintf(why, ARENA_WHY_BYTES, "%sno %s pages in this kernel",
			 where(node, at, sizeof(at)), page_word(k));
	else if (c.free < need)
		explain_count(k, node, need, &c, why);
	else
		snprintf(why, ARENA_WHY_BYTES,
			 "%s%s pages: %s though %" PRIu64
			 " are free; see the hugetlb limit of the cgroup",
			 where(node, at, sizeof(at)), page_word(k), strerror(-error), c.free);
}

/* The chosen word of "always [never] deny". */
static void chosen_word(const char *path, char *ret, size_t n)
{
	char text[128], *open, *close;

	snprintf(ret, n, "absent");
	if (sysfs_text(AT_FDCWD, path, text, sizeof(text)) < 0)
		return;
	open = strchr(text, '[');
	close = open ? strchr(open, ']') : NULL;
	if (close)
		snprintf(ret, n, "%.*s", (int)(close - open - 1), open + 1);
}

void arena_explain_shmem(const struct arena *a, char *why)
{
	size_t used = strlen(why), huge = arena_huge_bytes(a);
	const char *between = used > 0 ? "; " : "";
	char word[16];

	if (huge == a->bytes)
		return;
	chosen_word(THP_FILE, word, sizeof(word));
	if (huge > 0)
		snprintf(why + used, ARENA_WHY_BYTES - used, "%s%zu of %zu MiB in huge pages",
			 between, huge / MIB, a->bytes / MIB);
	else if (used > 0)
		snprintf(why + used, ARENA_WHY_BYTES - used, "; THP shmem: %s", word);
	else
		snprintf(why, ARENA_WHY_BYTES, "THP for shmem is '%s'; echo advise > " THP_FILE,
			 word);
}

size_t arena_huge_bytes(const struct arena *a)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	char line[512];
	size_t bytes = 0;
	bool ours = false;
	uintptr_t start, end;

	if (!maps)
		return 0;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
			ours = start >= (uintptr_t)a->base && end <= (uintptr_t)a->base + a->bytes;
		else if (ours)
			bytes += sysfs_kilobytes(line, "ShmemPmdMapped:");
	}
	fclose(maps);
	return bytes;
}
