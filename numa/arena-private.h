/* SPDX-License-Identifier: Apache-2.0 */
/* Between arena.c and arena-create.c. */
#pragma once

#include "numa/arena-why.h"

extern const struct arena_kind arena_kinds[]; /* by enum arena_pages */

bool arena_is_hugetlb(enum arena_pages p);
/* Into memory, bound to its node and not populated yet. */
int arena_map(struct arena *a);
/* What it became, once populated: its kind of pages, and where they are. */
int arena_look(struct arena *a);
