/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl calibrate: has the daemon measure how fast the memory of each node can be read, waits,
 * and prints what came of it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl.h"
#include "shm/base.h"

#define LOOK_NS 50000000

static int64_t number(json_object *o, const char *key)
{
	return json_object_get_int64(json_object_object_get(o, key));
}

/* On a terminal, over itself. */
static void print_progress(json_object *c, bool last)
{
	int64_t done = number(c, "done");
	size_t of = json_object_array_length(json_object_object_get(c, "nodes"));

	if (!isatty(STDERR_FILENO))
		return;
	if (last)
		fputs("\r\033[K", stderr);
	else
		fprintf(stderr, "\rmeasuring node %lld of %zu", (long long)done + 1, of);
	fflush(stderr);
}

/* Until all nodes are measured: the figures, NULL after a complaint. */
static json_object *await(const struct ctl_options *o)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };

	for (;;) {
		json_object *c = ctl_call(o, "GetCalibration", NULL);
		bool runs;

		if (!c)
			return NULL;
		runs = json_object_get_boolean(json_object_object_get(c, "running"));
		print_progress(c, !runs);
		if (!runs)
			return c;
		json_object_put(c);
		nanosleep(&pause, NULL);
	}
}

static void format_time(int64_t seconds, char *ret, size_t n)
{
	time_t t = seconds;
	struct tm local;

	if (!localtime_r(&t, &local) || !strftime(ret, n, "%F %T", &local))
		snprintf(ret, n, "-");
}

/* False: it has no figure. */
static bool print_node(json_object *node)
{
	json_object *reason = json_object_object_get(node, "reason");
	char taken[32];

	printf("  node %-3lld ", (long long)number(node, "node"));
	if (!json_object_object_get(node, "read_bytes_per_second")) {
		printf("not measured: %s\n", reason ? json_object_get_string(reason) : "-");
		return false;
	}
	format_time(number(node, "measured_at"), taken, sizeof(taken));
	printf("%8.1f GB/s read by %lld threads, %s\n",
	       (double)number(node, "read_bytes_per_second") / 1e9,
	       (long long)number(node, "threads"), taken);
	return true;
}

int ctl_calibrate(const struct ctl_options *o)
{
	CLEANUP(ctl_putp) json_object *begun = ctl_call(o, "Calibrate", NULL), *c = NULL;
	json_object *nodes;
	bool all = true;

	if (!begun)
		return CTL_FAILED;
	c = await(o);
	if (!c)
		return CTL_FAILED;
	nodes = json_object_object_get(c, "nodes");
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(c);
	for (size_t i = 0; i < json_object_array_length(nodes); i++) {
		json_object *node = json_object_array_get_idx(nodes, i);

		if (ctl_flag(o, OPT_JSON))
			all &= !!json_object_object_get(node, "read_bytes_per_second");
		else
			all &= print_node(node);
	}
	return all ? CTL_OK : CTL_FAILED;
}
