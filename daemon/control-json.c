/* SPDX-License-Identifier: Apache-2.0 */
/* Members of questions and answers: see control-json.h. */
#include "daemon/control-json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "shm/stats-page.h"

void json_add_number(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)MIN(n, INT64_MAX)));
}

void json_add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

/* With as many digits as mean something. */
static void add_error(json_object *o, const char *key, double error_n)
{
	char text[32];

	snprintf(text, sizeof(text), "%.4g", error_n / 1e9);
	json_object_object_add(o, key, json_object_new_double_s(error_n / 1e9, text));
}

void json_add_audit(json_object *o, const struct stats_audit *a)
{
	json_add_number(o, "audits", a->count);
	if (!a->count)
		return;
	add_error(o, "audit_relative_error", (double)a->error_n / (double)a->count);
	add_error(o, "audit_most_relative_error", (double)a->most_n);
}

void json_add_id(json_object *o, const char *key, uint64_t id)
{
	char text[24];

	snprintf(text, sizeof(text), "%#" PRIx64, id);
	json_add_text(o, key, text);
}

/* False: it was left out, which a null says too. */
static bool get(json_object *in, const char *key, json_object **ret)
{
	return json_object_object_get_ex(in, key, ret) && *ret;
}

int json_get_number(json_object *in, const char *key, uint64_t most, uint64_t *ret,
		    struct varlink_error *e)
{
	json_object *value;
	int64_t n;

	if (!get(in, key, &value))
		return 0;
	n = json_object_get_int64(value);
	if (!json_object_is_type(value, json_type_int) || n < 0 || (uint64_t)n > most)
		return varlink_invalid(e, key);
	*ret = (uint64_t)n;
	return 0;
}

int json_get_text(json_object *in, const char *key, const char **ret, struct varlink_error *e)
{
	json_object *value;

	if (!get(in, key, &value))
		return 0;
	/* A NUL in it would end it early. */
	if (!json_object_is_type(value, json_type_string) ||
	    strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
		return varlink_invalid(e, key);
	*ret = json_object_get_string(value);
	return 0;
}

int json_get_flag(json_object *in, const char *key, int *ret, struct varlink_error *e)
{
	json_object *value;

	if (!get(in, key, &value))
		return 0;
	if (!json_object_is_type(value, json_type_boolean))
		return varlink_invalid(e, key);
	*ret = json_object_get_boolean(value);
	return 0;
}

int json_get_id(json_object *in, const char *key, uint64_t *ret, struct varlink_error *e)
{
	const char *text = NULL;
	uint64_t id;
	char *end;
	int r = json_get_text(in, key, &text, e);

	if (r < 0 || !text)
		return r;
	errno = 0;
	id = strtoull(text, &end, 16);
	if (strncmp(text, "0x", 2) || *end || errno)
		return varlink_invalid(e, key);
	*ret = id;
	return 0;
}

int json_check_keys(json_object *in, const char *const *known, struct varlink_error *e)
{
	json_object_object_foreach(in, key, value)
	{
		size_t i = 0;

		(void)value;
		while (known[i] && strcmp(known[i], key))
			i++;
		if (!known[i])
			return varlink_invalid(e, key);
	}
	return 0;
}
