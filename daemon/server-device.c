/* SPDX-License-Identifier: Apache-2.0 */
/* Devices in the stats page: a block for each that a cache has asked for, by its index. */
#include "daemon/device.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "daemon/stats.h"
#include "shm/base.h"
#include "shm/clock.h"

#define BUSY_PARTS 1000000000.0f

_Static_assert(DEVICES_MAX == STATS_DEVICES, "devices");
_Static_assert((int)DEVICE_LOST + 1 == STATS_DEVICE_STATES, "states");
_Static_assert((int)DEVICE_BESIDE_LOST == (int)STATS_BESIDE_LOST + 1 &&
		       (int)DEVICE_BESIDES == (int)STATS_BESIDES + 1,
	       "reasons: without that of the steps that a device did");
_Static_assert((int)KV_PLANES == (int)SPARQ_PLANES, "planes");
_Static_assert(KV_GPU_WHY == STATS_WHY, "sentences");
_Static_assert(DEVICE_NAME_BYTES == sizeof(((struct stats_device *)0)->name), "names");

static const char not_looked[] = "nobody has asked for a while: it is looked at within a second";

/* What its thread has not looked at of late is not known. */
static void set_look(struct stats_device *to, const struct device_stat *from)
{
	const struct device_look *look = &from->look;
	bool fresh = device_look_is_fresh(look);
	bool busy = fresh && look->memory_busy >= 0;
	const char *why = busy ? "" : fresh ? look->memory_busy_why : not_looked;

	stats_set(&to->free_bytes, fresh ? look->free_bytes : STATS_UNKNOWN);
	stats_set(&to->busy_parts,
		  busy ? (uint64_t)(look->memory_busy * BUSY_PARTS) : STATS_UNKNOWN);
	stats_page_text(to->busy_why, sizeof(to->busy_why),
			from->state == DEVICE_OPEN ? why : "the device is not open");
}

static void show_device(const struct device_stat *from, struct stats_device *to)
{
	stats_set(&to->used, STATS_USED);
	stats_set(&to->state, (uint32_t)from->state);
	stats_page_text(to->name, sizeof(to->name), from->name);
	stats_page_text(to->product, sizeof(to->product), from->info.name);
	stats_page_text(to->bus_id, sizeof(to->bus_id), from->info.bus_id);
	stats_page_text(to->driver, sizeof(to->driver), from->info.driver);
	stats_page_text(to->why, sizeof(to->why), from->why);
	set_look(to, from);
	stats_set(&to->memory_bytes, from->info.memory_bytes);
	stats_set(&to->limit_bytes, from->limit_bytes);
	stats_set(&to->mapped_bytes, from->mapped_bytes);
	stats_set(&to->batches, from->batches);
	stats_set(&to->steps, from->items);
	stats_set(&to->failed, from->failed);
	stats_set(&to->copied_bytes, from->copied_bytes);
	stats_set(&to->evicted_bytes, from->evicted_bytes);
	stats_set(&to->kernel_ns, from->kernel_ns);
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		stats_set(&to->read_bytes[p], from->read_bytes[p]);
	for (unsigned i = 0; i < STATS_BESIDES; i++)
		stats_set(&to->beside_steps[i], from->beside_items[i + 1]);
	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		stats_set(&to->beside_bytes[p], from->beside_bytes[p]);
}

void server_refresh_devices(struct server *s)
{
	struct device_stat stat;

	for (unsigned i = 0; devices_stat(s->store.devices, i, &stat); i++)
		show_device(&stat, stats_page_block(&s->stats, STATS_DEVICE, stat.index));
}
