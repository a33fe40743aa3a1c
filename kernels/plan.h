/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan: a short typed list of stage operations that a policy writes and a
 * back end runs. Typed handles make the compiler refuse a plan that attends to
 * scores. It prints, so a policy is tested without a kernel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint8_t i; } kv_val;  /* floats per row (and query head) */
typedef struct { uint8_t i; } kv_sel;  /* rows: a sorted list of runs */
typedef struct { uint8_t i; } kv_part; /* (y, lse, alpha) */

enum kv_op_kind {
	KV_OP_ALL, KV_OP_RANGE, KV_OP_WINDOW,
	KV_OP_SCORE, KV_OP_SCORE_DIMS, KV_OP_LOAD,
	KV_OP_TOPK, KV_OP_UNION, KV_OP_LOAD_SEL, KV_OP_STORE_SEL,
	KV_OP_ATTEND, KV_OP_WEIGHTS,
	KV_OP_MEAN_REST, KV_OP_MERGE, KV_OP_OUTPUT,
	KV_OP_ACCUM, KV_OP_KEEP,
	KV_OP_KINDS
};

enum kv_group_rule { KV_GROUP_SOFTMAX, KV_GROUP_LOGITS };
enum kv_mean { KV_MEAN_OFF, KV_MEAN_ALL, KV_MEAN_REST };

struct kv_op {
	uint8_t kind, a, b; /* operands: indices of earlier operations */
	uint8_t slot;
	uint32_t n[4];      /* numbers, by kind; plan.c names them in the text form */
};
#define KV_PLAN_OPS 24

struct kv_plan {
	uint8_t n_ops;
	int8_t error; /* first builder error, -errno */
	uint16_t rsv;
	struct kv_op op[KV_PLAN_OPS];
};

void kv_plan_init(struct kv_plan *p);

/* candidates */
kv_sel kv_plan_all(struct kv_plan *p);
kv_sel kv_plan_range(struct kv_plan *p, uint32_t first, uint32_t n);
/* first and newest rows */
kv_sel kv_plan_window(struct kv_plan *p, uint32_t sinks, uint32_t recent);
/* scoring */
kv_val kv_plan_score(struct kv_plan *p);                  /* exact q . K over all rows */
/* r channels, with SparQ's temperature */
kv_val kv_plan_score_dims(struct kv_plan *p, uint32_t r);
kv_val kv_plan_load(struct kv_plan *p, unsigned slot);
/* selection: `recent` newest candidates count inside k; sealed_only leaves sinks and tail to the
 * caller */
struct kv_topk { uint32_t k, recent; enum kv_group_rule rule; bool sealed_only; };
kv_sel kv_plan_topk(struct kv_plan *p, kv_val v, struct kv_topk how);
kv_sel kv_plan_union(struct kv_plan *p, kv_sel a, kv_sel b);
/* all sinks and the whole tail: a WINDOW of the step's sizes */
kv_sel kv_plan_recent(struct kv_plan *p);
kv_sel kv_plan_load_sel(struct kv_plan *p, unsigned slot);
void kv_plan_store_sel(struct kv_plan *p, unsigned slot, kv_sel s);
/* attention and what follows */
kv_part kv_plan_attend(struct kv_plan *p, kv_sel s);
kv_val kv_plan_weights(struct kv_plan *p, kv_part a);
kv_part kv_plan_mean_rest(struct kv_plan *p, kv_part a, kv_val scores, enum kv_mean how);
kv_part kv_plan_merge(struct kv_plan *p, kv_part a, kv_part b);
void kv_plan_output(struct kv_plan *p, kv_part a);
/* upkeep */
void kv_plan_accum(struct kv_plan *p, unsigned slot, kv_val v);
void kv_plan_keep(struct kv_plan *p, kv_sel s);

/* Types, operands and one output: 0, or -EINVAL with `why`. */
int kv_plan_check(const struct kv_plan *p, char *why, size_t n);
bool kv_plan_is_dense(const struct kv_plan *p);
/* One operation a line; how many bytes it needs. */
size_t kv_plan_text(const struct kv_plan *p, char *ret, size_t n);
