/* SPDX-License-Identifier: Apache-2.0 */
/* A device's beginning and end, on its own thread: it takes a second. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/device-private.h"
#include "numa/arena.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define LANE_BYTES (32 * MIB)

static int load(struct device *d)
{
	const char *path = d->all->params.module;

	d->module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!d->module) {
		snprintf(d->why, sizeof(d->why), "no module: %.200s", dlerror());
		return -ENODEV;
	}
	d->backend = dlsym(d->module, KV_GPU_SYMBOL);
	if (d->backend && d->backend->version == KV_GPU_VERSION)
		return 0;
	snprintf(d->why, sizeof(d->why),
		 "%.150s is of another version of sparqd: install the one "
		 "that came with it",
		 path);
	return -ENOTSUP;
}

static int mirror(struct device *d)
{
	int r = 0;

	d->granule_bytes = d->backend->granule(d->gpu);
	for (unsigned i = 0; r == 0 && i < d->all->params.n_arenas; i++) {
		struct mirrored *m = &d->arena[i];

		m->n_granules = (uint32_t)DIV_UP(m->bytes, d->granule_bytes);
		m->first_granule = d->n_granules;
		d->n_granules += m->n_granules;
		r = d->backend->mirror(d->gpu, m->base, m->bytes, &m->mirror);
	}
	return r < 0 ? r : device_order_init(d);
}

static void look(struct device *d)
{
	uint64_t limit = d->all->params.memory_bytes;

	d->backend->info(d->gpu, &d->info);
	if (!limit)
		limit = MIN(d->info.free_bytes, d->info.memory_bytes) / 4 * 3;
	d->limit_bytes = d->room_bytes = limit;
	device_look(d, true);
}

int device_start(struct device *d)
{
	int r = load(d);

	if (r == 0)
		r = d->backend->open(d->index, &d->gpu, d->why);
	if (r < 0) {
		device_stop(d);
		return r;
	}
	look(d);
	d->result = calloc((size_t)KV_GPU_MAX_ITEMS * DEVICE_HEADS, sizeof(*d->result));
	d->extent = mmap(NULL, DEVICE_EXTENTS * sizeof(*d->extent), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->extent == MAP_FAILED)
		d->extent = NULL;
	r = d->result && d->extent ? mirror(d) : -ENOMEM;
	if (r == 0)
		r = d->backend->lane_open(d->gpu, LANE_BYTES, &d->lane);
	if (r < 0) {
		const char *lost = d->backend->lost(d->gpu);

		snprintf(d->why, sizeof(d->why), "%s", lost ? lost : "it has no memory for a lane");
		device_stop(d);
	}
	return r;
}

void device_stop(struct device *d)
{
	if (d->lane)
		d->lane = d->backend->lane_close(d->lane);
	for (unsigned i = 0; d->gpu && i < d->all->params.n_arenas; i++) {
		d->arena[i].mirror = d->backend->unmirror(d->arena[i].mirror);
		/* What is open again begins anew. */
		present_forget(&d->arena[i].present, 0, d->arena[i].bytes);
	}
	free(d->granule);
	d->granule = NULL;
	d->n_granules = 0;
	store_relaxed(&d->sums.mapped_bytes, 0);
	if (d->gpu)
		d->gpu = d->backend->close(d->gpu);
	free(d->result);
	d->result = NULL;
	if (d->extent)
		munmap(d->extent, DEVICE_EXTENTS * sizeof(*d->extent));
	d->extent = NULL;
	if (d->module)
		dlclose(d->module);
	d->module = NULL;
	d->backend = NULL;
}
