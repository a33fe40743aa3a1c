/* SPDX-License-Identifier: Apache-2.0 */
/* The worked examples by the GPU's kernels, under the emulator. */
#include "tests/kernels/golden-device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/choice.h"
#include "kernels/cuda/params.h"
#include "tests/gpu/emulate/world.h"

static int ascending(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint32_t listed(const struct gpu_run *r, uint32_t *rows)
{
	const struct kv_cuda_params *p = (const void *)r->params;
	const struct kv_cuda_item *x = (const void *)(r->params + p->items);
	const struct kv_cuda_unit *unit = (const void *)(r->params + p->units);
	const struct kv_cuda_space *s = (const void *)(r->params + p->spaces);
	struct kv_cuda_state state = kv_cuda_state_of(x, s->dim);
	const char *from = r->scratch + x->state;
	uint32_t found = 0;

	for (unsigned of = 0; of < 2; of++) {
		const uint32_t *list = (const void *)(from + state.list[of]);
		uint32_t n = ((const uint32_t *)(const void *)(from + state.n))[of];

		for (uint32_t i = 0; i < n; i++)
			rows[found++] = unit[list[i] / KV_CUDA_UNIT_ROWS].first_row +
					list[i] % KV_CUDA_UNIT_ROWS;
	}
	qsort(rows, found, sizeof(*rows), ascending);
	return found;
}

bool golden_device(const struct kv_space *s, const struct kv_plan *plan, const struct kv_view *view,
		   const struct kv_query *query, uint32_t *rows, uint32_t *n_rows, float *y,
		   float *lse, float *alpha)
{
	struct world w = { .gpu = { { 0 } } }, *one = &w;
	const struct kv_cuda_item *x;
	struct kv_cuda_state state;
	char why[KV_GPU_WHY];
	struct gpu_run r;

	w.item = (struct kv_gpu_item){ s, plan, view, query, w.gpu };
	if (kv_cuda_runs(&w.item, why))
		return false;
	if (!world_run(&one, 1, 3, &r))
		exit(1);
	x = (const void *)(r.params +
			   ((const struct kv_cuda_params *)(const void *)r.params)->items);
	memcpy(y, w.gpu[0].y, x->heads * s->v_dim * sizeof(*y));
	memcpy(lse, w.gpu[0].lse, x->heads * sizeof(*lse));
	if (x->by_list) {
		state = kv_cuda_state_of(x, s->k_dim);
		memcpy(alpha, r.scratch + x->state + state.alpha, x->heads * sizeof(*alpha));
		*n_rows = listed(&r, rows);
	}
	gpu_run_free(&r);
	return true;
}
