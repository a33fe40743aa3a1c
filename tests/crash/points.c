/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon dies at every point that it has (daemon/point.h), at the first, second and third
 * arrival, and the next one must have all that was acknowledged.
 *
 *   points --daemon PATH-OF-SPARQD-POINTS [--times N] [--share I/N] [NAME...]
 *
 * --share takes the I-th of N parts of the points, so that N of these side by side take them all.
 * The points are those that the daemon names, so a new one is in the test by being there;
 * one that the load does not reach fails it. A client (client.h) loads the daemon, and kills it
 * now and then by itself: so the points of recovery come about. Last line: "points P deaths
 * D lost L".
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "tests/crash/client.h"
#include "tests/crash/daemon.h"

#define TIMES 3
#define ARRIVALS_BYTES 4096
#define NAMES_MOST 512
#define OPERATIONS 1000 /* between two deaths that are no point's */
#define LIVES 300       /* then the point is out of reach */
#define LIVES_SLOW 12   /* with extras */
#define SECONDS 180     /* for one death, at most: a machine may be busy */

enum { NEVER_REACHED = 3, ONLY_ONCE };

/* Points that are only reached after a death at another one. */
static const struct {
	const char *name, *before;
} needs[] = {
	{ "recover_cut", "truncate_noted:*" },
	{ "recover_overwrite", "overwrite_named:*" },
	{ "recover_cut_reach", "truncate_noted:*" },
};

/* Beginnings of names that take what extras.c does, which is slow beside the rest. */
static const char *const extras[] = { "evict_", "prefix_", "save_", "spill_", "tokens_" };
/* Reached once in the life of a memory: nobody need wait for the second time. */
static const char *const once[] = { "start_" };
/* Not reached: a table's second block takes 250 000 rows. */
static const char *const beyond[] = { "flush_block" };

/* Nodes that are full all the time, and are not, so that pages come and go. */
static const char *const crowded[] = { "pool_parts=8", "placement=local", "rebalance_full=100",
				       NULL };

struct points {
	const char *path;
	char *name[NAMES_MOST];
	unsigned n, times;
	unsigned share, shares; /* those whose number leaves this when divided */
	const char *current;
	uint64_t deaths;
	struct shared *shared;
	uint64_t *arrivals; /* at the point, in the file that the daemon counts in */
	char file[64], directory[64], spill[96]; /* what it counts in, where it spills */
};

static bool begins(const char *name, const char *const *with, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!strncmp(name, with[i], strlen(with[i])))
			return true;
	return false;
}

static bool is_extra(const char *name)
{
	return begins(name, extras, ARRAY_SIZE(extras));
}

/* ---- the client -------------------------------------------------------------------------- */

__attribute__((noreturn)) static void run_client(struct points *p, const struct daemon *d,
						 uint64_t last)
{
	static struct client k;
	bool over = false;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	k.shared = p->shared;
	k.count = &p->shared->count[0];
	k.socket = d->socket;
	k.random = last;
	k.operations = OPERATIONS;
	k.extras = is_extra(p->current);
	k.spills = !strncmp(p->current, "spill_", 6);
	for (unsigned life = 0; life < (k.extras ? LIVES_SLOW : LIVES); life++) {
		int r;

		/* Looked at before: what is checked then is what the death left. */
		over = load_acquire(p->arrivals) >= last;
		client_open(&k);
		r = verify_run(&k);
		if (r == 0 && over)
			exit(EXIT_SUCCESS);
		if (r == 0)
			r = load_run(&k);
		if (r == 0 && load_acquire(p->arrivals) < last)
			kill(k.pid, SIGKILL);
		client_break(&k);
	}
	exit(NEVER_REACHED);
}

/* ---- one death ------------------------------------------------------------------------------ */

/* Restarts the daemon whenever it has died, until the client is done: its status. */
static int serve(struct daemon *d, pid_t client)
{
	int64_t end = clock_now_ns() + SECONDS * NS_PER_S;
	int status;

	while (waitpid(client, &status, WNOHANG) == 0) {
		struct pollfd fds[] = {
			{ .fd = d->notify, .events = POLLIN },
			{ .fd = d->pidfd, .events = POLLIN },
		};

		poll(fds, ARRAY_SIZE(fds), 10);
		if (!daemon_alive(d) && daemon_restart(d) < 0)
			break;
		if (clock_now_ns() > end) {
			fprintf(stderr, "not over in %d s\n", SECONDS);
			break;
		}
	}
	if (waitpid(client, NULL, WNOHANG) < 0)
		return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
	kill(client, SIGKILL);
	waitpid(client, NULL, 0);
	return EXIT_FAILURE;
}

static int arm(struct points *p, const char *name, unsigned last)
{
	char point[128];
	int n = snprintf(point, sizeof(point), "%s:%u", name, last);

	memset(p->arrivals, 0, ARRIVALS_BYTES);
	memset(p->shared, 0, sizeof(*p->shared));
	p->shared->killer = CLIENTS_MOST;
	p->shared->leaving = UINT32_MAX;
	for (unsigned i = 0; i < ARRAY_SIZE(needs); i++)
		if (!strcmp(needs[i].name, name))
			snprintf(point + n, sizeof(point) - (size_t)n, ",%s", needs[i].before);
	if (setenv("SPARQD_POINT", point, 1) < 0 || setenv("SPARQD_POINT_FILE", p->file, 1) < 0)
		return -errno;
	return 0;
}

/* The daemon dies at the last-th arrival. 0: nothing was lost. */
static int die_at(struct points *p, const char *name, unsigned last)
{
	const char *const spills[] = { p->spill, "spill_idle_s=1", NULL };
	const char *const *set = !strncmp(name, "spill_", 6)  ? spills
				 : !strncmp(name, "move_", 5) ? crowded
							      : NULL;
	struct daemon d = DAEMON_NULL;
	int status = EXIT_FAILURE;
	pid_t client;

	p->current = name;
	if (arm(p, name, last) < 0 || daemon_start(&d, DAEMON_STORE, p->path, set) < 0)
		return EXIT_FAILURE;
	fflush(stdout);
	client = fork();
	if (client == 0)
		run_client(p, &d, last);
	if (client > 0)
		status = serve(&d, client);
	if (status == 0 && load_relaxed(&p->shared->count[0].lost))
		status = EXIT_FAILURE;
	/* What happens once in the life of a memory does not happen again. */
	if (status == NEVER_REACHED && load_relaxed(p->arrivals) > 0)
		status = ONLY_ONCE;
	if (status == NEVER_REACHED)
		printf("%s was not reached\n", name);
	else if (status && status != ONLY_ONCE)
		daemon_show_log(&d);
	daemon_stop(&d);
	p->deaths += status == 0;
	return status;
}

/* ---- all of them -------------------------------------------------------------------- */

static int open_file(struct points *p)
{
	int fd;

	snprintf(p->file, sizeof(p->file), "%s/sparq-point.XXXXXX", daemon_scratch());
	fd = mkstemp(p->file);
	if (fd < 0 || ftruncate(fd, ARRIVALS_BYTES) < 0)
		return -errno;
	snprintf(p->directory, sizeof(p->directory), "%s/sparq-spill.XXXXXX", daemon_scratch());
	if (!mkdtemp(p->directory))
		return -errno;
	snprintf(p->spill, sizeof(p->spill), "spill_dir=%s", p->directory);
	p->arrivals = mmap(NULL, ARRIVALS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return p->arrivals == MAP_FAILED ? -errno : 0;
}

/* What the daemon says that it has. */
static int read_names(struct points *p)
{
	char command[512], line[128];
	unsigned number = 0;
	FILE *list;

	snprintf(command, sizeof(command), "SPARQD_POINT=list '%s'", p->path);
	list = popen(command, "r");
	while (list && p->n < NAMES_MOST && fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = 0;
		if (begins(line, beyond, ARRAY_SIZE(beyond)))
			printf("%s: not reached by this load\n", line);
		else if (number++ % p->shares == p->share)
			p->name[p->n++] = strdup(line);
	}
	return list && pclose(list) == 0 && p->n > 0 ? 0 : -EIO;
}

static void remove_directory(const struct points *p)
{
	char command[sizeof(p->directory) + 16];

	snprintf(command, sizeof(command), "rm -rf %s", p->directory);
	if (system(command) != 0)
		fprintf(stderr, "%s: not removed\n", p->directory);
}

static int run(struct points *p)
{
	unsigned failed = 0;

	for (unsigned i = 0; i < p->n; i++) {
		bool is_once = begins(p->name[i], once, ARRAY_SIZE(once));

		for (unsigned last = 1; last <= (is_once ? 1 : p->times); last++) {
			int status = die_at(p, p->name[i], last);

			if (status == 0)
				continue;
			if (status != ONLY_ONCE || last == 1) {
				printf("FAILED: %s:%u\n", p->name[i], last);
				fflush(stdout);
				failed++;
			}
			break; /* the next arrival is like this one */
		}
	}
	printf("points %u deaths %" PRIu64 " lost %u\n", p->n, p->deaths, failed);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool parse_share(struct points *p, const char *text)
{
	unsigned i, n;
	char rest;

	if (sscanf(text, "%u/%u%c", &i, &n, &rest) != 2 || i == 0 || i > n)
		return false;
	p->share = i - 1;
	p->shares = n;
	return true;
}

static bool parse(struct points *p, int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "daemon", required_argument, NULL, 'd' },
		{ "times", required_argument, NULL, 't' },
		{ "share", required_argument, NULL, 's' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 'd')
			p->path = optarg;
		else if (c == 't')
			p->times = (unsigned)strtoul(optarg, NULL, 0);
		else if (c != 's' || !parse_share(p, optarg))
			return false;
	}
	while (optind < argc && p->n < NAMES_MOST)
		p->name[p->n++] = strdup(argv[optind++]);
	return true;
}

int main(int argc, char **argv)
{
	struct points p = { .path = "sparqd-points", .times = TIMES, .shares = 1 };
	int status;

	if (!parse(&p, argc, argv))
		return 64;
	p.shared = mmap(NULL, sizeof(*p.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (p.shared == MAP_FAILED || open_file(&p) < 0 || (p.n == 0 && read_names(&p) < 0)) {
		fprintf(stderr, "%s: no points\n", p.path);
		return EXIT_FAILURE;
	}
	status = run(&p);
	unlink(p.file);
	remove_directory(&p);
	for (unsigned i = 0; i < p.n; i++)
		free(p.name[i]);
	return status;
}
