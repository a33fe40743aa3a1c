/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What plan.c, its text form and the executor know of operations.
 */
#pragma once

#include "kernels/plan.h"

/* As the numbers of a WINDOW: all sinks, the whole tail of the step at hand. */
#define KV_WINDOW_STEP UINT32_MAX

/* Kinds of values: 'v' floats per row, 's' rows, 'p' an attention part, 0 none. */
struct kv_op_info {
	const char *name;
	char result;
	char operand[2];
};
extern const struct kv_op_info kv_op_info[KV_OP_KINDS];
