/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of the daemon under load, round by round: is everything there that was acknowledged?
 *
 *   kill-rounds --rounds N --seed S [--clients C] [--window-us W] [--daemon PATH]
 *               [--keeper | --outside SOCKET] [--no-store | --leave] [--parts N]
 *
 * Clients are processes of their own (client.h). In every round the daemon is killed once, after
 * some entries at a moment that is uniform in the window, or by a client that has just filled its
 * ring; sometimes the next one is killed as well, at any moment from its start on. Then all clients
 * come back and check. The last line is "rounds N acknowledged A lost L", in rows; the status is 1
 * if any was lost.
 *
 *   --keeper    sparqd --keeper restarts it, instead of this program
 *   --outside   somebody else does, and listens at SOCKET
 *   --leave     clients end their sessions, and nobody kills the daemon
 *   --parts     pool_parts of the daemon: KV heads lie in so many arenas
 *   --no-store  nobody keeps the daemon's memory: all must be lost, which is the positive control
 */
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

#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "tests/crash/client.h"
#include "tests/crash/daemon.h"

#define READY_MS 30000
#define WINDOW_US 500
#define PATIENCE_US 500000 /* for a client to do it */
#define TWICE_US 6000
#define REATTACH_US 1300000 /* a little more than reattach_s */
#define BREATH_ROUNDS 500
#define EMPTY_TRIES 50
#define SUBMITS_MOST 24
#define FULL_NS 60000 /* what a full ring takes, about */

struct options {
	const char *daemon, *outside;
	uint64_t rounds, seed;
	unsigned clients, window_us;
	bool keeper, no_store, leave;
	char parts[32];
	const char *set[2]; /* for the daemon */
};

struct ready {
	uint32_t client;
	int32_t daemon;
};

struct rounds {
	struct options opt;
	struct daemon daemon;
	struct shared *shared;
	pid_t client[CLIENTS_MOST];
	int32_t served[CLIENTS_MOST]; /* the daemon that each client checked last */
	int32_t killed;
	int ready; /* pipe: a message of each client that has checked */
	uint64_t random, done;
};

static uint32_t draw(struct rounds *r, uint32_t below)
{
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((r->random >> 32) * below >> 32);
}

/* ---- clients ------------------------------------------------------------------------- */

__attribute__((noreturn)) static void run_client(struct rounds *r, unsigned index, int ready)
{
	static struct client k;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	k.shared = r->shared;
	k.count = &r->shared->count[index];
	k.socket = r->daemon.socket;
	k.index = index;
	k.random = r->opt.seed * 1000003 + index;
	k.resumes = index % 2 && !r->opt.leave;
	for (;;) {
		int result;

		client_open(&k);
		result = verify_run(&k);
		if (result == 0) {
			struct ready told = { index, k.pid };

			if (write(ready, &told, sizeof(told)) != sizeof(told))
				client_fail(&k, "nobody waits");
			result = load_run(&k);
		}
		if (result == 0)
			break;
		if (r->opt.leave)
			client_close(&k);
		client_break(&k);
	}
	if (verify_start_over(&k) < 0)
		client_fail(&k, "the daemon is gone at the end");
	client_close(&k);
	exit(EXIT_SUCCESS);
}

static int start_clients(struct rounds *r)
{
	int ends[2];

	if (pipe(ends) < 0)
		return -errno;
	for (unsigned i = 0; i < r->opt.clients; i++) {
		r->client[i] = fork();
		if (r->client[i] < 0)
			return -errno;
		if (r->client[i] == 0)
			run_client(r, i, ends[1]);
	}
	close(ends[1]);
	r->ready = ends[0];
	return 0;
}

/* All clients have checked the daemon that there is now. */
static bool all_ready(const struct rounds *r)
{
	bool known = r->daemon.mode == DAEMON_STORE;

	for (unsigned i = 0; i < r->opt.clients; i++) {
		if (known ? r->served[i] != r->daemon.child : r->served[i] == r->killed)
			return false;
		if (r->served[i] != r->served[0])
			return false;
	}
	return r->served[0] != 0;
}

static int read_ready(struct rounds *r)
{
	struct ready told[CLIENTS_MOST];
	ssize_t n = read(r->ready, told, sizeof(told));

	if (n <= 0)
		return -EPIPE;
	for (size_t i = 0; i < (size_t)n / sizeof(*told); i++)
		r->served[told[i].client] = told[i].daemon;
	return 0;
}

static bool client_died(const struct rounds *r)
{
	for (unsigned i = 0; i < r->opt.clients; i++) {
		siginfo_t info = { 0 };

		if (waitid(P_PID, (id_t)r->client[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    !info.si_pid)
			continue;
		fprintf(stderr, "client %u is gone: code %d, status %d\n", i, info.si_code,
			info.si_status);
		return true;
	}
	return false;
}

static int wait_ready(struct rounds *r)
{
	int64_t end = clock_now_ns() + READY_MS * INT64_C(1000000);
	struct pollfd fds[] = {
		{ .fd = r->ready, .events = POLLIN },
		{ .fd = r->daemon.notify, .events = POLLIN },
	};
	int result = 0;

	while (result == 0 && !all_ready(r)) {
		int n = poll(fds, ARRAY_SIZE(fds), 100);

		if (!daemon_alive(&r->daemon)) {
			fprintf(stderr, "the daemon died, and nobody had killed it\n");
			return -ECHILD;
		}
		if (n > 0 && fds[0].revents)
			result = read_ready(r);
		if (client_died(r))
			return -EPIPE;
		if (clock_now_ns() > end) {
			fprintf(stderr, "not all clients came back in %d s\n", READY_MS / 1000);
			return -ETIMEDOUT;
		}
	}
	return result;
}

/* ---- one round ------------------------------------------------------------------------- */

/* By a client, not by this process: which would be woken late on a machine that has other things to
 * do, with the ring of everybody empty by then. */
static void order(struct rounds *r)
{
	struct shared *s = r->shared;

	s->submits = 1 + draw(r, SUBMITS_MOST);
	s->fill = draw(r, 4);
	s->spin_ns = draw(r, s->fill ? FULL_NS : r->opt.window_us * 1000);
	s->killer = draw(r, r->opt.clients);
	store_release(&s->round, s->round + 1);
}

/* In some time, unless a client does it before. */
static int kill_in(struct rounds *r, uint32_t us)
{
	pid_t pid = r->daemon.mode == DAEMON_STORE ? r->daemon.child : r->served[0];
	int result;

	r->killed = pid;
	daemon_watch(&r->daemon, pid);
	daemon_wait(&r->daemon, us);
	result = daemon_kill(&r->daemon, pid);
	/* Whoever still means to kill means this one, by its number. */
	store_relaxed(&r->shared->killer, CLIENTS_MOST);
	return result < 0 ? result : daemon_restart(&r->daemon);
}

/* The control of the test itself: sessions end, the daemon does not. */
static int leave_round(struct rounds *r)
{
	order(r);
	store_relaxed(&r->shared->killer, CLIENTS_MOST);
	memset(r->served, 0, sizeof(r->served));
	daemon_wait(&r->daemon, draw(r, r->opt.window_us));
	store_release(&r->shared->leaving, r->shared->round);
	return wait_ready(r);
}

static int kill_round(struct rounds *r)
{
	int result;

	order(r);
	result = kill_in(r, PATIENCE_US);
	/* Once more while it recovers, or while clients check. */
	if (result == 0 && r->daemon.mode == DAEMON_STORE && draw(r, 8) == 0)
		result = kill_in(r, draw(r, TWICE_US));
	return result < 0 ? result : wait_ready(r);
}

static int stop_clients(struct rounds *r)
{
	int result = 0;

	store_release(&r->shared->stopping, 1);
	for (unsigned i = 0; i < r->opt.clients; i++) {
		int status;

		if (waitpid(r->client[i], &status, 0) < 0 || status != 0)
			result = -ECHILD;
	}
	return result;
}

/* Everybody has dropped what he had: of a thousand crashes nothing is left over. */
static int check_empty(struct rounds *r)
{
	struct sparq_info info = { .size = sizeof(info) };
	sparq *c = NULL;
	int result = sparq_open(r->daemon.socket, NULL, &c);

	for (unsigned i = 0; result == 0 && i < EMPTY_TRIES; i++) {
		result = sparq_info_get(c, &info);
		if (info.pool_used_bytes == 0)
			break;
		daemon_wait(&r->daemon, REATTACH_US / 10);
	}
	sparq_close(c);
	if (result == 0 && info.pool_used_bytes) {
		fprintf(stderr, "%" PRIu64 " bytes of the pool are nobody's\n",
			info.pool_used_bytes);
		result = -EBUSY;
	}
	return result;
}

static int run(struct rounds *r)
{
	int result = start_clients(r);

	r->shared->killer = CLIENTS_MOST;
	r->shared->leaving = UINT32_MAX;
	if (result == 0)
		result = wait_ready(r);
	while (result == 0 && r->done < r->opt.rounds) {
		result = r->opt.leave ? leave_round(r) : kill_round(r);
		r->done += result == 0;
		/* What nobody took up goes after a time that a round does not last. */
		if (r->done % BREATH_ROUNDS == 0)
			daemon_wait(&r->daemon, REATTACH_US);
	}
	result = result < 0 ? result : stop_clients(r);
	return result < 0 ? result : check_empty(r);
}

/* ---- command line ------------------------------------------------------------------------ */

static const struct option long_options[] = {
	{ "rounds", required_argument, NULL, 'n' },
	{ "seed", required_argument, NULL, 's' },
	{ "clients", required_argument, NULL, 'c' },
	{ "daemon", required_argument, NULL, 'd' },
	{ "window-us", required_argument, NULL, 'w' },
	{ "outside", required_argument, NULL, 'o' },
	{ "keeper", no_argument, NULL, 'k' },
	{ "no-store", no_argument, NULL, 'x' },
	{ "leave", no_argument, NULL, 'l' },
	{ "parts", required_argument, NULL, 'p' },
	{ 0 },
};

static struct options read_options(int argc, char **argv)
{
	struct options o = {
		.daemon = "sparqd",
		.rounds = 100,
		.seed = 1,
		.clients = 4,
		.window_us = WINDOW_US,
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
		case 'o':
			o.outside = optarg;
			break;
		case 'k':
			o.keeper = true;
			break;
		case 'l':
			o.leave = true;
			break;
		case 'x':
			o.no_store = true;
			break;
		case 'p':
			snprintf(o.parts, sizeof(o.parts), "pool_parts=%s", optarg);
			break;
		default:
			exit(64);
		}
	}
	if (optind < argc || o.clients == 0 || o.clients > CLIENTS_MOST || o.window_us == 0) {
		fprintf(stderr, "kill-rounds: see the head of its source\n");
		exit(64);
	}
	return o;
}

static int start_daemon(struct rounds *r)
{
	enum daemon_mode mode = r->opt.keeper ? DAEMON_KEEPER : DAEMON_STORE;

	r->opt.set[0] = *r->opt.parts ? r->opt.parts : NULL;
	if (!r->opt.outside)
		return daemon_start(&r->daemon, mode, r->opt.daemon, r->opt.set);
	r->daemon = DAEMON_NULL;
	r->daemon.mode = DAEMON_OUTSIDE;
	snprintf(r->daemon.socket, sizeof(r->daemon.socket), "%s", r->opt.outside);
	return 0;
}

static uint64_t report(const struct rounds *r, uint64_t rounds, double seconds)
{
	struct client_count sum = { 0 };

	for (unsigned i = 0; i < r->opt.clients; i++) {
		const struct client_count *c = &r->shared->count[i];

		sum.acknowledged += c->acknowledged;
		sum.lost += c->lost;
		sum.checked += c->checked;
		sum.arrived += c->arrived;
		sum.absent += c->absent;
		sum.repeated += c->repeated;
		sum.digests += c->digests;
		sum.replicas += c->replicas;
	}
	printf("%.1f s, %.0f rounds a second; rows compared: %" PRIu64 "\n", seconds,
	       (double)rounds / seconds, sum.checked);
	printf("in flight: %" PRIu64 " had arrived, %" PRIu64 " had not; %" PRIu64
	       " appends answered as done\n",
	       sum.arrived, sum.absent, sum.repeated);
	printf("results with the bits of before: %" PRIu64
	       "; of a sequence without a crash: %" PRIu64 "\n",
	       sum.digests, sum.replicas);
	printf("rounds %" PRIu64 " acknowledged %" PRIu64 " lost %" PRIu64 "\n", rounds,
	       sum.acknowledged, sum.lost);
	return sum.lost;
}

int main(int argc, char **argv)
{
	struct rounds r = { .opt = read_options(argc, argv) };
	int64_t began = clock_now_ns();
	uint64_t lost;
	int result;

	r.random = r.opt.seed;
	r.shared = mmap(NULL, sizeof(*r.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (r.shared == MAP_FAILED || start_daemon(&r) < 0)
		return EXIT_FAILURE;
	r.daemon.forgets = r.opt.no_store;
	result = run(&r);
	if (result < 0)
		daemon_show_log(&r.daemon);
	daemon_stop(&r.daemon);
	lost = report(&r, r.done, (double)(clock_now_ns() - began) / 1e9);
	return result < 0 || lost ? EXIT_FAILURE : EXIT_SUCCESS;
}
