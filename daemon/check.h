/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is an entry, or an item, well-formed? Pure functions of the daemon's private
 * copy and private sizes: no state, no shared memory. Fuzzed.
 *
 * All arithmetic is in 64 bits; ranges are checked after widening, zero lengths
 * like others.
 */
#pragma once

#include <stdint.h>

#include "shm/sparq-abi.h"

struct check_limits {
	uint64_t arena_bytes;
	uint32_t max_items, max_rows;
};

struct check_shape { /* of the sequence's cache */
	uint32_t layers, heads, kv_heads, k_dim, v_dim, dtype_bytes;
};

/* Results: 0, or a negative errno with *ret_reason = SPARQ_REASON_*. */

/* What can be said before the sequence is known: operation, flags, class, unused fields, items. */
int check_entry(const struct sparq_sqe *e, const struct check_limits *l, uint32_t *ret_reason);
/* An entry without items seen as its own item. */
struct sparq_item check_item_of_entry(const struct sparq_sqe *e);
/* What needs the geometry: rows, queries, addresses with strides, alignment, reserved fields. */
int check_item(const struct sparq_sqe *e, const struct sparq_item *i, const struct check_limits *l,
	       const struct check_shape *s, uint32_t *ret_reason);
