/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command line. Every option that sets something is an assignment to a key of
 * sparqd.conf(5), so there is one parser, and a reload can apply them again.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/doctor.h"
#include "daemon/keep.h"
#include "daemon/keeper.h"
#include "daemon/server.h"
#include "shm/base.h"

#define SETTINGS_MAX 128

enum { EXIT_USAGE = 2 };

enum option_id {
	OPTION_CONFIG = 256,
	OPTION_SET,
	OPTION_DUMP_CONFIG,
	OPTION_CHECK_CONFIG,
	OPTION_CHECK,
	OPTION_KEEPER,
	OPTION_VERSION,
	OPTION_SHORTHAND, /* and those after it: shorthand[] */
};

/* In the order of their identifiers. */
static const char *const shorthand[] = {
	"socket", "control", "pool_bytes", "workers", "isa", "log_level",
};

static const struct option options[] = {
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "set", required_argument, NULL, OPTION_SET },
	{ "socket", required_argument, NULL, OPTION_SHORTHAND + 0 },
	{ "control", required_argument, NULL, OPTION_SHORTHAND + 1 },
	{ "pool", required_argument, NULL, OPTION_SHORTHAND + 2 },
	{ "workers", required_argument, NULL, OPTION_SHORTHAND + 3 },
	{ "isa", required_argument, NULL, OPTION_SHORTHAND + 4 },
	{ "log-level", required_argument, NULL, OPTION_SHORTHAND + 5 },
	{ "dump-config", no_argument, NULL, OPTION_DUMP_CONFIG },
	{ "check-config", no_argument, NULL, OPTION_CHECK_CONFIG },
	{ "check", no_argument, NULL, OPTION_CHECK },
	{ "keeper", no_argument, NULL, OPTION_KEEPER },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
#include "daemon/usage.inc"
	;

struct command_line {
	struct server_args args;
	char *set[SETTINGS_MAX];
	bool dump, check_config, check, keeper;
};

static void command_line_deinit(struct command_line *l)
{
	for (unsigned i = 0; i < l->args.n_set; i++)
		free(l->set[i]);
}

static int add_setting(struct command_line *l, const char *key, const char *value)
{
	char *setting;

	if (l->args.n_set == SETTINGS_MAX) {
		fprintf(stderr, "sparqd: more than %d settings\n", SETTINGS_MAX);
		return -E2BIG;
	}
	/* Needed until the end: a reload reads them again. */
	if (asprintf(&setting, "%s%s%s", key, *key ? "=" : "", value) < 0)
		return -ENOMEM;
	l->set[l->args.n_set++] = setting;
	return 0;
}

/* One option: 0 go on, 1 done here, -errno. */
static int take_option(struct command_line *l, int id, char **word)
{
	switch (id) {
	case OPTION_CONFIG:
		l->args.config_path = optarg;
		l->args.config_required = true;
		return 0;
	case OPTION_SET:
		return add_setting(l, "", optarg);
	case OPTION_DUMP_CONFIG:
		l->dump = true;
		return 0;
	case OPTION_CHECK_CONFIG:
		l->check_config = true;
		return 0;
	case OPTION_CHECK:
		l->check = true;
		return 0;
	case OPTION_KEEPER:
		l->keeper = true;
		*word = NULL; /* not for the child */
		return 0;
	case OPTION_VERSION:
		puts("sparqd " SPARQ_VERSION);
		return 1;
	case 'h':
		fputs(usage, stdout);
		return 1;
	case '?':
		fputs("sparqd: --help lists the options\n", stderr);
		return -EINVAL;
	default:
		return add_setting(l, shorthand[id - OPTION_SHORTHAND], optarg);
	}
}

static int parse(int argc, char **argv, struct command_line *l)
{
	const char *isa = getenv("SPARQD_ISA");
	int id, r = 0;

	/* Before the options, which are more explicit. */
	if (isa && *isa)
		r = add_setting(l, "isa", isa);
	while (r == 0 && (id = getopt_long(argc, argv, "h", options, NULL)) != -1)
		r = take_option(l, id, &argv[optind - 1]);
	if (r == 0 && optind < argc) {
		fprintf(stderr, "sparqd: \"%s\": options are all it takes; --help lists them\n",
			argv[optind]);
		return -EINVAL;
	}
	return r;
}

/* The words that are left. */
static void close_up(char **argv, int argc)
{
	int n = 0;

	for (int i = 0; i < argc; i++)
		if (argv[i])
			argv[n++] = argv[i];
	argv[n] = NULL;
}

static int dump(const struct config *c)
{
	size_t n = config_dump(c, NULL, 0) + 1;
	FREE_MEMORY char *text = malloc(n);

	if (!text)
		return -ENOMEM;
	config_dump(c, text, n);
	return fputs(text, stdout) < 0 || fflush(stdout) ? -EIO : 0;
}

/* What a start would meet, as JSON: sparqctl doctor reads it where no daemon answers. */
static int check_machine(const struct config *c, const char *path)
{
	FREE_MEMORY struct checks *checks = malloc(sizeof(*checks));
	json_object *out = json_object_new_object();
	int r = checks ? doctor_foresee(c, path, checks) : -ENOMEM;

	if (r == 0)
		r = doctor_put(checks, out);
	if (r < 0)
		fprintf(stderr, "sparqd: --check: %s\n", strerror(-r));
	else
		puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY |
								 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(out);
	return r < 0 || checks_count(checks, CHECK_WRONG) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int serve(const struct command_line *l, const struct config *c)
{
	if (server_run(&l->args, c) == 0)
		return EXIT_SUCCESS;
	keep_rest();
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	CLEANUP(command_line_deinit) struct command_line l = { .args.config_path = SPARQD_CONF };
	char why[CONFIG_WHY_BYTES] = "";
	struct config c;
	int r;

	l.args.set = (const char *const *)l.set;
	r = parse(argc, argv, &l);
	if (r != 0)
		return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
	r = server_config(&l.args, &c, why);
	if (r < 0) {
		fprintf(stderr, "sparqd: %s\n", why[0] ? why : strerror(-r));
		if (!l.dump && !l.check_config && !l.check)
			keep_rest();
		return l.args.n_set && r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
	}
	if (l.dump)
		return dump(&c) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (l.check_config)
		return EXIT_SUCCESS;
	if (l.check)
		return check_machine(&c, l.args.config_path);
	log_open(c.log_level);
	if (l.keeper) {
		close_up(argv, argc);
		return keeper_main(&c, argv);
	}
	return serve(&l, &c);
}
