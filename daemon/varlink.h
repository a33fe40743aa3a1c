/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A varlink service: a text in, a text out. No connection, no state; fuzzed.
 *
 * A method fills the parameters of its reply, or names an error. What every
 * service answers (org.varlink.service) is answered here, from the table.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#define VARLINK_MAX_BYTES 65536 /* of one message */

struct varlink_error {
	char name[64];
	json_object *parameters;
};

/* `in` is an object; `out` is an empty one to fill. -errno: `e` was set by a function below. */
typedef int varlink_call(void *arg, json_object *in, json_object *out, struct varlink_error *e);

struct varlink_method {
	const char *name; /* without its interface */
	varlink_call *call;
};

struct varlink_service {
	const char *vendor, *product, *version, *url;
	const char *interface, *description; /* one, and what it has, in varlink's own words */
	const struct varlink_method *method; /* a NULL name ends */
};

/* The reply to one message of `n` bytes (without the NUL): `*ret` is allocated, NULL if the caller
 * wanted none. -ENOMEM. */
int varlink_answer(const struct varlink_service *s, void *arg, const char *text, size_t n,
		   char **ret);

/* Does the message call one of the service's own methods? Then varlink_answer calls it. */
bool varlink_asks(const struct varlink_service *s, const char *text, size_t n);

/* For methods: -EINVAL, with the error that names a parameter, or one of the interface's own errors
 * (`name` in full) with a reason. */
int varlink_invalid(struct varlink_error *e, const char *parameter);
int varlink_refuse(struct varlink_error *e, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
