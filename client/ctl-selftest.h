/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the checks of sparqctl selftest share: a session, a buffer cut into the
 * parts of a step, and rows with a query.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/sparq.h"

struct selftest {
	sparq *c;
	sparq_queue *queue;
	sparq_buf *buf;
	struct { /* in the arena, as the daemon is told */
		uint64_t item, report, lse, q, o, kv;
	} addr;
	struct { /* the same, as seen here */
		struct sparq_item *item;
		struct sparq_report *report;
		float *lse, *q, *o, *kv;
	} at;
	float *rows, *q; /* private: what the reference computes with */
	uint32_t n_rows;
	unsigned n, failed;
};

/* Prints one line. */
void selftest_check(struct selftest *t, bool ok, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int selftest_cache(struct selftest *t, const char *format, const char *policy, const char *options,
		   sparq_cache **ret);
/* Entries, one at a time: res of the completion, or the error of the wait. */
int selftest_append(struct selftest *t, sparq_seq *s, const float *rows, uint32_t at, uint32_t n);
int selftest_truncate(struct selftest *t, sparq_seq *s, uint32_t rows);
int selftest_attend(struct selftest *t, sparq_seq *s, uint32_t rows, struct sparq_cqe *ret);
/* Of the last attend, against a reference that sees the first and the newest rows of n. */
double selftest_error(struct selftest *t, const float *rows, uint32_t n, uint32_t first,
		      uint32_t recent);

/* ctl-selftest-seq.c: truncate, fork, and what must be refused. */
void selftest_sequences(struct selftest *t);
