/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl explain: what a step would do, and what it would read. Geometry and
 * formats have names of their own, any other name is a parameter of the policy;
 * what is not told has the daemon's preset.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

static const char *const numbers[] = { "heads",  "kv_heads", "k_dim", "v_dim",
				       "layers", "layer",    "rows",  "n_q" };
static const char *const words[] = { "k_format", "v_format" };

static bool is_in(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static int set_number(json_object *p, const char *name, const char *value)
{
	char *end;
	long long number = strtoll(value, &end, 0);

	if (!*value || *end) {
		fprintf(stderr, "sparqctl: %s=%s: not a number\n", name, value);
		return CTL_USAGE;
	}
	json_object_object_add(p, name, json_object_new_int64(number));
	return CTL_OK;
}

/* One name=value; what is not ours is added to the policy's options. */
static int set(json_object *p, char *word, char *options, size_t n)
{
	char *equals = strchr(word, '=');
	size_t used = strlen(options);

	if (!equals) {
		json_object_object_add(p, "policy", json_object_new_string(word));
		return CTL_OK;
	}
	*equals = '\0';
	if (is_in(word, numbers, ARRAY_SIZE(numbers)))
		return set_number(p, word, equals + 1);
	if (is_in(word, words, ARRAY_SIZE(words))) {
		json_object_object_add(p, word, json_object_new_string(equals + 1));
		return CTL_OK;
	}
	if ((size_t)snprintf(options + used, n - used, "%s%s=%s", used ? " " : "", word,
			     equals + 1) >= n - used) {
		fputs("sparqctl: too many options\n", stderr);
		return CTL_USAGE;
	}
	return CTL_OK;
}

static void print_explanation(json_object *e)
{
	json_object *plan = json_object_object_get(e, "plan");
	char cell[128];

	if (plan)
		printf("%s\n", json_object_get_string(plan));
	json_object_object_foreach(e, key, value) {
		if (!strcmp(key, "plan"))
			continue;
		if (json_object_is_type(value, json_type_object)) {
			printf("  %s\n", key);
			json_object_object_foreach(value, inner, number) {
				ctl_format(inner, number, cell, sizeof(cell));
				printf("    %-22s %s\n", inner, cell);
			}
			continue;
		}
		ctl_format(key, value, cell, sizeof(cell));
		printf("  %-24s %s\n", key, cell);
	}
}

int ctl_explain(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *question = json_object_new_object();
	CLEANUP(ctl_putp) json_object *answer = NULL;
	char options[1024] = "";

	for (int i = 0; i < o->n_words; i++)
		if (set(question, o->words[i], options, sizeof(options)) != CTL_OK)
			return CTL_USAGE;
	if (*options)
		json_object_object_add(question, "options", json_object_new_string(options));
	answer = ctl_call(o, "Explain", STEAL_PTR(question));
	if (!answer)
		return CTL_FAILED;
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(answer);
	else
		print_explanation(answer);
	return CTL_OK;
}
