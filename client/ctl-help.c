/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl help: the commands, a line each; or one command with its options.
 */
#include <stdio.h>

#include "client/ctl.h"

static void print_option(const struct ctl_option_row *o)
{
	char left[40];

	snprintf(left, sizeof(left), "--%s%s%s", o->name, *o->argument ? " " : "", o->argument);
	printf("  %-18s %s\n", left, o->help);
}

static void print_command(const struct ctl_command *c)
{
	ctl_print_synopsis(c, stdout);
	printf("\n%s\n", c->help);
	if (c->takes)
		putchar('\n');
	for (unsigned i = 0; i < CTL_OPTIONS; i++)
		if (ctl_takes(c, i))
			print_option(&ctl_option[i]);
}

int ctl_help(const struct ctl_options *o)
{
	const struct ctl_command *c = o->n_words ? ctl_find(o->words[0]) : NULL;

	if (c) {
		print_command(c);
		return CTL_OK;
	}
	if (o->n_words) {
		fprintf(stderr,
			"sparqctl: there is no command \"%s\"; \"sparqctl help\" lists them\n",
			o->words[0]);
		return CTL_USAGE;
	}
	for (size_t i = 0; i < ctl_commands; i++)
		printf("  %-12s %s\n", ctl_command[i].name, ctl_command[i].help);
	puts("\n\"sparqctl help command\" says what one takes, sparqctl(1) what it does.");
	return CTL_OK;
}
