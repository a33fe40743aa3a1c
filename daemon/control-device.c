/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, for administrators. Nothing of a device is touched for it: device-stat.c. */
#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/device.h"
#include "daemon/server.h"
#include "shm/base.h"
#include "shm/clock.h"

/* The words of sparq-metrics(7). */
static const char *const plane_names[KV_PLANES] = { "score",      "k",      "v_upper", "v_lower",
						    "parameters", "recent", "state",   "other" };

static json_object *by_plane(const uint64_t bytes[KV_PLANES])
{
	json_object *o = json_object_new_object();

	for (unsigned p = 0; p < KV_PLANES; p++)
		json_add_number(o, plane_names[p], bytes[p]);
	return o;
}

/* What processors did in its place, whatever became of it. */
static void add_beside(json_object *o, const struct device_stat *d)
{
	json_object *steps = json_object_new_object();

	json_add_number(steps, "kernel", d->beside_items[DEVICE_BESIDE_KERNEL]);
	json_add_number(steps, "memory", d->beside_items[DEVICE_BESIDE_MEMORY]);
	json_add_number(steps, "lost", d->beside_items[DEVICE_BESIDE_LOST]);
	json_object_object_add(o, "beside_steps", steps);
	json_object_object_add(o, "beside_read_bytes", by_plane(d->beside_bytes));
}

static void add_look(json_object *o, const struct device_look *look)
{
	if (!look->at_ns)
		return;
	if (look->free_bytes != UINT64_MAX)
		json_add_number(o, "free_bytes", look->free_bytes);
	if (look->memory_busy >= 0)
		json_object_object_add(o, "memory_busy",
				       json_object_new_double((double)look->memory_busy));
	else
		json_add_text(o, "memory_busy_reason", look->memory_busy_why);
	json_add_number(o, "looked_seconds_ago",
			(uint64_t)(clock_now_ns() - look->at_ns) / NS_PER_S);
}

static json_object *device(const struct device_stat *d)
{
	json_object *o = json_object_new_object();

	json_add_text(o, "device", d->name);
	json_add_text(o, "state", device_state_names[d->state]);
	if (d->why[0])
		json_add_text(o, "reason", d->why);
	add_beside(o, d);
	if (d->state != DEVICE_OPEN && d->state != DEVICE_LOST)
		return o;
	json_add_text(o, "product", d->info.name);
	json_add_text(o, "bus", d->info.bus_id);
	json_add_text(o, "driver", d->info.driver);
	json_add_number(o, "memory_bytes", d->info.memory_bytes);
	json_add_number(o, "copies_bytes", d->mapped_bytes);
	json_add_number(o, "copies_limit_bytes", d->limit_bytes);
	json_add_number(o, "batches", d->batches);
	json_add_number(o, "steps", d->items);
	json_add_number(o, "failed_steps", d->failed);
	json_add_number(o, "busy_microseconds", d->kernel_ns / 1000);
	json_add_number(o, "copied_bytes", d->copied_bytes);
	json_add_number(o, "evicted_bytes", d->evicted_bytes);
	add_look(o, &d->look);
	json_object_object_add(o, "read_bytes", by_plane(d->read_bytes));
	return o;
}

json_object *control_devices(const struct server *s)
{
	json_object *all = json_object_new_array();
	struct device_stat stat;

	for (unsigned i = 0; devices_stat(s->store.devices, i, &stat); i++)
		json_object_array_add(all, device(&stat));
	return all;
}

int control_list_devices(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	static const char *const no_keys[] = { NULL };
	int r = json_check_keys(in, no_keys, e);

	if (r == 0)
		json_object_object_add(out, "devices", control_devices(arg));
	return r;
}
