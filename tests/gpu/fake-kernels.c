/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that the fake driver knows, in plain C. */
#include <string.h>

#include "kernels/cuda/scatter.h"
#include "tests/gpu/fake-driver.h"

static void run_scatter(const struct fake_launch *l)
{
	const struct cuda_scatter *s = l->argument;

	for (unsigned i = 0; i < l->grid[0]; i++)
		memcpy((void *)(uintptr_t)s->run[i].to,
		       (const char *)(uintptr_t)s->lane + s->run[i].at, s->run[i].n);
}

static const struct fake_kernel kernels[] = {
	{ "kv_cuda_scatter", run_scatter },
};

const struct fake_kernel *fake_kernel_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++)
		if (!strcmp(kernels[i].name, name))
			return &kernels[i];
	return NULL;
}
