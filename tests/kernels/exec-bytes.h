/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step has to read, counted row by row with the formulas written out
 * once more: the kernels' own must agree.
 */
#pragma once

#include "tests/kernels/rig.h"

/* Channels of K that sealed rows hold apart, and how many of them scoring chose. */
struct bytes_apart {
	uint32_t all, scored;
};

void bytes_expected(const struct rig *r, const struct kv_plan *plan, const struct kv_query *query,
		    struct bytes_apart apart, const bool *chosen, uint64_t ret_planes[KV_PLANES]);
