/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of clients at any moment: does the daemon give back all that they held?
 *
 *   client-deaths --rounds N --seed S [--clients C] [--window-us W] [--daemon PATH] [--park]
 *                 [--memory-grows]
 *
 * Some clients load the daemon (client.h), each until it is killed and another one takes its place.
 * What the daemon holds - bytes of the pool, bytes charged, descriptors, memory of its own - is
 * noted after the first few, when it has all that it keeps for reuse, and compared at the end. The
 * last line is "deaths N used B -> B descriptors D -> D memory K -> K KiB".
 *
 *   --park  caches keep sequences whose client has died: then nothing is given back, which is the
 *           positive control
 *   --memory-grows  memory of its own is not compared: a sanitizer keeps what is freed
 */
#include <dirent.h>
#include <errno.h>
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
#include <time.h>
#include <unistd.h>

#include "shm/base.h"
#include "shm/clock.h"
#include "tests/crash/client.h"
#include "tests/crash/daemon.h"

#define WARM_UP 300
#define SETTLE_TRIES 200
#define SETTLE_US 10000
#define SLACK_KIB 768 /* of memory: malloc keeps some for reuse, the more the more died at once */

struct options {
	const char *daemon;
	uint64_t rounds, seed;
	unsigned clients, window_us;
	bool park, grows;
};

struct held {
	uint64_t used, charged;
	unsigned descriptors;
	long kib;
};

struct deaths {
	struct options opt;
	struct daemon daemon;
	struct shared *shared;
	pid_t client[CLIENTS_MOST];
	uint32_t born;
	uint64_t random;
};

static uint32_t draw(struct deaths *d, uint32_t below)
{
	d->random = d->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((d->random >> 32) * below >> 32);
}

/* ---- clients --------------------------------------------------------------------------- */

__attribute__((noreturn)) static void run_client(const struct deaths *d, uint32_t index)
{
	static struct client k;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	k.shared = d->shared;
	k.count = &d->shared->count[0];
	k.socket = d->daemon.socket;
	k.index = index; /* its sequences are of nobody before it */
	k.random = d->opt.seed * 1000003 + index;
	k.drops = !d->opt.park;
	client_open(&k);
	load_run(&k);
	client_fail(&k, "the daemon is gone");
}

static int start_client(struct deaths *d, unsigned slot)
{
	d->client[slot] = fork();
	if (d->client[slot] == 0)
		run_client(d, d->born);
	d->born++;
	return d->client[slot] < 0 ? -errno : 0;
}

/* One that ended by itself had found something wrong, and has said so. */
static int end_client(struct deaths *d, unsigned slot)
{
	int status;

	kill(d->client[slot], SIGKILL);
	if (waitpid(d->client[slot], &status, 0) < 0)
		return -errno;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -ECHILD;
}

static int kill_clients(struct deaths *d, uint64_t n)
{
	unsigned clients = d->opt.clients;
	int r = 0;

	for (unsigned slot = 0; r == 0 && slot < clients; slot++)
		r = start_client(d, slot);
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		/* With as many alive, each lives that many times as long. */
		daemon_wait(&d->daemon, draw(d, d->opt.window_us));
		r = end_client(d, i % clients);
		if (r == 0 && i + clients < n)
			r = start_client(d, i % clients);
		if (!daemon_alive(&d->daemon))
			r = -ECHILD;
	}
	return r;
}

/* ---- what the daemon holds ------------------------------------------------------------------ */

static unsigned count_descriptors(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static long count_kib(pid_t pid)
{
	char path[64], line[128];
	long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static int look(struct deaths *d, struct held *ret)
{
	struct sparq_info info = { .size = sizeof(info) };
	sparq *c = NULL;
	int r = sparq_open(d->daemon.socket, NULL, &c);

	if (r == 0)
		r = sparq_info_get(c, &info);
	*ret = (struct held){
		.used = info.pool_used_bytes,
		.charged = info.charged_bytes,
		.descriptors = count_descriptors(d->daemon.child),
		.kib = count_kib(d->daemon.child),
	};
	sparq_close(c);
	return r;
}

static bool is_flat(const struct deaths *d, const struct held *a, const struct held *b)
{
	return a->used == b->used && a->charged == b->charged && a->descriptors == b->descriptors &&
	       (d->opt.grows || b->kib <= a->kib + SLACK_KIB);
}

/* The dead are noticed in their own time: until it holds no more than `first`, or still does. */
static int look_again(struct deaths *d, const struct held *first, struct held *ret)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < SETTLE_TRIES; i++) {
		r = look(d, ret);
		if (first ? is_flat(d, first, ret) : i > 20)
			break;
		daemon_wait(&d->daemon, SETTLE_US);
	}
	return r;
}

static int run(struct deaths *d)
{
	struct held first, last;
	int r = kill_clients(d, WARM_UP);

	if (r == 0)
		r = look_again(d, NULL, &first);
	if (r == 0)
		r = kill_clients(d, d->opt.rounds);
	if (r == 0)
		r = look_again(d, &first, &last);
	if (r < 0)
		return r;
	printf("deaths %" PRIu64 " used %" PRIu64 " -> %" PRIu64
	       " descriptors %u -> %u memory %ld -> %ld KiB\n",
	       d->opt.rounds, first.used, last.used, first.descriptors, last.descriptors, first.kib,
	       last.kib);
	return is_flat(d, &first, &last) ? 0 : -EBUSY;
}

/* ---- command line ------------------------------------------------------------------------------
 */

static const struct option long_options[] = {
	{ "rounds", required_argument, NULL, 'n' },
	{ "seed", required_argument, NULL, 's' },
	{ "clients", required_argument, NULL, 'c' },
	{ "daemon", required_argument, NULL, 'd' },
	{ "window-us", required_argument, NULL, 'w' },
	{ "park", no_argument, NULL, 'p' },
	{ "memory-grows", no_argument, NULL, 'g' },
	{ 0 },
};

static struct options read_options(int argc, char **argv)
{
	struct options o = {
		.daemon = "sparqd",
		.rounds = 1000,
		.seed = 1,
		.clients = 3,
		.window_us = 3000,
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'n':
			o.rounds = strtoull(optarg, NULL, 0);
			break;
		case 's':
			o.seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			o.clients = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'd':
			o.daemon = optarg;
			break;
		case 'w':
			o.window_us = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'p':
			o.park = true;
			break;
		case 'g':
			o.grows = true;
			break;
		default:
			exit(64);
		}
	}
	if (optind < argc || o.clients == 0 || o.clients > CLIENTS_MOST || o.window_us == 0) {
		fprintf(stderr, "client-deaths: see the head of its source\n");
		exit(64);
	}
	return o;
}

int main(int argc, char **argv)
{
	struct deaths d = { .opt = read_options(argc, argv) };
	int64_t began = clock_now_ns();
	int r;

	d.random = d.opt.seed;
	d.shared = mmap(NULL, sizeof(*d.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (d.shared == MAP_FAILED || daemon_start(&d.daemon, DAEMON_STORE, d.opt.daemon, NULL) < 0)
		return EXIT_FAILURE;
	d.shared->killer = CLIENTS_MOST; /* no orders */
	d.shared->leaving = UINT32_MAX;
	r = run(&d);
	if (r < 0) {
		fprintf(stderr, "FAILED: %s\n", strerror(-r));
		daemon_show_log(&d.daemon);
	}
	daemon_stop(&d.daemon);
	fprintf(stderr, "%.1f s\n", (double)(clock_now_ns() - began) / 1e9);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
