/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worked examples of test-golden.c by other kernels than those of kv_exec: each program
 * that is made of it has one of these files.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* The step of KV head 0: its selected rows, ascending, and by head y (v_dim floats), lse and alpha.
 * False: there is no other, what kv_exec found stands. */
bool golden_device(const struct kv_space *s, const struct kv_plan *plan, const struct kv_view *view,
		   const struct kv_query *query, uint32_t *rows, uint32_t *n_rows, float *y,
		   float *lse, float *alpha);
