/* SPDX-License-Identifier: Apache-2.0 */
/* Insides of top.h, shared by its files. */
#pragma once

#include <json-c/json.h>

#include "client/top.h"

struct top_page { /* what lines are put on */
	unsigned width, left;
	top_put_fn *put;
	void *arg;
};

/* ---- top-text.c ---- */
void top_put(struct top_page *p, enum top_style style, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
const char *top_bandwidth(double bytes_s, char ret[16]);
/* ---- top-device.c ---- */
int top_look_at_devices(struct top *t);
void top_put_devices(struct top_page *p, const struct top *t);
json_object *top_devices_json(const struct top *t);
