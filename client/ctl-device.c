/* SPDX-License-Identifier: Apache-2.0 */
/* Devices of a status for people: a line each. */
#include <stdio.h>
#include <string.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

static json_object *get(json_object *o, const char *key)
{
	return json_object_object_get(o, key);
}

static const char *text_of(json_object *device, const char *key)
{
	json_object *value = get(device, key);

	return value ? json_object_get_string(value) : "";
}

static const char *bytes_of(json_object *device, const char *key, char ret[24])
{
	return ctl_format_bytes((double)json_object_get_int64(get(device, key)), ret, 24);
}

/* What the daemon has not looked at lately it does not tell. */
static void print_look(json_object *device)
{
	json_object *busy = get(device, "memory_busy"), *ago = get(device, "looked_seconds_ago");
	char free_bytes[24];

	if (get(device, "free_bytes"))
		printf(", %s free", bytes_of(device, "free_bytes", free_bytes));
	if (busy)
		printf(", memory busy %.0f %%", 100 * json_object_get_double(busy));
	else if (*text_of(device, "memory_busy_reason"))
		printf(", memory busy unknown (%s)", text_of(device, "memory_busy_reason"));
	if (ago && json_object_get_int64(ago) > 2)
		printf(" (%lld s ago)", (long long)json_object_get_int64(ago));
}

static void print_open(json_object *device)
{
	char used[24], limit[24];

	printf(": %s (%s), driver %s, %s of %s in copies", text_of(device, "product"),
	       text_of(device, "bus"), text_of(device, "driver"),
	       bytes_of(device, "copies_bytes", used),
	       bytes_of(device, "copies_limit_bytes", limit));
	print_look(device);
	printf(", %lld steps", (long long)json_object_get_int64(get(device, "steps")));
	if (json_object_get_int64(get(device, "failed_steps")))
		printf(", %lld failed",
		       (long long)json_object_get_int64(get(device, "failed_steps")));
}

/* What others had to do for it: not of a device that does all itself. */
static void print_beside(json_object *device)
{
	static const struct {
		const char *key, *words;
	} why[] = {
		{ "kernel", "without a kernel there" },
		{ "memory", "without room there" },
		{ "lost", "without it" },
	};
	json_object *steps = get(device, "beside_steps");

	for (size_t i = 0; steps && i < ARRAY_SIZE(why); i++) {
		int64_t n = json_object_get_int64(get(steps, why[i].key));

		if (n)
			printf(", %lld steps by processors %s", (long long)n, why[i].words);
	}
}

void ctl_print_devices(json_object *status)
{
	json_object *devices = get(status, "devices");

	if (!json_object_is_type(devices, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(devices); i++) {
		json_object *device = json_object_array_get_idx(devices, i);
		const char *reason = text_of(device, "reason");

		printf("%s %s", text_of(device, "device"), text_of(device, "state"));
		if (*reason)
			printf(": %s", reason);
		else if (get(device, "product"))
			print_open(device);
		print_beside(device);
		puts("");
	}
}
