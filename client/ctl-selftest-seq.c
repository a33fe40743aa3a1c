/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The half of sparqctl selftest that is about sequences: after a truncate or a
 * fork each side must see its own rows and no others, and a mistake must be
 * refused with its reason.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl-reference.h"
#include "client/ctl-selftest.h"
#include "shm/base.h"

#define BOUND 2e-3 /* of the format f16 */
#define KEPT 700u  /* below what is quantised, so that a tile is cut */
#define KEPT_TAIL 6u

/* Attends to all `n` rows and compares with those that should be there. */
static void check_rows(struct selftest *t, sparq_seq *s, const float *rows, uint32_t n,
		       const char *what)
{
	struct sparq_cqe cqe = {};
	int r = selftest_attend(t, s, n, &cqe);
	double error;

	if (r < 0) {
		selftest_check(t, false, "%s: %s: %s", what, strerror(-r),
			       sparq_reason(cqe.aux >> 16));
		return;
	}
	error = selftest_error(t, rows, n, 0, n);
	selftest_check(t, error <= BOUND, "%s: error %.2g of at most %.2g", what, error, BOUND);
}

static void check_count(struct selftest *t, sparq_seq *s, uint64_t rows, const char *what)
{
	struct sparq_seq_stat stat = { .size = sizeof(stat) };
	int r = sparq_seq_stat_get(s, SPARQ_LAYER_ALL, &stat);

	selftest_check(t, r >= 0 && stat.rows_least == rows && stat.rows_most == rows,
		       "%s: %llu rows of %llu", what, (unsigned long long)stat.rows_most,
		       (unsigned long long)rows);
}

static void expect(struct selftest *t, int r, int wanted, const char *what)
{
	selftest_check(t, r == wanted, "%s: %s", what, r < 0 ? strerror(-r) : "accepted");
}

/* The rows that the sequence has after it was cut and went on differently: the first `kept` of the
 * old ones, then the last ones of the old, which are not what was there before. */
static float *other_rows(struct selftest *t, uint32_t kept)
{
	size_t row = (size_t)2 * 2 * 64;
	float *rows = malloc(t->n_rows * row * sizeof(float));

	if (!rows)
		return NULL;
	memcpy(rows, t->rows, kept * row * sizeof(float));
	for (uint32_t i = kept; i < t->n_rows; i++)
		memcpy(rows + i * row, t->rows + (t->n_rows - 1 - (i - kept)) * row,
		       row * sizeof(float));
	return rows;
}

static void try_truncate(struct selftest *t, sparq_seq *s)
{
	FREE_MEMORY float *rows = other_rows(t, KEPT);
	size_t row = (size_t)2 * 2 * 64;
	uint32_t n = KEPT + 300;

	expect(t, selftest_truncate(t, s, t->n_rows - KEPT_TAIL), 1, "truncate in the tail");
	check_rows(t, s, t->rows, t->n_rows - KEPT_TAIL, "after it");
	expect(t, sparq_seq_truncate(s, KEPT), 0, "truncate below the tail");
	check_count(t, s, KEPT, "after it");
	check_rows(t, s, t->rows, KEPT, "after it");
	if (!rows)
		return;
	expect(t, selftest_append(t, s, rows + KEPT * row, KEPT, 300), 1, "append behind the cut");
	check_rows(t, s, rows, n, "after it");
}

static void try_fork(struct selftest *t, sparq_seq *s)
{
	FREE_MEMORY float *rows = other_rows(t, KEPT);
	size_t row = (size_t)2 * 2 * 64;
	sparq_seq *fork = NULL;
	int r = sparq_seq_fork(s, KEPT, &fork);

	expect(t, r, 0, "fork");
	if (r < 0 || !rows)
		return;
	check_count(t, fork, KEPT, "the fork");
	check_rows(t, fork, t->rows, KEPT, "the fork");
	expect(t, selftest_append(t, fork, rows + KEPT * row, KEPT, 400), 1, "append to the fork");
	check_rows(t, fork, rows, KEPT + 400, "the fork");
	check_rows(t, s, t->rows, t->n_rows, "its parent, unchanged");
	expect(t, sparq_seq_drop(fork), 0, "drop the fork");
	check_rows(t, s, t->rows, t->n_rows, "its parent, alone");
}

/* An entry as it should not be: res and reason. */
static void refuse(struct selftest *t, const struct sparq_sqe *bad, int res, uint32_t reason,
		   const char *what)
{
	struct sparq_sqe *e = sparq_get_sqe(t->queue);
	struct sparq_cqe *cqe;
	int r = -ENOTCONN;

	if (e) {
		memcpy(e, bad, offsetof(struct sparq_sqe, seq)); /* which is the library's */
		r = sparq_submit(t->queue, 1);
	}
	if (r >= 0)
		r = sparq_wait(t->queue, &cqe, INT64_C(10000000000));
	if (r < 0) {
		selftest_check(t, false, "%s: %s", what, strerror(-r));
		return;
	}
	selftest_check(t, cqe->res == res && cqe->aux >> 16 == reason, "refused: %s: %s", what,
		       cqe->res < 0 ? sparq_reason(cqe->aux >> 16) : "accepted");
	sparq_seen(t->queue, 1);
}

static void try_mistakes(struct selftest *t, sparq_seq *s)
{
	uint64_t id = sparq_seq_id(s), far = UINT64_C(1) << 40;
	struct sparq_sqe e;

	memset(&e, 0, sizeof(e));
	sparq_prep_append(&e, id, 0, t->addr.kv, t->n_rows + 1, 1);
	refuse(t, &e, -ESTALE, SPARQ_REASON_ROW, "a row that is not the next");
	sparq_prep_append(&e, id + 1, 0, t->addr.kv, 0, 1);
	refuse(t, &e, -ENOENT, SPARQ_REASON_SEQUENCE, "a sequence of nobody");
	sparq_prep_append(&e, id, 0, far, t->n_rows, 1);
	refuse(t, &e, -EINVAL, SPARQ_REASON_ADDRESS, "an address outside the arena");
	e.op = SPARQ_OP_COUNT;
	refuse(t, &e, -EINVAL, SPARQ_REASON_OP, "an operation that does not exist");
	check_rows(t, s, t->rows, t->n_rows, "after the mistakes");
}

void selftest_sequences(struct selftest *t)
{
	sparq_cache *k = NULL;
	sparq_seq *s = NULL;
	int r = selftest_cache(t, "f16", "dense", NULL, &k);

	if (r >= 0)
		r = sparq_seq_create(k, NULL, &s);
	if (r >= 0)
		r = selftest_append(t, s, t->rows, 0, t->n_rows);
	if (r < 0) {
		selftest_check(t, false, "a sequence: %s: %s", strerror(-r), sparq_error(t->c));
	} else {
		check_count(t, s, t->n_rows, "a sequence");
		try_fork(t, s);
		try_mistakes(t, s);
		try_truncate(t, s);
	}
	sparq_seq_unref(s);
	sparq_cache_unref(k);
}
