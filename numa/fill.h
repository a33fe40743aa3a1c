/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Populating memory as fast as its nodes can be written: threads that run where
 * each range is bound clear it, slice by slice, all ranges at once.
 */
#pragma once

#include <sched.h>
#include <stddef.h>

struct fill_range {
	void *base;
	size_t bytes, page_bytes;
	const cpu_set_t *cpus; /* near it: a thread for each, within limits; NULL: one, anywhere */
	int error;             /* set here: 0, -ENOMEM (a touch would have been SIGBUS), -errno */
};
#define FILL_RANGE_NULL ((struct fill_range){ .base = NULL })

/* Called by the thread that fills, about ten times a second and at the end. Not 0 ends the filling
 * with that value. */
typedef int fill_progress(void *arg, size_t done, size_t total);

/* Bound ranges, in any pages. 0 also when some range has an error, which ends the filling of that
 * range alone; what `progress` (may be NULL) returned, within a slice. */
int fill_ranges(struct fill_range *ranges, unsigned n, fill_progress *progress, void *arg);
/* One piece, by the calling thread: as an error of a range. */
int fill_here(void *base, size_t bytes);
