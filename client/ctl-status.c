/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl status: the sentence, and a line for each device; or all that the daemon tells, as
 * tables.
 */
#include <stdio.h>
#include <string.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

static const char *sentence_of(json_object *status)
{
	json_object *sentence = json_object_object_get(status, "sentence");

	return sentence ? json_object_get_string(sentence) : "the daemon says nothing of itself";
}

static void print_all(json_object *status)
{
	static const char *const without[] = { "sentence", "refusal", NULL };

	puts("");
	ctl_print_members(status, without);
	json_object_object_foreach(status, key, value)
	{
		if (json_object_is_type(value, json_type_object)) {
			printf("\n%s\n", key);
			ctl_print_members(value, NULL);
		} else if (json_object_is_type(value, json_type_array) && strcmp(key, "devices")) {
			ctl_print_table(key, value);
		}
	}
}

int ctl_status(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *status = ctl_call(o, "Status", NULL);
	json_object *refusal;

	if (!status)
		return CTL_FAILED;
	if (ctl_flag(o, OPT_JSON)) {
		ctl_print_json(status);
	} else {
		puts(sentence_of(status));
		ctl_print_devices(status);
		if (ctl_flag(o, OPT_ALL))
			print_all(status);
	}
	refusal = json_object_object_get(status, "refusal");
	return refusal && *json_object_get_string(refusal) ? CTL_FAILED : CTL_OK;
}
