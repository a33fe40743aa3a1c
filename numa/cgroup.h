/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory the control group of this process still allows. Past it the
 * kernel does not refuse, it kills.
 */
#pragma once

#include <stdint.h>

/* The least that any group from ours up to the root leaves, page cache counted as free;
 * UINT64_MAX: no limit, or none that can be read. `root` as in topo_read. */
uint64_t cgroup_memory_left(const char *root);
