/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl: which command, with which options.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl.h"
#include "client/sparq.h"
#include "shm/base.h"

static const char synopsis[] =
#include "client/synopsis.h" /* made of synopsis.txt, which sparqctl(1) is held to as well */
	;

enum {
	JSON = 1,
	CONTROL = 2,
	SOCKET = 4,
	SEED = 8,
	CACHE = 16,
	NAME = 32,
	REPLACE = 64,
	WORDS = 128, /* no option */
};

static const struct command {
	const char *name;
	int (*run)(const struct ctl_options *o);
	unsigned takes;
} commands[] = {
	{ "status", ctl_status, JSON | CONTROL },
	{ "selftest", ctl_selftest, SOCKET | SEED },
	{ "explain", ctl_explain, JSON | CONTROL | WORDS },
	{ "save", ctl_save, JSON | SOCKET | CACHE | REPLACE | WORDS },
	{ "load", ctl_load, JSON | SOCKET | CACHE | NAME | WORDS },
};

static const struct option options[] = {
	{ "json", no_argument, NULL, JSON },
	{ "control", required_argument, NULL, CONTROL },
	{ "socket", required_argument, NULL, SOCKET },
	{ "seed", required_argument, NULL, SEED },
	{ "cache", required_argument, NULL, CACHE },
	{ "name", required_argument, NULL, NAME },
	{ "replace", no_argument, NULL, REPLACE },
	{},
};

static int usage(void)
{
	fprintf(stderr, "usage:\n%s", synopsis);
	return CTL_USAGE;
}

static int bad_value(const char *option, const char *value)
{
	fprintf(stderr, "sparqctl: --%s %s: not a number\n", option, value);
	return CTL_USAGE;
}

static int set_option(struct ctl_options *o, int which, const char *value)
{
	char *end;

	switch (which) {
	case JSON:
		o->json = true;
		return CTL_OK;
	case CONTROL:
		o->control = value;
		return CTL_OK;
	case SOCKET:
		o->socket = value;
		return CTL_OK;
	case CACHE:
		o->cache = value;
		return CTL_OK;
	case NAME:
		o->name = value;
		return CTL_OK;
	case REPLACE:
		o->replace = true;
		return CTL_OK;
	default:
		o->seed = strtoull(value, &end, 0);
		return *value && !*end ? CTL_OK : bad_value("seed", value);
	}
}

/* argv[0] is the command's name: getopt prints it in its complaints. */
static int run(const struct command *command, int argc, char **argv)
{
	struct ctl_options o = { .seed = 1 };
	int which;

	while ((which = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (which == '?')
			return usage();
		if (!(command->takes & (unsigned)which)) {
			fprintf(stderr, "sparqctl: %s takes no such option\n", command->name);
			return usage();
		}
		if (set_option(&o, which, optarg) != CTL_OK)
			return CTL_USAGE;
	}
	o.n_words = argc - optind;
	o.words = argv + optind;
	if (o.n_words && !(command->takes & WORDS)) {
		fprintf(stderr, "sparqctl: %s: unexpected \"%s\"\n", command->name, o.words[0]);
		return usage();
	}
	return command->run(&o);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		fputs(synopsis, stdout);
		return CTL_OK;
	}
	if (!strcmp(name, "--version")) {
		printf("sparqctl %u.%u.%u\n", sparq_version() >> 16, sparq_version() >> 8 & 0xff,
		       sparq_version() & 0xff);
		return CTL_OK;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return run(&commands[i], argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "sparqctl: there is no command \"%s\"\n", name);
	return usage();
}
