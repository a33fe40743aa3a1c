/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SparQ's Algorithm 1, dense attention and masks in plain double precision,
 * over rows as a cache holds them. No SIMD, no cleverness: what the executor
 * is compared with.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/kernels/rig.h"

struct ref_rows { /* of one KV head, all [n][dim] */
	uint32_t n, dim;
	double *k, *score, *v; /* exact, scoring plane, values */
	double *sent;          /* V as sent; as stored in tiles that count in part */
};

struct ref_query {
	const double *q; /* [dim] */
	double scale;
	uint32_t limit; /* rows it sees */
};

/* Rows as stored: at level 1 from the upper planes. `sent` is packed as for kv_write, in f32;
 * `limit` is what the first query sees. */
void ref_decode(const struct rig *r, uint32_t head, unsigned level, uint32_t limit,
		const float *sent, struct ref_rows *ret);
void ref_free(struct ref_rows *r);

/* r channels with the largest sums, ties to the lower; ascending. */
void ref_channels(const double *sums, uint32_t dim, uint32_t r, uint32_t *ret);
/* a[t] of a head, and the log of the sum of their exponentials. */
double ref_scores(const struct ref_rows *rows, const struct ref_query *q, const uint32_t *channel,
		  uint32_t r, double *ret_a);
/* Attention over the chosen rows below the limit; lse, -inf for none. */
double ref_attend(const struct ref_rows *rows, const struct ref_query *q, const bool *chosen,
		  double *ret_y);
/* Mean of V as sent over the rows seen, or over those not chosen. False: there are none. */
bool ref_mean(const struct ref_rows *rows, uint32_t limit, const bool *chosen, bool rest,
	      double *ret_mean);
