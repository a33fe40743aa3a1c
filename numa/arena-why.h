/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel has to give an arena, and in words what it lacks and which command mends that. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "numa/arena.h"

struct arena_kind {
	enum arena_pages pages;
	unsigned memfd_flags;
	size_t page_bytes;
	const char *name;
};

/* Whether the node (-1: the machine) can serve it now, as far as the counters tell; `promised` is
 * what others are about to take of the memory that the control group leaves. */
bool arena_has_room(const struct arena_kind *k, int node, size_t bytes, size_t promised);
/* Why creating it failed with `error`. */
void arena_explain(const struct arena_kind *k, int node, size_t bytes, int error, char *why);
/* Adds what shmem lacks for huge pages; nothing if it has them. */
void arena_explain_shmem(const struct arena *a, char *why);
/* How much of a mapped arena is in huge pages of shmem. */
size_t arena_huge_bytes(const struct arena *a);
