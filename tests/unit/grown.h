/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence of one layer, as workers grow one, and attention over it: no ring, no threads. What a
 * row holds follows from its number.
 */
#pragma once

#include "daemon/seq.h"
#include "store-fixture.h"

#define GROWN_DIM 64u
#define GROWN_GROUP 2u
#define GROWN_MOST_KV_HEADS 4u
#define GROWN_EXTENTS 128u
#define GROWN_LANE (64 * MIB) /* scratch of a step, at most */

struct grown {
	struct store_fixture f;
	struct cache *cache;
	struct seq *seq;
	uint32_t kv_heads, rows;
};

struct grown_range {
	uint32_t row, n;
};

struct grown_answer {
	float y[GROWN_MOST_KV_HEADS * GROWN_GROUP * GROWN_DIM];
	float lse[GROWN_MOST_KV_HEADS * GROWN_GROUP];
	uint64_t bytes;
};

extern char grown_why[SPARQ_ERROR_TEXT]; /* of whatever was refused last */

struct sparq_msg_cache_create grown_request(uint32_t kv_heads, const char *format,
					    const char *policy, const char *options);
/* In a store of its own, as large. */
void grown_begin(struct grown *w, const struct sparq_msg_cache_create *m, size_t pool_bytes,
		 size_t catalogue_bytes);
/* And nothing is left of it. */
void grown_end(struct grown *w);

/* Number i of row `row`: from -1 to 1. */
float grown_value(uint32_t row, uint32_t i);
/* Rows [row, row + n): K, then V, of all heads each. Those of `wrong` (NULL: none) are of other
 * sizes and signs. */
void grown_fill(const struct grown *w, float *kv, uint32_t row, uint32_t n,
		const struct grown_range *wrong);
void grown_append(struct grown *w, uint32_t rows, const struct grown_range *wrong);
/* One query that sees all. */
struct grown_answer grown_attend(struct grown *w);
