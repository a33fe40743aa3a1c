/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparq-bench ring: what the ring and the daemon add to a step.
 *
 * A NOP goes through the public API and a real daemon (started here, private
 * sockets) and comes back; beside it, measured just before and just after in the
 * same program, the floor: one cache line bounced between two threads. Hosts
 * move virtual CPUs, so only the ratio means something.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sparq.h"
#include "numa/pin.h"
#include "shm/base.h"
#include "tests/bench/daemon.h"
#include "tests/bench/option.h"
#include "tests/bench/pingpong.h"

#define POLLS 1000u /* as a client that waits for a token polls, before it sleeps */

struct ring_options {
	const char *daemon, *socket;
	uint32_t depth, samples, repeats, entries;
	bool json;
};

struct ring_figures {
	double line_ns, nop_ns, nop_p99_ns, batch_ns;
};

/* Submits n NOPs at once and reads their completions. */
static int round_trip(sparq_queue *q, unsigned n)
{
	struct sparq_cqe *cqe[256];
	unsigned done = 0;
	int r;

	for (unsigned i = 0; i < n; i++) {
		struct sparq_sqe *e = sparq_get_sqe(q);

		if (!e)
			return -ENOBUFS;
		sparq_prep_nop(e, i);
	}
	r = sparq_submit(q, 0);
	while (r >= 0 && done < n) {
		unsigned most = MIN(n - done, (unsigned)ARRAY_SIZE(cqe));

		r = sparq_peek(q, cqe, most);
		for (unsigned i = 0; r == 0 && i < POLLS; i++)
			r = sparq_peek(q, cqe, most);
		if (r == 0)
			r = sparq_wait(q, cqe, 1000000000) < 0 ? -ETIME : 0;
		if (r > 0) {
			sparq_seen(q, (unsigned)r);
			done += (unsigned)r;
		}
	}
	return r < 0 ? r : 0;
}

/* Median and p99 of `samples` means of 100 round trips: one is shorter than the clock's steps. */
static int measure_nops(sparq_queue *q, const struct ring_options *o, struct ring_figures *f)
{
	FREE_MEMORY double *sample = calloc(o->samples, sizeof(*sample));
	double start;
	int r = 0;

	if (!sample)
		return -ENOMEM;
	for (unsigned i = 0; i < 1000 && r == 0; i++)
		r = round_trip(q, 1);
	for (unsigned i = 0; i < o->samples && r == 0; i++) {
		start = bench_now_ns();
		for (unsigned j = 0; j < 100 && r == 0; j++)
			r = round_trip(q, 1);
		sample[i] = (bench_now_ns() - start) / 100;
	}
	if (r < 0)
		return r;
	f->nop_ns = bench_median(sample, o->samples);
	f->nop_p99_ns = sample[o->samples * 99 / 100];
	start = bench_now_ns();
	for (unsigned i = 0; i < 2000 && r == 0; i++)
		r = round_trip(q, o->depth);
	f->batch_ns = (bench_now_ns() - start) / (2000.0 * o->depth);
	return r;
}

/* The floor, between the CPUs that the process was given; this thread's own pin is put back. */
static double line_ns(void)
{
	cpu_set_t pinned, all;
	double ns;

	pthread_getaffinity_np(pthread_self(), sizeof(pinned), &pinned);
	memset(&all, 0xff, sizeof(all));
	pthread_setaffinity_np(pthread_self(), sizeof(all), &all);
	ns = pingpong_line_ns();
	pthread_setaffinity_np(pthread_self(), sizeof(pinned), &pinned);
	return ns;
}

/* The best of several repetitions, each with the floor measured beside it. */
static int measure(sparq_queue *q, const struct ring_options *o, struct ring_figures *ret)
{
	struct ring_figures best = { .nop_ns = 1e18 };
	double line = 1e18;

	for (unsigned i = 0; i < o->repeats; i++) {
		struct ring_figures now;
		double before = line_ns();
		int r = measure_nops(q, o, &now);

		if (r < 0)
			return r;
		line = MIN(line, MIN(before, line_ns()));
		if (now.nop_ns < best.nop_ns)
			best = now;
	}
	best.line_ns = line;
	*ret = best;
	return 0;
}

static void print_figures(const struct ring_figures *f, const struct ring_options *o)
{
	double ratio = f->nop_ns / f->line_ns;

	if (o->json) {
		printf("{\"line_ns\": %.1f, \"nop_ns\": %.1f, \"ratio_to_line\": %.3f, "
		       "\"nop_p99_ns\": %.1f, \"depth\": %u, \"batch_ns\": %.2f}\n",
		       f->line_ns, f->nop_ns, ratio, f->nop_p99_ns, o->depth, f->batch_ns);
		return;
	}
	printf("cache line, there and back   %8.1f ns\n", f->line_ns);
	printf("NOP through the daemon       %8.1f ns   %.2f times the line   p99 %.1f ns\n",
	       f->nop_ns, ratio, f->nop_p99_ns);
	printf("NOP, %3u in flight           %8.2f ns each\n", o->depth, f->batch_ns);
}

/* Away from the daemon's poller, which is pinned to the first usable CPU: two threads that take
 * turns on one CPU measure the scheduler. */
static void pin_to_last_cpu(void)
{
	static struct topo topo;
	unsigned node;

	if (topo_read("/", &topo) < 0 || topo.n_cpus < 2 ||
	    pin_to_cpu(topo_cpu(&topo, topo.n_cpus - 1, &node)) < 0)
		fprintf(stderr, "sparq-bench: ring: one CPU: the figures show its scheduler\n");
}

static int run(const struct ring_options *o)
{
	CLEANUP(bench_daemon_stop) struct bench_daemon daemon = BENCH_DAEMON_NULL;
	const char *socket = o->socket;
	struct sparq_open_params params = { .size = sizeof(params) };
	struct ring_figures figures;
	sparq_queue *queue = NULL;
	sparq *connection = NULL;
	int r;

	if (!socket) {
		r = bench_daemon_start(&daemon, o->daemon, "64MiB", "1", NULL);
		if (r < 0)
			return bench_fail(r, "cannot start a daemon");
		socket = daemon.socket;
	}
	params.sq_entries = o->entries;
	r = sparq_open(socket, &params, &connection);
	if (r < 0)
		return bench_fail(r, "cannot connect to %s", socket);
	r = sparq_queue_create(connection, NULL, &queue);
	pin_to_last_cpu();
	if (r == 0)
		r = measure(queue, o, &figures);
	if (r == 0)
		print_figures(&figures, o);
	sparq_queue_close(queue);
	sparq_close(connection);
	return r < 0 ? bench_fail(r, "a round trip failed") : 0;
}

#define AT(field) offsetof(struct ring_options, field)
static const struct bench_option table[] = {
	{ "depth", BENCH_NUMBER, AT(depth), 1, 256, "N", "NOPs in flight at once, 64" },
	{ "entries", BENCH_NUMBER, AT(entries), 1, 32768, "N", "of the ring; the library's 64" },
	{ "samples", BENCH_NUMBER, AT(samples), 1, 1u << 20, "N", "of 100 round trips each, 500" },
	{ "repeats", BENCH_NUMBER, AT(repeats), 1, 1u << 20, "N", "the best of so many, 5" },
	{ "daemon", BENCH_TEXT, AT(daemon), 0, 0, "PROGRAM", "another sparqd than this build's" },
	{ "socket", BENCH_TEXT, AT(socket), 0, 0, "PATH", "a daemon that runs" },
	{ "json", BENCH_SWITCH, AT(json), 0, 0, NULL, "for programs" },
};

int bench_ring(int argc, char **argv)
{
	struct ring_options o = { .depth = 64, .samples = 500, .repeats = 5 };
	int r = bench_options(table, ARRAY_SIZE(table), "A NOP through ring and daemon.", &o, argc,
			      argv);

	return r == 1 ? 0 : r ? r : run(&o);
}
