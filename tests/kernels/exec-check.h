/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One shape of the executor's test: builds the sequence, runs the plan forwards
 * and backwards, compares with the reference.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

struct shape {
	uint64_t random;
	uint32_t dim, rows, group, n_q, sinks, rollback;
	enum kv_dtype dtype;
	const char *k_format, *v_format, *policy;
	char sets[128]; /* "key=value " words for the policy */
	bool cut;       /* rows were cut inside a tile and written anew */
	bool settled;   /* the step's own rows were flushed before it, where due */
	bool full, draft;
	bool ordered;      /* channels in another order, another one for each KV head */
	uint32_t outliers; /* if ordered: the head's number is how many fewer it uses */
};

/* False and a line on stderr for each property that did not hold. */
bool exec_check(const struct shape *x);
