/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels by name, as a driver finds them in a module. */
#include <string.h>

#include "shm/base.h"
#include "tests/gpu/emulate/emulate.h"

extern emulate_kernel kv_cuda_attend_8, kv_cuda_attend_16, kv_cuda_attend_32, kv_cuda_score,
	kv_cuda_choose, kv_cuda_flush;

static const struct {
	const char *name;
	emulate_kernel *kernel;
} table[] = {
	{ "kv_cuda_attend_8", kv_cuda_attend_8 },   { "kv_cuda_attend_16", kv_cuda_attend_16 },
	{ "kv_cuda_attend_32", kv_cuda_attend_32 }, { "kv_cuda_score", kv_cuda_score },
	{ "kv_cuda_choose", kv_cuda_choose },       { "kv_cuda_flush", kv_cuda_flush },
};

emulate_kernel *emulate_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].name, name))
			return table[i].kernel;
	return NULL;
}
