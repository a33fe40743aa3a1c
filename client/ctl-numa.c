/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl numa: where the daemon's memory and threads are, as tables of nodes; after it has looked
 * for every page, if that is asked for.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl-print.h"
#include "client/ctl.h"
#include "shm/base.h"

#define LOOK_NS 20000000

static json_object *get(json_object *o, const char *key)
{
	return json_object_object_get(o, key);
}

static int64_t number(json_object *o, const char *key)
{
	return json_object_get_int64(get(o, key));
}

static json_object *ask(const struct ctl_options *o, const char *flag)
{
	json_object *in = NULL;

	if (flag) {
		in = json_object_new_object();
		json_object_object_add(in, flag, json_object_new_boolean(true));
	}
	return ctl_call(o, "GetNuma", in);
}

/* After a round that began when it was asked for: the figures, NULL after a complaint. */
static json_object *ask_verified(const struct ctl_options *o, const char *flag)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };
	json_object *now = ask(o, flag);

	while (now && json_object_get_boolean(get(now, "verifying"))) {
		json_object_put(now);
		nanosleep(&pause, NULL);
		now = ask(o, NULL);
	}
	return now;
}

/* "-": the daemon does not know. */
static const char *text_of(json_object *node, const char *key, char *buffer, size_t n)
{
	json_object *value = get(node, key);

	if (!value)
		return "-";
	ctl_format(key, value, buffer, n);
	return buffer;
}

struct column {
	const char *title, *key;
	int width; /* below 0: to the left */
};

static void print_columns(json_object *nodes, const struct column *column)
{
	for (const struct column *c = column; c->title; c++)
		printf("%s%*s", c == column ? "" : "  ", c->width, c->title);
	puts("");
	for (size_t i = 0; i < json_object_array_length(nodes); i++) {
		json_object *node = json_object_array_get_idx(nodes, i);
		char text[256];

		for (const struct column *c = column; c->title; c++)
			printf("%s%*s", c == column ? "" : "  ", c->width,
			       text_of(node, c->key, text, sizeof(text)));
		puts("");
	}
}

static void print_distances(json_object *nodes)
{
	size_t n = json_object_array_length(nodes);

	if (n < 2)
		return;
	printf("\ndistance");
	for (size_t i = 0; i < n; i++)
		printf(" %4lld", (long long)number(json_object_array_get_idx(nodes, i), "node"));
	puts("");
	for (size_t i = 0; i < n; i++) {
		json_object *node = json_object_array_get_idx(nodes, i);
		json_object *row = get(node, "distances");

		printf("%8lld", (long long)number(node, "node"));
		for (size_t j = 0; j < json_object_array_length(row); j++)
			printf(" %4d", json_object_get_int(json_object_array_get_idx(row, j)));
		puts("");
	}
}

static int64_t misplaced(json_object *nodes)
{
	int64_t sum = 0;

	for (size_t i = 0; i < json_object_array_length(nodes); i++)
		sum += number(json_object_array_get_idx(nodes, i), "misplaced_pages");
	return sum;
}

/* Nothing where nothing was moved and nothing needs to be. */
static void print_moved(json_object *numa)
{
	int64_t moved = number(numa, "moved_pages"), away = number(numa, "away_pages");
	char bytes[32];

	if (away)
		printf("%lld pages of sequences are not where their placement says\n",
		       (long long)away);
	if (moved)
		printf("%lld pages of sequences (%s) were moved from node to node\n",
		       (long long)moved, text_of(numa, "moved_bytes", bytes, sizeof(bytes)));
}

/* A tier of its own: memory of no CPU. */
static void print_memory_only(json_object *nodes)
{
	for (size_t i = 0; i < json_object_array_length(nodes); i++) {
		json_object *node = json_object_array_get_idx(nodes, i);
		bool in_pool = json_object_get_boolean(get(node, "in_pool"));
		char bytes[32];

		printf("node %lld has memory and no CPUs, ", (long long)number(node, "node"));
		if (in_pool)
			printf("those of node %lld (distance %lld) work for it\n",
			       (long long)number(node, "nearest"),
			       (long long)number(node, "distance"));
		else
			printf("nearest to node %lld (distance %lld): the pool has no part of its "
			       "%s, numa_nodes in sparqd.conf gives it one\n",
			       (long long)number(node, "nearest"),
			       (long long)number(node, "distance"),
			       text_of(node, "memory_bytes", bytes, sizeof(bytes)));
	}
}

static void print(json_object *numa)
{
	static const struct column machine[] = {
		{ "node", "node", 4 },
		{ "cpus", "cpus", -16 },
		{ "workers", "workers", 7 },
		{ "memory", "memory_bytes", 9 },
		{ "free", "memory_free_bytes", 9 },
		{ "free 2M", "free_pages_2M", 7 },
		{ "free 1G", "free_pages_1G", 7 },
		{},
	};
	static const struct column pool[] = {
		{ "node", "node", 4 },
		{ "pool", "pool_bytes", 9 },
		{ "used", "pool_used_bytes", 9 },
		{ "in", "pages", -13 },
		{ "misplaced", "misplaced_pages", 9 },
		{ "shares near", "shares_near", 11 },
		{ "far", "shares_far", 9 },
		{},
	};
	json_object *nodes = get(numa, "nodes"), *reason = get(numa, "reason");

	print_columns(nodes, machine);
	puts("");
	print_columns(nodes, pool);
	print_distances(nodes);
	print_memory_only(get(numa, "memory_only"));
	printf("\npages verified %lld s ago", (long long)number(numa, "verified_seconds_ago"));
	if (misplaced(nodes))
		printf("; %lld are not on their node, sparqctl numa --repair brings them back",
		       (long long)misplaced(nodes));
	puts("");
	print_moved(numa);
	if (reason)
		printf("near and far are not told apart: %s\n", json_object_get_string(reason));
}

int ctl_numa(const struct ctl_options *o)
{
	const char *flag = ctl_flag(o, OPT_REPAIR)   ? "repair"
			   : ctl_flag(o, OPT_VERIFY) ? "verify"
						     : NULL;
	CLEANUP(ctl_putp) json_object *numa = ask_verified(o, flag);

	if (!numa)
		return CTL_FAILED;
	if (ctl_flag(o, OPT_JSON))
		ctl_print_json(numa);
	else
		print(numa);
	return misplaced(get(numa, "nodes")) ? CTL_FAILED : CTL_OK;
}
