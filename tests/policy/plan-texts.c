/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares what a policy plans with a file of steps and plans, so that a change
 * of a policy is a visible diff. Who explains a plan to a user relies on the
 * text as well.
 *
 *   step rows=4096 tail=100 group=4     what the step is; see step_keys
 *   set r=16                            a parameter, any number of lines
 *   v0 = score_dims(r=16)               the plan
 *
 * Blocks end with an empty line; lines with # are comments.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "shm/base.h"

#define TEXT 4096

struct block {
	struct kv_step step;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	char want[TEXT];
	unsigned line, steps;
};

static const struct kv_policy *policy;
static unsigned failures, blocks;

static void complain(unsigned line, const char *what, const char *text)
{
	fprintf(stderr, "line %u: %s\n%s\n", line, what, text);
	failures++;
}

static const struct {
	const char *key;
	size_t at;
} step_keys[] = {
	{ "rows", offsetof(struct kv_step, rows) },   { "tail", offsetof(struct kv_step, tail) },
	{ "sinks", offsetof(struct kv_step, sinks) }, { "n_q", offsetof(struct kv_step, n_q) },
	{ "group", offsetof(struct kv_step, group) }, { "layer", offsetof(struct kv_step, layer) },
};

static void parse_step(struct block *b, char *text)
{
	char *save = NULL;

	b->steps++;
	b->step = (struct kv_step){ .layers = 32,
				    .n_q = 1,
				    .group = 1,
				    .sinks = 16,
				    .tail = 16,
				    .k_dim = 128,
				    .v_dim = 128 };
	for (char *word = strtok_r(text, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		char *value = strchr(word, '=');
		bool known = false;

		for (size_t i = 0; value && i < ARRAY_SIZE(step_keys); i++)
			if (!strncmp(step_keys[i].key, word, (size_t)(value - word))) {
				*(uint32_t *)((char *)&b->step + step_keys[i].at) =
					(uint32_t)strtoul(value + 1, NULL, 10);
				known = true;
			}
		if (!known)
			complain(b->line, "unknown word of a step", word);
	}
	b->step.sealed = b->step.rows - b->step.sinks - b->step.tail;
	b->step.prefill = b->step.n_q > KV_MAX_DECODE_Q;
}

static void parse_set(struct block *b, char *text)
{
	char why[KV_ERROR_TEXT], *value = strchr(text, '=');

	text[strcspn(text, "\n")] = '\0';
	if (!value) {
		complain(b->line, "not key=value", text);
		return;
	}
	*value++ = '\0';
	if (kv_policy_set(policy, b->args, text, value, why))
		complain(b->line, "set", why);
}

static void finish_block(struct block *b)
{
	char why[KV_ERROR_TEXT], got[TEXT];
	struct kv_plan plan;

	if (!b->steps)
		return;
	blocks++;
	kv_plan_init(&plan);
	policy->plan(&plan, &b->step, b->args);
	if (kv_plan_check(&plan, why, sizeof(why)))
		complain(b->line, "not a valid plan", why);
	kv_plan_text(&plan, got, sizeof(got));
	if (strcmp(got, b->want))
		complain(b->line, "plans differently; it plans", got);
}

static void begin_block(struct block *b)
{
	unsigned line = b->line;

	*b = (struct block){ .line = line };
	kv_policy_defaults(policy, b->args);
}

static void take_line(struct block *b, char *line)
{
	b->line++;
	if (line[0] == '#')
		return;
	if (line[0] == '\n') {
		finish_block(b);
		begin_block(b);
	} else if (!strncmp(line, "step ", 5)) {
		parse_step(b, line + 5);
	} else if (!strncmp(line, "set ", 4)) {
		parse_set(b, line + 4);
	} else if (strlen(b->want) + strlen(line) < TEXT) {
		strcat(b->want, line);
	}
}

int main(int argc, char **argv)
{
	struct block b = { 0 };
	char line[512];
	FILE *f;

	for (unsigned i = 0; argc == 3 && (policy = kv_policy_at(i, false)); i++)
		if (!strcmp(policy->name, argv[1]))
			break;
	f = policy ? fopen(argv[2], "r") : NULL;
	if (!f) {
		fprintf(stderr, "usage: plan-texts POLICY FILE\n");
		return 2;
	}
	begin_block(&b);
	while (fgets(line, sizeof(line), f))
		take_line(&b, line);
	finish_block(&b);
	fclose(f);
	return failures || !blocks;
}
