/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random rows of one KV head of a cache, laid out as a sequence lays them out
 * (sinks, sealed tiles, tail), on the heap: what Explain measures bytes on and
 * SelfTest compares with float64. No sequence, no pool, no quota: memory of
 * its own, given back at once.
 */
#pragma once

#include <stdint.h>

#include "daemon/catalogue.h"
#include "kernels/kernels.h"

#define SAMPLE_ROWS_MAX 32768u /* a fraction of a second to make */
#define SAMPLE_Q_MAX KV_MAX_DECODE_Q
/* Numbers that a dense step of one KV head multiplies: as many again. */
#define SAMPLE_PRODUCTS_MAX (UINT64_C(1) << 30)

struct sample {
	_Alignas(8)
		uint8_t args[KV_POLICY_ARGS_BYTES]; /* what space.args points at: must not move */
	struct kv_space space; /* of one layer: one KV head, and its group of heads */
	struct kv_view view;
	struct kv_extent *extent;
	void *memory;
	float *rows; /* as sent: [rows][k_dim + v_dim] */
	float *q;    /* [n_q][group][k_dim] */
	uint32_t n_rows, n_q;
};

/* Of one layer. `rows` at most SAMPLE_ROWS_MAX, n_q at most SAMPLE_Q_MAX and `rows`. -EINVAL with
 * `why` (KV_ERROR_TEXT bytes), -ENOMEM. The same seed gives the same rows. */
int sample_init(struct sample *s, const struct cache_record *record, uint32_t layer, uint32_t rows,
		uint32_t n_q, uint64_t seed, char *why);
void sample_deinit(struct sample *s);

struct sample_result {
	uint64_t bytes[KV_PLANES]; /* that the KV head read */
	uint32_t n_selected, n_scored;
};

/* Runs the plan over it. *ret_error, if it is not NULL: against float64 over all rows, |o - o'| /
 * |o'|, the worst query head; it takes many times as long as the plan. -ENOMEM, -EOVERFLOW. */
int sample_run(const struct sample *s, const struct kv_plan *plan, struct sample_result *ret,
	       double *ret_error);
/* The step that sample_run takes. */
struct kv_query sample_query(const struct sample *s);
