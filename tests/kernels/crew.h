/* SPDX-License-Identifier: Apache-2.0 */
/* The shares of a step run by several threads at once, as a daemon's workers do. */
#pragma once

#include "tests/kernels/rig.h"

/* As rig_attend, but the shares of all KV heads are drawn by `workers` threads, in an order of
 * chance, and whoever runs the last one of a head finishes it. */
void crew_attend(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		 void *scratch, unsigned workers, uint64_t random, struct kv_result *ret);
/* NULL: the same bits. What differs of two results of one KV head with `heads` rows of y. */
const char *crew_differs(const struct kv_result *a, const struct kv_result *b, size_t heads,
			 uint32_t dim);
