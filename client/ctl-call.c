/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket as the commands see it: a method's name and JSON each way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl.h"
#include "client/socket-why.h"
#include "client/sparq.h"
#include "shm/base.h"

#define INTERFACE "io.sparqd.Control."

void ctl_putp(json_object **value)
{
	json_object_put(*value);
}

void ctl_print_json(json_object *value)
{
	puts(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY |
							   JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Says in words what an error reply says: its name, and its parameters' strings. */
static void complain(const char *method, const char *error, json_object *parameters)
{
	const char *from = strrchr(error, '.');

	fprintf(stderr, "sparqctl: %s: %s", method, from ? from + 1 : error);
	if (json_object_is_type(parameters, json_type_object)) {
		json_object_object_foreach(parameters, key, value) {
			(void)key;
			fprintf(stderr, ": %s", json_object_get_string(value));
		}
	}
	fputc('\n', stderr);
}

/* The parameters of a reply, NULL after a complaint. */
static json_object *open_reply(const char *method, const char *text)
{
	CLEANUP(ctl_putp) json_object *reply = json_tokener_parse(text);
	json_object *parameters = NULL, *error = NULL;

	if (!json_object_is_type(reply, json_type_object)) {
		fprintf(stderr, "sparqctl: %s: the answer is no JSON object\n", method);
		return NULL;
	}
	json_object_object_get_ex(reply, "parameters", &parameters);
	if (json_object_object_get_ex(reply, "error", &error)) {
		complain(method, json_object_get_string(error), parameters);
		return NULL;
	}
	return parameters ? json_object_get(parameters) : json_object_new_object();
}

/* Which one the library took. */
static const char *control_path(const struct ctl_options *o)
{
	const char *path = ctl_text(o, OPT_CONTROL);

	if (!path)
		path = secure_getenv("SPARQ_CONTROL");
	return path ? path : SPARQ_CONTROL_PATH;
}

json_object *ctl_call(const struct ctl_options *o, const char *method, json_object *parameters)
{
	CLEANUP(ctl_putp) json_object *question = parameters;
	const char *json = NULL;
	FREE_MEMORY char *text = NULL;
	char name[96];
	int r;

	if (question)
		json = json_object_to_json_string_ext(question, JSON_C_TO_STRING_PLAIN);
	snprintf(name, sizeof(name), INTERFACE "%s", method);
	r = sparq_control(ctl_text(o, OPT_CONTROL), name, json, &text);
	if (r < 0) {
		char why[SPARQ_ERROR_TEXT];

		socket_why(control_path(o), r, why, sizeof(why));
		fprintf(stderr, "sparqctl: %s\n", why);
		return NULL;
	}
	return open_reply(method, text);
}
