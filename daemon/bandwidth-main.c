/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqd-bandwidth: asks the hardware what passed between memory and processors, once a second, and
 * writes it where sparqd finds it. It has the one capability that this takes, so that the daemon,
 * which reads what clients write, needs none.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "numa/bandwidth-file.h"
#include "shm/base.h"
#include "shm/clock.h"

/* Every so many seconds: what is mounted or loaded later is found, too. */
#define LOOK_EVERY_S 10u

static struct bandwidth *opened[TOPO_MAX_NODES][BANDWIDTH_SOURCES];
static volatile sig_atomic_t is_over;

static void on_end(int sig)
{
	(void)sig;
	is_over = 1;
}

static int usage(FILE *to, int status)
{
	fputs("usage: sparqd-bandwidth [--once | --version | --help]\n", to);
	return status;
}

/* What a node's sources say; one that is not open keeps the reason why. One that is gone, or is
 * another than it was, is opened anew at the next look. */
static void read_node(const struct bandwidth_machine *m, struct bandwidth_file *f, unsigned node)
{
	for (unsigned k = 0; k < BANDWIDTH_SOURCES; k++) {
		struct bandwidth_entry *e = &f->node[node].source[k];
		int r;

		if (!opened[node][k])
			continue;
		e->why[0] = '\0';
		r = bandwidth_sources[k]->read(m, opened[node][k], &e->count, e->why);
		if (r < 0)
			e->count = BANDWIDTH_NOTHING;
		if (r == -ESTALE || r == -ENOENT || r == -ENODEV) {
			bandwidth_sources[k]->close(opened[node][k]);
			opened[node][k] = NULL;
		}
	}
}

static void open_missing(const struct bandwidth_machine *m, struct bandwidth_file *f)
{
	for (unsigned k = 0; k < BANDWIDTH_SOURCES; k++) {
		char why[BANDWIDTH_WHY_BYTES] = "";
		int r = bandwidth_sources[k]->probe(m, why);

		for (unsigned node = 0; node < f->n_nodes; node++) {
			struct bandwidth_entry *e = &f->node[node].source[k];

			if (opened[node][k])
				continue;
			memcpy(e->why, why, sizeof(why));
			if (r == 0)
				bandwidth_sources[k]->open(m, node, &opened[node][k], e->why);
		}
	}
}

static void print(const struct bandwidth_file *f)
{
	for (unsigned node = 0; node < f->n_nodes; node++)
		for (unsigned k = 0; k < BANDWIDTH_SOURCES; k++) {
			const struct bandwidth_entry *e = &f->node[node].source[k];

			printf("node %d %-8s %s\n", f->node[node].node, e->name,
			       e->why[0] ? e->why : "counts");
		}
}

static int count(const struct bandwidth_machine *m, struct bandwidth_file *f)
{
	const struct timespec pause = { .tv_sec = BANDWIDTH_EVERY_S };

	for (unsigned second = 1; !is_over; second++) {
		int r;

		if (second % LOOK_EVERY_S == 0)
			open_missing(m, f);
		for (unsigned node = 0; node < f->n_nodes; node++)
			read_node(m, f, node);
		f->written_ns = (uint64_t)clock_now_ns();
		r = bandwidth_file_write(BANDWIDTH_FILE, f);
		if (r < 0) {
			fprintf(stderr, "sparqd-bandwidth: %s: %s\n", BANDWIDTH_FILE, strerror(-r));
			return 1;
		}
		nanosleep(&pause, NULL);
	}
	return unlink(BANDWIDTH_FILE) < 0;
}

static int run(bool once)
{
	static struct bandwidth_file file;
	CLOSE_FD int root = open("/", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	struct bandwidth_machine m;
	struct topo t;
	int r = topo_read("/", &t);

	if (r < 0 || root < 0) {
		fprintf(stderr, "sparqd-bandwidth: the machine's topology: %s\n",
			strerror(r < 0 ? -r : errno));
		return 1;
	}
	m = bandwidth_machine_here(root, &t);
	bandwidth_file_init(&file, &t);
	open_missing(&m, &file);
	print(&file);
	fflush(stdout);
	return once ? 0 : count(&m, &file);
}

int main(int argc, char **argv)
{
	const struct sigaction end = { .sa_handler = on_end };
	const char *option = argc > 1 ? argv[1] : "";

	if (argc > 2)
		return usage(stderr, 2);
	if (!strcmp(option, "--help") || !strcmp(option, "-h"))
		return usage(stdout, 0);
	if (!strcmp(option, "--version")) {
		puts("sparqd-bandwidth " SPARQ_VERSION);
		return 0;
	}
	if (*option && strcmp(option, "--once") != 0)
		return usage(stderr, 2);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	return run(*option);
}
