/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the pages of another process are, asked of the kernel, and moving them behind its back.
 *
 *   pages where PID NAME        for each mapping whose line in maps has NAME: "node COUNT ..."
 * pairs pages migrate PID FROM TO   all its pages of one node to another, as migratepages(8) does
 *
 * Exit: 0, or 1 after a complaint.
 */
#include <errno.h>
#include <inttypes.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"

#define MAX_NODES 64
#define AT_ONCE 512

struct mapping {
	uintptr_t start, end;
	size_t page_bytes;
};

static int count(int pid, const struct mapping *m, size_t *ret_on, size_t *ret_unknown)
{
	for (uintptr_t at = m->start; at < m->end;) {
		void *page[AT_ONCE];
		int status[AT_ONCE];
		unsigned n = 0;

		for (; n < AT_ONCE && at < m->end; n++, at += m->page_bytes)
			page[n] = (void *)at;
		if (move_pages(pid, n, page, NULL, status, 0) < 0)
			return -errno;
		for (unsigned i = 0; i < n; i++) {
			if (status[i] >= 0 && status[i] < MAX_NODES)
				ret_on[status[i]]++;
			else
				++*ret_unknown;
		}
	}
	return 0;
}

static int print_mapping(int pid, const struct mapping *m)
{
	size_t on[MAX_NODES] = { 0 }, unknown = 0;
	int r = count(pid, m, on, &unknown);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < MAX_NODES; i++)
		if (on[i])
			printf("%u %zu ", i, on[i]);
	if (unknown)
		printf("unknown %zu", unknown);
	puts("");
	return 0;
}

static int where(int pid, const char *name)
{
	char path[64], line[512];
	struct mapping m = { 0 };
	bool ours = false;
	FILE *maps;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (r == 0 && fgets(line, sizeof(line), maps)) {
		unsigned long kib;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &m.start, &m.end) == 2)
			ours = strstr(line, name);
		else if (ours && sscanf(line, "KernelPageSize: %lu kB", &kib) == 1) {
			m.page_bytes = kib * KIB;
			r = print_mapping(pid, &m);
		}
	}
	fclose(maps);
	return r;
}

static int migrate(int pid, unsigned from, unsigned to)
{
	unsigned long old = 1ul << from, new = 1ul << to;

	/* Above 0: pages that could not be moved, those of shared libraries for one. */
	return migrate_pages(pid, MAX_NODES, &old, &new) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	int r = -EINVAL;

	if (argc == 4 && !strcmp(argv[1], "where"))
		r = where(atoi(argv[2]), argv[3]);
	else if (argc == 5 && !strcmp(argv[1], "migrate"))
		r = migrate(atoi(argv[2]), (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (r < 0)
		fprintf(stderr, "pages: %s\n", strerror(-r));
	return r < 0;
}
