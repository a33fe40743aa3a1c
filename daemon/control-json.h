/* SPDX-License-Identifier: Apache-2.0 */
/* What the methods of the control socket say their answers with, and take their questions apart. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/varlink.h"

struct cache;
struct seq;
struct stats_audit;
struct server;

void json_add_number(json_object *o, const char *key, uint64_t n);
void json_add_text(json_object *o, const char *key, const char *text);
/* "0x20000000f", as the log writes it: a number that not every reader of JSON can hold. */
void json_add_id(json_object *o, const char *key, uint64_t id);

/* A member of a question; left out, *ret stays. -EINVAL with the error that names it: another type,
 * or out of range. */
int json_get_number(json_object *in, const char *key, uint64_t most, uint64_t *ret,
		    struct varlink_error *e);
int json_get_text(json_object *in, const char *key, const char **ret, struct varlink_error *e);
int json_get_flag(json_object *in, const char *key, int *ret, struct varlink_error *e);
int json_get_id(json_object *in, const char *key, uint64_t *ret, struct varlink_error *e);
/* Every member is one of these; a NULL ends. One that a daemon does not know may be a question that
 * it cannot answer. */
int json_check_keys(json_object *in, const char *const *known, struct varlink_error *e);

/* What audits found: their number, and of any the mean and the largest error. */
void json_add_audit(json_object *o, const struct stats_audit *a);

/* The first users and caches, as ListUsers and ListCaches tell them (control-list.c). */
json_object *control_users(const struct server *s);
json_object *control_caches(const struct server *s);
/* Devices, as ListDevices tells them (control-device.c). */
json_object *control_devices(const struct server *s);
