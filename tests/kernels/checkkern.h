/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our checkasm: every row of the kernel table against the reference, so that a
 * row cannot be untested. All randomness comes from one seed, which is printed
 * and can be given again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "kernels/table.h"

struct check {
	uint64_t seed, random; /* of this case; state of the generator */
	const char *isa, *format, *where;
	uint64_t done, failed;
	bool quiet; /* a control run: failures are what we want */
};

/* A buffer that ends at a page nobody may touch, with bytes before it that must not change. */
struct guarded {
	void *data;
	size_t size;
	void *map;
	size_t map_size;
};

struct guarded guarded_new(size_t size);
void guarded_free(struct guarded *g);
bool guarded_intact(const struct guarded *g);

uint64_t check_random(struct check *c);
uint32_t check_below(struct check *c, uint32_t n); /* 0 .. n - 1 */
float check_unit(struct check *c);                 /* -1 .. 1 */
float check_normal(struct check *c);

/* |got - want| <= bound; NaN fails. Returns whether it held. */
bool check_near(struct check *c, const char *what, double got, double want, double bound);
bool check_true(struct check *c, const char *what, bool held);
bool check_enough(const struct check *c); /* a control run has seen its error */
/* Names the case that the next failures belong to. */
void check_case(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

void check_rows(struct check *c, const struct kv_kernels *k);
/* Numbers that are none, and infinities, in rows and in what multiplies them. */
void check_special(struct check *c, const struct kv_kernels *k);
void check_ops(struct check *c, const struct kv_ops *o);
void check_lanes(struct check *c, const struct kv_ops *o);
/* One stage of a size of chance. */
void check_op_case(struct check *c, const struct kv_ops *o);
/* So many calls of the stages of one row of the table, or of the others (k NULL), everything about
 * them of chance. Each CHECK_CALLS of them have a seed of their own. */
void check_random_cases(struct check *c, const struct kv_kernels *k, const struct kv_ops *o,
			uint64_t cases);
#define CHECK_CALLS 16u
void check_golden_rows(struct check *c, const struct kv_kernels *k, const char *path);
void check_golden_ops(struct check *c, const struct kv_ops *o, const char *path);
void check_cpu(struct check *c);
/* Rows that are wrong on purpose: each must fail. */
void check_control(struct check *c, const struct kv_kernels *k, const struct kv_ops *o);

void bench_rows(const struct kv_kernels *k, const struct kv_kernels *scalar);
void bench_ops(const struct kv_ops *o, const struct kv_ops *scalar);
