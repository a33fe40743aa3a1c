/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a device: which granules of the pool have a copy there, and what of it
 * is old. The thread's alone, but for the bits (present.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "daemon/device-private.h"
#include "numa/arena.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

/* Of one copy: so that a lane that is nearly full takes some of it. */
#define PIECE_BYTES MIB
#define ASK_AGAIN_NS 1000000000ull /* for memory that the driver did not have */

unsigned device_arena_at(const struct device *d, const void *at)
{
	unsigned i = 0;

	while (i < d->all->params.n_arenas &&
	       ((const char *)at < d->arena[i].base ||
		(const char *)at >= d->arena[i].base + d->arena[i].bytes))
		i++;
	return i;
}

/* ---- granules, by their last use ----------------------------------------------------- */

int device_order_init(struct device *d)
{
	struct granule *end;

	d->granule = calloc((size_t)d->n_granules + 1, sizeof(*d->granule));
	if (!d->granule)
		return -ENOMEM;
	end = &d->granule[d->n_granules];
	end->older = end->newer = d->n_granules;
	return 0;
}

static void leave_order(struct device *d, struct granule *g)
{
	d->granule[g->older].newer = g->newer;
	d->granule[g->newer].older = g->older;
}

static void use(struct device *d, uint32_t i)
{
	struct granule *g = &d->granule[i], *end = &d->granule[d->n_granules];

	if (g->used)
		leave_order(d, g);
	g->used = d->batch;
	g->older = end->older;
	g->newer = d->n_granules;
	d->granule[end->older].newer = i;
	end->older = i;
}

static struct mirrored *arena_of(struct device *d, uint32_t granule)
{
	struct mirrored *m = d->arena;

	while (granule - m->first_granule >= m->n_granules)
		m++;
	return m;
}

static void give_up(struct device *d, uint32_t i)
{
	struct mirrored *m = arena_of(d, i);
	size_t at = (i - m->first_granule) * d->granule_bytes;

	d->backend->unmap(m->mirror, at, d->granule_bytes);
	leave_order(d, &d->granule[i]);
	d->granule[i].used = 0;
	present_forget(&m->present, at, MIN(d->granule_bytes, m->bytes - at));
	fetch_sub(&d->sums.mapped_bytes, d->granule_bytes);
	fetch_add(&d->sums.evicted_bytes, d->granule_bytes);
}

/* The one that was not used for longest, and not by this batch. False: there is none. */
static bool evict(struct device *d)
{
	uint32_t oldest = d->granule[d->n_granules].newer;

	if (oldest == d->n_granules || d->granule[oldest].used == d->batch)
		return false;
	give_up(d, oldest);
	return true;
}

/* ---- room ------------------------------------------------------------------------------ */

/* Somebody else may have what the driver refuses; it is asked again now and then. */
static uint64_t room(struct device *d)
{
	if (d->room_bytes < d->limit_bytes && (uint64_t)clock_now_ns() > d->room_until)
		d->room_bytes = d->limit_bytes;
	return d->room_bytes;
}

struct bring {
	struct device *device;
	const struct kv_gpu_item *item;
	uint64_t needed; /* granules; 0: not counted */
	int error;
};

static void count(void *arg, void *memory, size_t n)
{
	struct bring *b = arg;
	struct device *d = b->device;
	unsigned i = device_arena_at(d, memory);
	size_t at;

	if (!n || i == d->all->params.n_arenas)
		return;
	at = (size_t)((char *)memory - d->arena[i].base);
	for (size_t k = at / d->granule_bytes; k <= (at + n - 1) / d->granule_bytes; k++) {
		struct granule *g = &d->granule[d->arena[i].first_granule + k];

		b->needed += g->counted != d->counts;
		g->counted = d->counts;
	}
}

/* Nothing is taken from others for an item that will not fit even so. */
static bool may_fit(struct bring *b)
{
	if (!b->needed) {
		b->device->counts++;
		kv_visit_pages(b->item->space, b->item->view, count, b);
	}
	return b->needed * b->device->granule_bytes <= room(b->device);
}

/* 0, -ENOMEM: there is no room now; -EIO. */
static int try_map(struct device *d, uint32_t i)
{
	struct mirrored *m = arena_of(d, i);
	uint64_t mapped = load_relaxed(&d->sums.mapped_bytes);
	int r;

	if (mapped + d->granule_bytes > room(d))
		return -ENOMEM;
	r = d->backend->map(m->mirror, (i - m->first_granule) * d->granule_bytes, d->granule_bytes);
	if (r == -ENOMEM) {
		d->room_bytes = mapped;
		d->room_until = (uint64_t)clock_now_ns() + ASK_AGAIN_NS;
	}
	return r;
}

static int map(struct bring *b, uint32_t i)
{
	struct device *d = b->device;
	int r;

	while ((r = try_map(d, i)) == -ENOMEM && may_fit(b) && evict(d))
		;
	if (r == 0)
		fetch_add(&d->sums.mapped_bytes, d->granule_bytes);
	return r;
}

/* ---- bytes ------------------------------------------------------------------------- */

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
		d->brought |= r == 0;
	}
	return r;
}

static int bring_range(struct bring *b, struct mirrored *m, size_t at, size_t end)
{
	struct device *d = b->device;
	uint32_t last = m->first_granule + (uint32_t)((end - 1) / d->granule_bytes);
	size_t run, n;
	int r = 0;

	for (uint32_t i = m->first_granule + (uint32_t)(at / d->granule_bytes); i <= last; i++) {
		r = d->granule[i].used ? 0 : map(b, i);
		if (r < 0)
			return r;
		if (d->granule[i].used != d->batch)
			use(d, i);
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
	b->error = bring_range(b, m, at, at + n);
}

int device_bring(struct device *d, const struct kv_gpu_item *item)
{
	struct bring b = { .device = d, .item = item };

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
