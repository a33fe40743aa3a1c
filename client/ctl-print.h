/* SPDX-License-Identifier: Apache-2.0 */
/* JSON for people: ctl-print.c. */
#pragma once

#include <json-c/json.h>
#include <sys/types.h>

/* A value: sizes as "1.5 GiB" where the key ends in "bytes". */
void ctl_format(const char *key, json_object *value, char *ret, size_t n);
char *ctl_format_bytes(double bytes, char *ret, size_t n);
/* The plain members of an object, one a line, but for those named in `without` (NULL ends). */
void ctl_print_members(json_object *object, const char *const *without);
/* Rows that are objects; a NULL title is none. Nothing if there are none. */
void ctl_print_table(const char *title, json_object *rows);

/* The devices of a status, a line each: ctl-device.c. */
void ctl_print_devices(json_object *status);

/* The name, or the number where it has none; and back: CTL_USAGE after a sentence on stderr. */
char *ctl_user_name(uid_t uid, char *ret, size_t n);
int ctl_user_id(const char *name, uid_t *ret);
