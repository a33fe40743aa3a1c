/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl: one file a command. A command gets its own arguments, prints its
 * result on stdout and what went wrong on stderr, and returns an exit status.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/ctl-table.h"

#define CTL_OK 0
#define CTL_FAILED 1 /* the daemon said no, or is not there, or a check failed */
#define CTL_USAGE 2

/* A command line, checked against commands.def: only what the command takes, all that it needs,
 * and values of their kind. */
struct ctl_options {
	const char *value[CTL_OPTIONS]; /* NULL: not given */
	int n_words;                    /* what is no option */
	char **words;
};

static inline bool ctl_flag(const struct ctl_options *o, enum ctl_option which)
{
	return o->value[which];
}
/* NULL: not given. */
static inline const char *ctl_text(const struct ctl_options *o, enum ctl_option which)
{
	return o->value[which];
}
uint64_t ctl_number(const struct ctl_options *o, enum ctl_option which, uint64_t preset);
double ctl_seconds(const struct ctl_options *o, enum ctl_option which, double preset);

#define COMMAND(name, ...) int ctl_##name(const struct ctl_options *o);
#include "client/commands.def"

/* Calls `io.sparqd.Control.METHOD`: the reply's parameters, to be put with json_object_put, or NULL
 * after a sentence on stderr. Takes `parameters` (may be NULL). */
json_object *ctl_call(const struct ctl_options *o, const char *method, json_object *parameters);
void ctl_print_json(json_object *value);
void ctl_putp(json_object **value); /* for CLEANUP */
