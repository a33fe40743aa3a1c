/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl: which command, with which options.
 */
#include "client/ctl.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"
#include "shm/base.h"

#define HELP CTL_OPTIONS /* any command takes it */

static int (*const run_command[])(const struct ctl_options *o) = {
#define COMMAND(name, ...) ctl_##name,
#include "client/commands.def"
};

/* ---- values ----------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 0);
	return *text && *text != '-' && !*end;
}

static bool parse_seconds(const char *text, double *ret)
{
	char *end;

	*ret = strtod(text, &end);
	return *text && !*end && isfinite(*ret) && *ret > 0;
}

uint64_t ctl_number(const struct ctl_options *o, enum ctl_option which, uint64_t preset)
{
	uint64_t n = preset;

	if (o->value[which])
		parse_number(o->value[which], &n);
	return n;
}

double ctl_seconds(const struct ctl_options *o, enum ctl_option which, double preset)
{
	double s = preset;

	if (o->value[which])
		parse_seconds(o->value[which], &s);
	return s;
}

static bool is_of_kind(enum ctl_kind kind, const char *value)
{
	uint64_t number;
	double seconds;

	if (kind == NUMBER)
		return parse_number(value, &number);
	return kind != SECONDS || parse_seconds(value, &seconds);
}

/* ---- command lines ------------------------------------------------------------ */

static int usage_of(const struct ctl_command *c)
{
	fputs("usage: ", stderr);
	ctl_print_synopsis(c, stderr);
	return CTL_USAGE;
}

static int set_option(const struct ctl_command *c, struct ctl_options *o, unsigned which,
		      const char *value)
{
	const struct ctl_option_row *row = &ctl_option[which];

	if (!ctl_takes(c, which)) {
		fprintf(stderr, "sparqctl: %s does not take --%s\n", c->name, row->name);
		return usage_of(c);
	}
	if (!is_of_kind(row->kind, value)) {
		fprintf(stderr, "sparqctl: --%s %s: %s is expected\n", row->name, value,
			row->kind == NUMBER ? "a number" : "a number of seconds");
		return CTL_USAGE;
	}
	o->value[which] = value;
	return CTL_OK;
}

static int check(const struct ctl_command *c, const struct ctl_options *o)
{
	size_t least, most;

	for (unsigned i = 0; i < CTL_OPTIONS; i++) {
		if (c->needs >> i & 1 && !o->value[i]) {
			fprintf(stderr, "sparqctl: %s: --%s %s is wanted\n", c->name,
				ctl_option[i].name, ctl_option[i].argument);
			return usage_of(c);
		}
	}
	ctl_count_words(c, &least, &most);
	if ((size_t)o->n_words > most) {
		fprintf(stderr, "sparqctl: %s: unexpected \"%s\"\n", c->name, o->words[most]);
		return usage_of(c);
	}
	if ((size_t)o->n_words < least) {
		fprintf(stderr, "sparqctl: %s: %s is wanted\n", c->name, c->words);
		return usage_of(c);
	}
	return CTL_OK;
}

/* All that getopt is to know, whatever the command: an option that another takes is told apart from
 * one that there is not. */
static void list_options(struct option *ret)
{
	for (unsigned i = 0; i < CTL_OPTIONS; i++)
		ret[i] = (struct option){
			.name = ctl_option[i].name,
			.has_arg = ctl_option[i].kind == FLAG ? no_argument : required_argument,
			.val = (int)i + 1,
		};
	ret[HELP] = (struct option){ .name = "help", .val = HELP + 1 };
}

/* argv[0] is the command's name: getopt prints it in its complaints. */
static int run(const struct ctl_command *c, int argc, char **argv)
{
	struct option list[CTL_OPTIONS + 2] = {};
	struct ctl_options o = { .words = NULL };
	int which, r;

	list_options(list);
	while ((which = getopt_long(argc, argv, "h", list, NULL)) != -1) {
		if (which == '?')
			return usage_of(c);
		if (which == 'h' || which == HELP + 1)
			return ctl_help(&(struct ctl_options){ .n_words = 1, .words = argv });
		r = set_option(c, &o, (unsigned)which - 1, optarg ? optarg : "");
		if (r != CTL_OK)
			return r;
	}
	o.n_words = argc - optind;
	o.words = argv + optind;
	r = check(c, &o);
	return r == CTL_OK ? run_command[c - ctl_command](&o) : r;
}

static int unknown(const char *name)
{
	if (*name)
		fprintf(stderr, "sparqctl: there is no command \"%s\"\n", name);
	fputs("usage:\n", stderr);
	ctl_print_usage(stderr);
	return CTL_USAGE;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct ctl_command *c = ctl_find(name);

	if (c)
		return run(c, argc - 1, argv + 1);
	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		ctl_print_usage(stdout);
		return CTL_OK;
	}
	if (!strcmp(name, "--version")) {
		printf("sparqctl %u.%u.%u\n", sparq_version() >> 16, sparq_version() >> 8 & 0xff,
		       sparq_version() & 0xff);
		return CTL_OK;
	}
	return unknown(name);
}
