/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory, and how many huge pages, the control group of this process
 * still allows. Past it the kernel does not refuse, it kills.
 */
#pragma once

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* The group, from ours up to the root, that leaves the least. */
struct cgroup_room {
	uint64_t left, limit; /* UINT64_MAX: no limit, or none that can be read */
	char file[PATH_MAX];  /* of that limit, below the root of the tree; "" */
};
#define CGROUP_ROOM_NULL ((struct cgroup_room){ .left = UINT64_MAX, .limit = UINT64_MAX })

/* `root` as in topo_read. Page cache counts as free. */
void cgroup_memory_room(const char *root, struct cgroup_room *ret);
uint64_t cgroup_memory_left(const char *root);
/* Of reserved pages of a size: 2 MiB or 1 GiB. */
void cgroup_hugetlb_room(const char *root, size_t page_bytes, struct cgroup_room *ret);
