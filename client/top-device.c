/* SPDX-License-Identifier: Apache-2.0 */
/* sparqctl top: a line for each device that a cache has asked for. See top.h. */
#include <stdio.h>
#include <string.h>

#include "client/ctl-print.h"
#include "client/top-private.h"
#include "shm/base.h"

static const char *state_of(uint32_t state)
{
	static const char *const words[STATS_DEVICE_STATES] = { "closed", "opening", "open",
								"failed", "lost" };

	return state < STATS_DEVICE_STATES ? words[state] : "unknown";
}

static uint64_t read_of(const struct stats_device *d)
{
	uint64_t sum = 0;

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		sum += d->read_bytes[p];
	return sum;
}

/* What it counted before it was opened, or by another daemon, is nothing to compare with. */
static double rate(const struct top *t, uint64_t now, uint64_t before)
{
	return t->whole && now > before ? (double)(now - before) / t->seconds : 0;
}

static void look_at_device(const struct top *t, const struct stats_device *now,
			   struct top_device *to)
{
	const struct stats_device *before = &to->page;

	to->steps = rate(t, now->steps, before->steps);
	to->read = rate(t, read_of(now), read_of(before));
	to->copied = rate(t, now->copied_bytes, before->copied_bytes);
	to->busy = rate(t, now->kernel_ns, before->kernel_ns) / 1e9;
	to->page = *now;
}

int top_look_at_devices(struct top *t)
{
	uint32_t n = MIN(stats_count(t->stats, STATS_DEVICE), STATS_DEVICES);
	struct stats_device now;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = stats_copy(t->stats, STATS_DEVICE, i, &now);
		if (r == 0)
			look_at_device(t, &now, &t->device[i]);
	}
	return r;
}

/* ---- how it is shown ---------------------------------------------------------------- */

#define BAR 20u

static void put_open(struct top_page *p, const struct top_device *d)
{
	const struct stats_device *now = &d->page;
	char read[16], copied[16], used[24], limit[24], bar[BAR + 1], memory[24] = "";

	for (unsigned i = 0; i < BAR; i++)
		bar[i] = i < d->busy * BAR ? '|' : ' ';
	bar[BAR] = '\0';
	if (now->busy_parts != STATS_UNKNOWN)
		snprintf(memory, sizeof(memory), ", memory %.0f %%", (double)now->busy_parts / 1e7);
	top_put(p, TOP_BAR, "%-7s %9s  [%s] %3.0f %% busy%s  %s of %s  copied %s", now->name,
		top_bandwidth(d->read, read), bar, 100 * MIN(d->busy, 1.0), memory,
		ctl_format_bytes((double)now->mapped_bytes, used, sizeof(used)),
		ctl_format_bytes((double)now->limit_bytes, limit, sizeof(limit)),
		top_bandwidth(d->copied, copied));
}

void top_put_devices(struct top_page *p, const struct top *t)
{
	for (unsigned i = 0; i < STATS_DEVICES; i++) {
		const struct stats_device *d = &t->device[i].page;

		if (d->used == STATS_FREE)
			continue;
		if (d->state == STATS_DEVICE_OPEN)
			put_open(p, &t->device[i]);
		else
			top_put(p, TOP_BAR, "%-7s %s%s%s", d->name, state_of(d->state),
				d->why[0] ? ": " : "", d->why);
	}
}

/* ---- JSON ----------------------------------------------------------------------------- */

static void add_number(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static void add_rate(json_object *o, const char *key, double x)
{
	json_object_object_add(o, key, json_object_new_double(x));
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static json_object *device(const struct top_device *d)
{
	const struct stats_device *now = &d->page;
	json_object *o = json_object_new_object();

	add_text(o, "device", now->name);
	add_text(o, "state", state_of(now->state));
	if (now->why[0])
		add_text(o, "reason", now->why);
	if (now->state != STATS_DEVICE_OPEN)
		return o;
	add_rate(o, "steps_per_s", d->steps);
	add_rate(o, "read_bytes_per_s", d->read);
	add_rate(o, "copied_bytes_per_s", d->copied);
	add_rate(o, "busy", d->busy);
	add_number(o, "copies_bytes", now->mapped_bytes);
	add_number(o, "copies_limit_bytes", now->limit_bytes);
	add_number(o, "memory_bytes", now->memory_bytes);
	if (now->free_bytes != STATS_UNKNOWN)
		add_number(o, "free_bytes", now->free_bytes);
	if (now->busy_parts != STATS_UNKNOWN)
		add_rate(o, "memory_busy", (double)now->busy_parts / 1e9);
	else
		add_text(o, "memory_busy_reason", now->busy_why);
	return o;
}

json_object *top_devices_json(const struct top *t)
{
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < STATS_DEVICES; i++)
		if (t->device[i].page.used != STATS_FREE)
			json_object_array_add(all, device(&t->device[i]));
	return all;
}
