/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages set aside by node and size: what is asked for as text, and the asking. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESERVE_MOST 128 /* two sizes on each of 64 nodes */

struct reserve_item {
	int node;
	size_t page_bytes; /* 2 MiB or 1 GiB */
	uint64_t pages;
};

struct reserve {
	bool automatic; /* "auto": the caller says how many; no items */
	unsigned n;
	struct reserve_item item[RESERVE_MOST];
};

/* "auto", "no", or "node0:2M:4096,node1:1G:16". -EINVAL: neither, or a node and size twice. */
int reserve_parse(const char *text, struct reserve *ret);

struct reserved {
	uint64_t before, got; /* pages of that node and size, whoever uses them */
	bool compacted;       /* they were not to be had at first */
};

/* Has the node set so many pages aside in all; fewer than there are only if `exact`. 0 also where
 * fewer were to be had: see `got`. -ENOENT: no such node, or no such pages; -errno. `root` as in
 * topo_read. */
int reserve_pages(const char *root, const struct reserve_item *item, bool exact,
		  struct reserved *ret);
