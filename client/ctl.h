/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl: one file a command. A command gets its own arguments, prints its
 * result on stdout and what went wrong on stderr, and returns an exit status.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#define CTL_OK 0
#define CTL_FAILED 1 /* the daemon said no, or is not there, or a check failed */
#define CTL_USAGE 2

/* What the commands take; each knows which of them it allows. */
struct ctl_options {
	const char *control, *socket; /* NULL: the library's default */
	const char *cache, *name; /* NULL: as in the file */
	uint64_t seed;
	bool json, replace;
	int n_words; /* what is no option */
	char **words;
};

int ctl_status(const struct ctl_options *o);
int ctl_selftest(const struct ctl_options *o);
int ctl_explain(const struct ctl_options *o);
int ctl_save(const struct ctl_options *o);
int ctl_load(const struct ctl_options *o);

/* Calls `io.sparqd.Control.METHOD`: the reply's parameters, to be put with json_object_put, or NULL
 * after a sentence on stderr. Takes `parameters` (may be NULL). */
json_object *ctl_call(const struct ctl_options *o, const char *method, json_object *parameters);
void ctl_print_json(json_object *value);
/* A value for people: sizes as "1.5 GiB" where the key ends in "bytes". */
void ctl_format(const char *key, json_object *value, char *ret, size_t n);
void ctl_putp(json_object **value); /* for CLEANUP */
