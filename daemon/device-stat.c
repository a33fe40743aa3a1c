/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of devices, for those who watch. What changes on the device by itself, its free memory
 * and how busy it is, its own thread looks at, and only while somebody has asked within a minute:
 * the driver may take its time, and nobody else may wait for it. So asking touches no device; what
 * is answered is what the thread saw last, and when.
 */
#include <stdio.h>
#include <string.h>

#include "daemon/device-private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

#define WATCHED_NS (60 * NS_PER_S)
#define FRESH_NS (5 * NS_PER_S)
#define LOOK_NS NS_PER_S /* NVML's figure is of up to so long */

/* ---- the thread's ----------------------------------------------------------------- */

void device_look(struct device *d, bool first)
{
	struct device_look seen = { .at_ns = clock_now_ns(), .memory_busy = -1 };
	struct kv_gpu_info info;

	if (!first && (seen.at_ns - load_relaxed(&d->watched_ns) > WATCHED_NS ||
		       seen.at_ns - d->look.at_ns < LOOK_NS))
		return;
	d->backend->info(d->gpu, &info);
	seen.free_bytes = info.free_bytes;
	d->backend->dram_busy(d->gpu, &seen.memory_busy, seen.memory_busy_why);
	/* Who reads it has it for as long as a copy takes; steps do not wait for that. */
	if (pthread_mutex_trylock(&d->look_mutex))
		return;
	d->look = seen;
	pthread_mutex_unlock(&d->look_mutex);
}

void device_count_item(struct device *d, const struct kv_gpu_item *item)
{
	for (uint32_t head = 0; head < item->space->kv_heads; head++)
		for (unsigned p = 0; p < KV_PLANES; p++)
			fetch_add(&d->sums.read_bytes[p], item->result[head].bytes[p]);
}

/* ---- who asks ----------------------------------------------------------------------- */

static void add_sums(const struct device *d, struct device_stat *ret)
{
	ret->limit_bytes = d->limit_bytes;
	ret->mapped_bytes = load_relaxed(&d->sums.mapped_bytes);
	ret->batches = load_relaxed(&d->sums.batches);
	ret->items = load_relaxed(&d->sums.items);
	ret->failed = load_relaxed(&d->sums.failed);
	ret->copied_bytes = load_relaxed(&d->sums.copied_bytes);
	ret->evicted_bytes = load_relaxed(&d->sums.evicted_bytes);
	ret->kernel_ns = load_relaxed(&d->sums.kernel_ns);
	for (unsigned p = 0; p < KV_PLANES; p++)
		ret->read_bytes[p] = load_relaxed(&d->sums.read_bytes[p]);
}

/* Also of one that never opened. */
static void add_beside(const struct device *d, struct device_stat *ret)
{
	for (unsigned i = 0; i < DEVICE_BESIDES; i++)
		ret->beside_items[i] = load_relaxed(&d->sums.beside_items[i]);
	for (unsigned p = 0; p < KV_PLANES; p++)
		ret->beside_bytes[p] = load_relaxed(&d->sums.beside_bytes[p]);
}

static void add_look(struct device *d, struct device_stat *ret)
{
	store_relaxed(&d->watched_ns, clock_now_ns());
	pthread_mutex_lock(&d->look_mutex);
	ret->look = d->look;
	pthread_mutex_unlock(&d->look_mutex);
}

bool devices_stat(const struct devices *d, unsigned i, struct device_stat *ret)
{
	struct device *one = NULL;

	for (unsigned k = 0; d && k < DEVICES_MAX && !one; k++)
		if (d->device[k] && i-- == 0)
			one = d->device[k];
	if (!one)
		return false;
	*ret = (struct device_stat){ .index = one->index, .state = load_acquire(&one->state) };
	memcpy(ret->name, one->name, sizeof(ret->name));
	add_beside(one, ret);
	if (ret->state == DEVICE_FAILED || ret->state == DEVICE_LOST)
		memcpy(ret->why, one->why, sizeof(ret->why));
	if (ret->state != DEVICE_OPEN && ret->state != DEVICE_LOST)
		return true;
	ret->info = one->info;
	add_sums(one, ret);
	if (ret->state == DEVICE_OPEN)
		add_look(one, ret);
	return true;
}

bool device_look_is_fresh(const struct device_look *look)
{
	return look->at_ns && clock_now_ns() - look->at_ns < FRESH_NS;
}

size_t devices_sentence(const struct devices *d, char *ret, size_t n)
{
	struct device_stat stat;
	size_t at = 0;

	ret[0] = '\0';
	for (unsigned i = 0; at < n && devices_stat(d, i, &stat); i++) {
		if (stat.state == DEVICE_LOST)
			at += (size_t)snprintf(ret + at, n - at, "; %s is lost", stat.name);
		else if (stat.state == DEVICE_FAILED)
			at += (size_t)snprintf(ret + at, n - at, "; %s cannot be used", stat.name);
		else if (stat.state == DEVICE_OPEN)
			at += (size_t)snprintf(ret + at, n - at, "; %s is open", stat.name);
	}
	return at;
}
