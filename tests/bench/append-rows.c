/* SPDX-License-Identifier: Apache-2.0 */
/* What `sparq-bench append` appends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base.h"
#include "tests/bench/append.h"
#include "tests/bench/attend.h"

#define ROUND_ROWS 64u /* 256 KiB of the usual geometry */

int append_rows_init(struct append_rows *a, const struct append_options *o, const char *format,
		     char *why)
{
	struct bench_format f;
	struct kv_space_params p = {
		.heads = o->kv_heads,
		.kv_heads = o->kv_heads,
		.k_dim = o->dim,
		.v_dim = o->dim,
		.dtype = KV_F16,
		.k_format = f.k,
		.v_format = f.v,
		.policy = kv_policy_find("dense"),
		.sinks = KV_MAX_SINKS,
	};
	struct bench_noise noise;
	int r;

	*a = (struct append_rows){ .n = o->rows, .space = calloc(1, sizeof(*a->space)) };
	r = bench_format_parse(format, 0, &f, why);
	if (r || !a->space)
		return r ? r : -ENOMEM;
	r = kv_space_init(a->space, &p, why);
	if (r)
		return r;
	snprintf(a->k, sizeof(a->k), "%s", f.k);
	snprintf(a->v, sizeof(a->v), "%s", f.v);
	a->row_bytes = (size_t)2 * o->kv_heads * o->dim * kv_dtype_bytes(KV_F16);
	r = bench_noise_init(&noise, a->space, KV_MAX_ENTRY_ROWS + ROUND_ROWS);
	if (r) {
		snprintf(why, KV_ERROR_TEXT, "no memory");
	} else {
		bench_noise_next(&noise, KV_MAX_ENTRY_ROWS + ROUND_ROWS);
		a->packed = STEAL_PTR(noise.packed);
	}
	bench_noise_deinit(&noise);
	return r;
}

void append_rows_deinit(struct append_rows *a)
{
	free(a->packed);
	free(a->space);
	*a = (struct append_rows){ 0 };
}

const char *append_block(const struct append_rows *a, uint32_t row)
{
	return a->packed + row % ROUND_ROWS * a->row_bytes;
}
