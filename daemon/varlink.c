/* SPDX-License-Identifier: Apache-2.0 */
/* Varlink: one message to its reply. */
#include "daemon/varlink.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shm/base.h"

#define SERVICE "org.varlink.service"
#define DEPTH_MAX 16

static const char service_description[] =
	"# What every varlink service answers.\n"
	"interface " SERVICE "\n"
	"\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, url: string, "
	"interfaces: []string)\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"error InterfaceNotFound(interface: string)\n"
	"error MethodNotFound(method: string)\n"
	"error MethodNotImplemented(method: string)\n"
	"error InvalidParameter(parameter: string)\n";

static void put_json(json_object **o)
{
	json_object_put(*o);
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static int fail(struct varlink_error *e, const char *name, const char *key, const char *value)
{
	json_object_put(e->parameters);
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->parameters = json_object_new_object();
	add_text(e->parameters, key, value);
	return -EINVAL;
}

int varlink_invalid(struct varlink_error *e, const char *parameter)
{
	return fail(e, SERVICE ".InvalidParameter", "parameter", parameter);
}

int varlink_refuse(struct varlink_error *e, const char *name, const char *format, ...)
{
	char reason[512];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	return fail(e, name, "reason", reason);
}

/* ---- org.varlink.service -------------------------------------------------- */

static int get_info(const struct varlink_service *s, json_object *out)
{
	json_object *interfaces = json_object_new_array();

	add_text(out, "vendor", s->vendor);
	add_text(out, "product", s->product);
	add_text(out, "version", s->version);
	add_text(out, "url", s->url);
	json_object_array_add(interfaces, json_object_new_string(SERVICE));
	json_object_array_add(interfaces, json_object_new_string(s->interface));
	json_object_object_add(out, "interfaces", interfaces);
	return 0;
}

static int get_description(const struct varlink_service *s, json_object *in, json_object *out,
			   struct varlink_error *e)
{
	json_object *wanted = json_object_object_get(in, "interface");
	const char *name;

	if (!json_object_is_type(wanted, json_type_string))
		return varlink_invalid(e, "interface");
	name = json_object_get_string(wanted);
	if (strcmp(name, SERVICE) == 0)
		add_text(out, "description", service_description);
	else if (strcmp(name, s->interface) == 0)
		add_text(out, "description", s->description);
	else
		return fail(e, SERVICE ".InterfaceNotFound", "interface", name);
	return 0;
}

/* ---- finding the method --------------------------------------------------- */

static bool belongs_to(const char *method, const char *interface)
{
	size_t n = strlen(interface);

	return strncmp(method, interface, n) == 0 && method[n] == '.' &&
	       !strchr(method + n + 1, '.');
}

/* NULL: it has none of that name. */
static const struct varlink_method *find_own(const struct varlink_service *s, const char *method)
{
	const char *dot = strrchr(method, '.');

	if (!belongs_to(method, s->interface))
		return NULL;
	for (const struct varlink_method *m = s->method; m->name; m++)
		if (strcmp(dot + 1, m->name) == 0)
			return m;
	return NULL;
}

static int call(const struct varlink_service *s, void *arg, const char *method, json_object *in,
		json_object *out, struct varlink_error *e)
{
	const struct varlink_method *own = find_own(s, method);
	const char *dot = strrchr(method, '.');
	char interface[128];

	if (own)
		return own->call(arg, in, out, e);

	if (strcmp(method, SERVICE ".GetInfo") == 0)
		return get_info(s, out);
	if (strcmp(method, SERVICE ".GetInterfaceDescription") == 0)
		return get_description(s, in, out, e);
	if (!dot || belongs_to(method, SERVICE) || belongs_to(method, s->interface))
		return fail(e, SERVICE ".MethodNotFound", "method", method);
	snprintf(interface, sizeof(interface), "%.*s", (int)MIN(dot - method, 127), method);
	return fail(e, SERVICE ".InterfaceNotFound", "interface", interface);
}

/* ---- one message ---------------------------------------------------------- */

/* The whole text is one value, not deeper than any of our methods needs. */
static json_object *parse(const char *text, size_t n)
{
	json_tokener *t = n <= VARLINK_MAX_BYTES ? json_tokener_new_ex(DEPTH_MAX) : NULL;
	json_object *o = NULL;

	if (!t)
		return NULL;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(t, text, (int)n);
	if (json_tokener_get_error(t) != json_tokener_success ||
	    json_tokener_get_parse_end(t) != n) {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(t);
	return o;
}

static bool flag(json_object *message, const char *key)
{
	return json_object_get_boolean(json_object_object_get(message, key));
}

static int answer(const struct varlink_service *s, void *arg, json_object *message,
		  json_object *out, struct varlink_error *e)
{
	CLEANUP(put_json) json_object *none = json_object_new_object();
	json_object *method, *in;

	if (!json_object_is_type(message, json_type_object))
		return varlink_invalid(e, "message");
	method = json_object_object_get(message, "method");
	if (!json_object_is_type(method, json_type_string))
		return varlink_invalid(e, "method");
	if (!json_object_object_get_ex(message, "parameters", &in) || !in)
		in = none;
	if (!json_object_is_type(in, json_type_object))
		return varlink_invalid(e, "parameters");
	/* Nobody may think that the socket speaks another protocol from here on. */
	if (flag(message, "upgrade"))
		return varlink_invalid(e, "upgrade");
	return call(s, arg, json_object_get_string(method), in, out, e);
}

bool varlink_asks(const struct varlink_service *s, const char *text, size_t n)
{
	CLEANUP(put_json) json_object *message = parse(text, n);
	json_object *method;

	if (!json_object_is_type(message, json_type_object))
		return false;
	method = json_object_object_get(message, "method");
	return json_object_is_type(method, json_type_string) &&
	       find_own(s, json_object_get_string(method));
}

int varlink_answer(const struct varlink_service *s, void *arg, const char *text, size_t n,
		   char **ret)
{
	CLEANUP(put_json) json_object *message = parse(text, n);
	CLEANUP(put_json) json_object *reply = json_object_new_object();
	json_object *out = json_object_new_object();
	struct varlink_error e = { .parameters = NULL };
	char *copy = NULL;

	if (answer(s, arg, message, out, &e) < 0) {
		json_object_put(out);
		add_text(reply, "error", e.name);
		out = STEAL_PTR(e.parameters);
	}
	json_object_put(e.parameters);
	json_object_object_add(reply, "parameters", out);
	if (!json_object_is_type(message, json_type_object) || !flag(message, "oneway")) {
		copy = strdup(json_object_to_json_string_ext(
			reply, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
		if (!copy)
			return -ENOMEM;
	}
	*ret = copy;
	return 0;
}
