/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a device: which granules of the pool have a copy there, and what of it
 * is old. The thread's alone, but for the bits (present.h).
 */
#include <errno.h>

#include "daemon/device-private.h"
#include "numa/arena.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* Of one copy: so that a lane that is nearly full takes some of it. */
#define PIECE_BYTES MIB

unsigned device_arena_at(const struct device *d, const void *at)
{
	unsigned i = 0;

	while (i < d->all->params.n_arenas &&
	       ((const char *)at < d->arena[i].base ||
		(const char *)at >= d->arena[i].base + d->arena[i].bytes))
		i++;
	return i;
}

/* ---- granules --------------------------------------------------------------------- */

static void give_up(struct device *d, struct mirrored *m, uint32_t granule)
{
	size_t at = granule * d->granule;

	d->backend->unmap(m->mirror, at, d->granule);
	m->used[granule] = 0;
	present_forget(&m->present, at, MIN(d->granule, m->bytes - at));
	fetch_sub(&d->sums.mapped_bytes, d->granule);
	fetch_add(&d->sums.evicted_bytes, d->granule);
}

/* The one that was not used for longest, and not by this batch. False: there is none. */
static bool evict(struct device *d)
{
	struct mirrored *from = NULL;
	uint64_t oldest = d->batch;
	uint32_t granule = 0;

	for (unsigned i = 0; i < d->all->params.n_arenas; i++)
		for (uint32_t k = 0; k < d->arena[i].n_granules; k++) {
			uint64_t used = d->arena[i].used[k];

			if (!used || used >= oldest)
				continue;
			oldest = used;
			from = &d->arena[i];
			granule = k;
		}
	if (!from)
		return false;
	give_up(d, from, granule);
	return true;
}

static int map(struct device *d, struct mirrored *m, uint32_t granule)
{
	int r = -ENOMEM;

	do
		if (load_relaxed(&d->sums.mapped_bytes) + d->granule <= d->limit_bytes)
			r = d->backend->map(m->mirror, granule * d->granule, d->granule);
	while (r == -ENOMEM && evict(d));
	if (r == 0)
		fetch_add(&d->sums.mapped_bytes, d->granule);
	return r;
}

/* ---- bytes ------------------------------------------------------------------------- */

struct bring {
	struct device *device;
	int error;
};

static int copy(struct device *d, struct mirrored *m, size_t at, size_t n)
{
	int r = 0;

	for (size_t end = at + n; r == 0 && at < end; at += n) {
		n = MIN(end - at, PIECE_BYTES);
		/* Whoever writes from here on clears what this sets. */
		present_note(&m->present, at, n);
		r = d->backend->copy_in(d->lane, m->base + at, n);
		if (r < 0)
			present_forget(&m->present, at, n);
		else
			fetch_add(&d->sums.copied_bytes, n);
	}
	return r;
}

static int bring_range(struct device *d, struct mirrored *m, size_t at, size_t end)
{
	size_t run, n;
	int r = 0;

	for (size_t k = at / d->granule; r == 0 && k <= (end - 1) / d->granule; k++) {
		if (!m->used[k])
			r = map(d, m, (uint32_t)k);
		if (r == 0)
			m->used[k] = d->batch;
	}
	while (r == 0 && present_missing(&m->present, at, end, &run, &n)) {
		r = copy(d, m, run, n);
		at = run + n;
	}
	return r;
}

static void visit(void *arg, void *memory, size_t n)
{
	struct bring *b = arg;
	unsigned i = device_arena_at(b->device, memory);
	struct mirrored *m = &b->device->arena[i];
	size_t at;

	if (b->error || !n)
		return;
	if (i == b->device->all->params.n_arenas) {
		b->error = -EFAULT;
		return;
	}
	at = (size_t)((char *)memory - m->base);
	b->error = bring_range(b->device, m, at, at + n);
}

int device_bring(struct device *d, const struct kv_gpu_item *item)
{
	struct bring b = { .device = d };

	kv_visit_pages(item->space, item->view, visit, &b);
	return b.error;
}

/* ---- who writes ---------------------------------------------------------------------- */

void device_wrote(void *device, void *at, size_t n)
{
	struct device *d = device;
	unsigned i = device_arena_at(d, at);

	present_forget(&d->arena[i].present, (size_t)((char *)at - d->arena[i].base), n);
}

void device_wrote_page(struct device *d, page_ref page, struct page_size size)
{
	const struct pool *pool = d->all->params.pool;
	char *at = pool_data(pool, page);

	if (!pool_is_striped(page)) {
		device_wrote(d, at, size.whole);
		return;
	}
	for (unsigned i = 0; i < pool->n_nodes; i++)
		device_wrote(d, at + pool_shift(pool, i), size.part);
}
