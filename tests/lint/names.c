/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints every word that a user may write and some page must explain: formats,
 * policies and their parameters, keys of the configuration. From the tables
 * themselves, so that a new one cannot be forgotten.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "kernels/kernels.h"
#include "kernels/policy.h"

static void print_policies(void)
{
	const struct kv_policy *p;

	for (unsigned i = 0; (p = kv_policy_at(i, true)); i++) {
		printf("sparq-policies.7 %s\n", p->name);
		for (unsigned n = 0; n < p->n_params; n++) {
			const char *const *word = p->params[n].words;

			printf("sparq-policies.7 %s\n", p->params[n].name);
			while (word && *word)
				printf("sparq-policies.7 %s\n", *word++);
		}
	}
}

static int print_keys(void)
{
	size_t n = 1 << 16;
	char *text = calloc(1, n), *rest = text, *line;
	struct config c;

	if (!text)
		return 1;
	config_defaults(&c);
	if (config_dump(&c, text, n) >= n)
		return 1;
	while ((line = strsep(&rest, "\n"))) {
		size_t length = strcspn(line, " =");

		if (*line && *line != '#')
			printf("sparqd.conf.5 %.*s\n", (int)length, line);
	}
	free(text);
	return 0;
}

int main(void)
{
	const char *name;

	for (unsigned i = 0; (name = kv_format_at(i)); i++)
		printf("sparq-formats.7 %s\n", name);
	print_policies();
	return print_keys();
}
