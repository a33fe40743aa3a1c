/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that lies where it was asked to lie: a memfd of huge pages bound to a
 * node, populated, and then verified.
 *
 * mbind succeeds whatever the node has, and the fault comes later, so the order
 * is mbind, MADV_POPULATE_WRITE, move_pages (fallocate ignores the binding). What
 * the kernel says afterwards is what is reported.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numa/fill.h"

enum arena_pages { ARENA_HUGETLB_1G, ARENA_HUGETLB_2M, ARENA_THP, ARENA_SMALL };

struct arena {
	void *base;
	size_t bytes;      /* a multiple of 2 MiB */
	size_t page_bytes; /* of the backing: 1 GiB, 2 MiB or 4 KiB (THP only in part, too) */
	enum arena_pages pages;
	int node;               /* the kernel's number, -1: not bound */
	int fd;                 /* the memfd: the daemon keeps it, a restart maps it again */
	size_t misplaced_pages; /* as last verified */
};
#define ARENA_NULL ((struct arena){ .fd = -1, .node = -1 })

struct arena_params {
	const char *name;
	size_t bytes;          /* rounded up to 2 MiB; 1 GiB pages: only a multiple */
	int node;              /* -1: anywhere */
	const cpu_set_t *cpus; /* of the node, to fill it with; NULL: one thread */
	bool want_1g, want_2m; /* try these first, in this order */
};

#define ARENA_WHY_BYTES 200

/* Falls back from 1 GiB to 2 MiB pages to THP shmem; ret->pages says what it became and
 * `why` (may be NULL) why it fell, "" if it did not. -ENOMEM, -errno. */
int arena_create(const struct arena_params *p, struct arena *ret, char *why);
/* The same for `n` at once, which are filled side by side. All or none: after an error `why` of the
 * one that failed says why, others have "". `progress` may end it, see fill.h. */
int arena_create_all(const struct arena_params *p, unsigned n, fill_progress *progress, void *arg,
		     struct arena *ret, char (*why)[ARENA_WHY_BYTES]);
/* Maps a kept descriptor again (restart); size and page kind are read from it. Takes the
 * descriptor on success. */
int arena_adopt(int fd, int node, struct arena *ret);
/* Asks the kernel where every page is; counts those not on arena->node. Pages never touched
 * by this process are touched first. */
int arena_verify(struct arena *a);
#define ARENA_SLICE_PAGES 512u
/* The same for pages [first, first + n), at most ARENA_SLICE_PAGES, of an arena that is in use:
 * changes nothing of it. */
int arena_verify_slice(const struct arena *a, size_t first, unsigned n, size_t *ret_misplaced);
/* Moves those that are not on its node there, while others use them; copies n pages at most. What
 * there is no room for stays where it is. -errno. */
int arena_bring_back(const struct arena *a, size_t first, unsigned n);
void arena_deinit(struct arena *a);
const char *arena_pages_name(enum arena_pages p); /* "hugetlb 2 MiB", "THP shmem", ... */
