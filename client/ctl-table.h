/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commands.def as tables: what sparqctl and the generator of its completions share.
 * Nothing of it is about what a command does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum ctl_option {
#define OPTION(id, ...) OPT_##id,
#include "client/commands.def"
	CTL_OPTIONS
};

enum ctl_kind { FLAG, TEXT, NUMBER, SECONDS };

struct ctl_option_row {
	const char *name;
	enum ctl_kind kind;
	const char *argument, *completes, *help;
};
extern const struct ctl_option_row ctl_option[CTL_OPTIONS];

struct ctl_command {
	const char *name;
	uint32_t takes, needs; /* bits of enum ctl_option */
	const char *words, *completes, *help;
};
extern const struct ctl_command ctl_command[];
extern const size_t ctl_commands;

static inline bool ctl_takes(const struct ctl_command *c, enum ctl_option which)
{
	return c->takes & 1u << which;
}

/* By name; NULL: none is called so. */
const struct ctl_command *ctl_find(const char *name);
/* How many words may follow the options; SIZE_MAX: any number. */
void ctl_count_words(const struct ctl_command *c, size_t *ret_least, size_t *ret_most);
/* "sparqctl save [--json] ... sequence file", in lines of at most 80 columns. */
void ctl_print_synopsis(const struct ctl_command *c, FILE *to);
/* Of all commands, as in sparqctl(1). */
void ctl_print_usage(FILE *to);
