/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's private memory for one step: reserved once, cut from the front,
 * emptied between waves. It bounds what a step may use beside the pools, so
 * that nothing is allocated on the token path. Header only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "shm/base.h"

struct lane {
	uint8_t *base;
	size_t bytes, used;
};
#define LANE_NULL ((struct lane){ 0 })

static inline int lane_init(struct lane *l, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	madvise(p, bytes,
		MADV_HUGEPAGE); /* fewer faults in long scans; not having it is no error */
	*l = (struct lane){ .base = p, .bytes = bytes };
	return 0;
}

static inline void lane_deinit(struct lane *l)
{
	if (l->base)
		munmap(l->base, l->bytes);
	*l = LANE_NULL;
}

/* 128-byte aligned, not zeroed; NULL when the lane is full. */
static inline void *lane_take(struct lane *l, uint64_t bytes)
{
	void *p = l->base + l->used;

	if (bytes > l->bytes - l->used)
		return NULL;
	bytes = ALIGN_UP(bytes, 128);
	l->used = bytes > l->bytes - l->used ? l->bytes : l->used + bytes;
	return p;
}
