/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that the fake driver knows: one in plain C, and all that are emulated. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/scatter.h"
#include "tests/gpu/emulate/emulate.h"
#include "tests/gpu/fake-driver.h"

static void run_scatter(const struct fake_launch *l)
{
	const struct cuda_scatter *s = l->argument;

	for (unsigned i = 0; i < l->grid[0]; i++)
		memcpy((void *)(uintptr_t)s->run[i].to,
		       (const char *)(uintptr_t)s->lane + s->run[i].at, s->run[i].n);
}

/* A kernel that breaks the rules ends the test. */
static void run_emulated(const struct fake_launch *l)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	const struct emulate_grid grid = {
		.x = l->grid[0],
		.y = l->grid[1],
		.threads = l->block[0],
		.shared_bytes = l->shared,
	};
	char why[EMULATE_WHY] = "";
	int r;

	pthread_mutex_lock(&one_at_a_time);
	r = emulate_run(l->kernel->emulated, l->argument, &grid, why);
	pthread_mutex_unlock(&one_at_a_time);
	if (r == 0)
		return;
	fprintf(stderr, "%s: %s\n", l->kernel->name, why);
	abort();
}

static const struct fake_kernel scatter = { .name = "kv_cuda_scatter", .run = run_scatter };
#define MOST 16u

const struct fake_kernel *fake_kernel_find(const char *name)
{
	static struct fake_kernel emulated[MOST];
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct fake_kernel *found = NULL;

	if (!strcmp(name, scatter.name))
		return &scatter;
	if (!emulate_find(name))
		return NULL;
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < MOST && !found; i++)
		if (!emulated[i].name || !strcmp(emulated[i].name, name))
			found = &emulated[i];
	if (found && !found->name)
		*found = (struct fake_kernel){ strdup(name), run_emulated, emulate_find(name) };
	pthread_mutex_unlock(&mutex);
	return found;
}
