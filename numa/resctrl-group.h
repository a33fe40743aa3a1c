/* SPDX-License-Identifier: Apache-2.0 */
/* A monitoring group of resctrl for the threads of one service. */
#pragma once

#define RESCTRL_GROUP "sys/fs/resctrl/mon_groups/sparqd"
#define RESCTRL_WHY_BYTES 192

/*
 * Makes the group, if it is not there, and puts every thread of a control group into it, until
 * there was no other for `settle_ms`; threads that those make later are in it as well. `root` is a
 * directory, "/" in life, and `cgroup` a path below sys/fs/cgroup. *ret_threads is how many were in
 * the control group in the end.
 *
 * -ENODEV: no resctrl, or not mounted; -ENOSPC: no group is left; -ENOENT: no such control group,
 * or nobody in it; -errno. `why` says it, and what mends it.
 */
int resctrl_group(int root, const char *cgroup, unsigned settle_ms, unsigned *ret_threads,
		  char *why);
