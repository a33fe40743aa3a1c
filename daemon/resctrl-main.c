/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqd-resctrl(8): makes the monitoring group that sparqd-bandwidth counts, and puts the daemon's
 * threads into it. A program of its own, because it is root's and neither of them is.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numa/resctrl-group.h"
#include "shm/base.h"

#define CGROUP "system.slice/sparqd.service"
#define SETTLE_MS 2000 /* longer than systemd waits before it starts the daemon again */

enum { EXIT_USAGE = 2 };

static const char usage[] = "usage: sparqd-resctrl [--cgroup path]\n"
			    "       sparqd-resctrl --help | --version\n";

static const struct option options[] = {
	{ "cgroup", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ NULL, 0, NULL, 0 },
};

static int parse(int argc, char **argv, const char **cgroup)
{
	int id;

	while ((id = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (id) {
		case 'c':
			*cgroup = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'v':
			puts("sparqd-resctrl " SPARQ_VERSION);
			return 1;
		default:
			return -EINVAL;
		}
	}
	return optind < argc ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
	CLOSE_FD int root = open("/", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	char why[RESCTRL_WHY_BYTES] = "";
	const char *cgroup = CGROUP;
	unsigned threads;
	int r = parse(argc, argv, &cgroup);

	if (r < 0)
		fputs(usage, stderr);
	if (r != 0)
		return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
	r = root < 0 ? -errno : resctrl_group(root, cgroup, SETTLE_MS, &threads, why);
	if (r < 0) {
		fprintf(stderr, "sparqd-resctrl: %s\n", why[0] ? why : strerror(-r));
		return EXIT_FAILURE;
	}
	printf("%u threads of %s are counted by /" RESCTRL_GROUP "\n", threads, cgroup);
	return EXIT_SUCCESS;
}
