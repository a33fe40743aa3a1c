/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU's kernels alone. */
#include "tests/kernels/golden-device.h"

bool golden_device(const struct kv_space *s, const struct kv_plan *plan, const struct kv_view *view,
		   const struct kv_query *query, uint32_t *rows, uint32_t *n_rows, float *y,
		   float *lse, float *alpha)
{
	return false;
}
