/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows whose every bit can be read back through attention.
 *
 * K of a row is two words of 32 signs: one says which group of 32 rows it is in, the other which of
 * the group it is, and which version (a row that was cut off and appended again has
 * another one). The words are of a code with distance 8, so a query that repeats one of them scores
 * the rows that have it alike and all others so much lower that the softmax gives
 * them no weight. What comes back is the mean of V over exactly those rows, and the log-sum-exp
 * says how they scored. V are integers, so sums are exact in any order.
 *
 * Each row is in two such sets, its group's and its word's: a row that is wrong in K or V is wrong
 * in both. scale is ln 2: scores become integers where a kernel works in base 2.
 *
 * A quantised cache holds +1 and -1 nearly, so there a set is chosen less sharply and compared with
 * a tolerance that one wrong row exceeds five times.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CONTENT_DIM 64
#define CONTENT_HEADS 4 /* queries to one KV head */
#define CONTENT_SCALE 0.693147182f
#define CONTENT_ROW_FLOATS (2 * CONTENT_DIM)
#define CONTENT_ROW_BYTES (CONTENT_ROW_FLOATS * sizeof(float))
#define CONTENT_MAX_ROWS 512
#define CONTENT_SETS (CONTENT_MAX_ROWS + CONTENT_MAX_ROWS / 32) /* of one layer, at most */

/* What the rows of one layer of a sequence are. */
struct content {
	uint64_t key; /* of the sequence it began as: forks keep it */
	uint32_t layer, rows;
	const uint16_t *version; /* of each row */
};

/* k[CONTENT_DIM], then v[CONTENT_DIM]. */
void content_row(uint64_t key, uint32_t layer, uint32_t row, uint16_t version, float *ret);

/* The sets that cover all rows, twice. */
struct content_set {
	uint32_t word; /* of the code */
	bool upper;    /* word is that of a row in its group; else of a group */
	uint32_t n;
	int32_t sum[CONTENT_DIM];
};
struct content_sets {
	uint32_t n;
	struct content_set set[CONTENT_SETS];
};
void content_sets(const struct content *c, struct content_sets *ret);

/* Queries in rows of CONTENT_HEADS; the number of those rows. */
uint32_t content_queries(const struct content_sets *s, bool exact, float *ret);
/* Are these the answers? How many rows lie in sets that came back wrong, at most all. */
uint32_t content_check(const struct content_sets *s, bool exact, const float *o, const float *lse);
