/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl top: on a screen, or one sample of it as text or JSON.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/ctl.h"
#include "client/top-private.h"
#include "shm/base.h"
#include "shm/clock.h"

#define INTERVAL_S 2.0
#define INTERVAL_LEAST_S 0.1

static int complain(int error, const char *why)
{
	fprintf(stderr, "sparqctl: top: %s\n", *why ? why : strerror(-error));
	return CTL_FAILED;
}

/* ---- JSON ------------------------------------------------------------------------- */

static void add_number(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_rates(json_object *o, const struct top_rates *r)
{
	json_object_object_add(o, "steps_per_s", json_object_new_double(r->steps));
	json_object_object_add(o, "read_bytes_per_s", json_object_new_double(r->bytes));
	json_object_object_add(o, "dense_equivalent_bytes_per_s", json_object_new_double(r->dense));
}

/* Why nobody counts a node's DRAM traffic: each source with its reason. */
static json_object *reasons(const struct top_node *n)
{
	json_object *o = json_object_new_object();

	for (unsigned i = 0; i < STATS_SOURCES && n->sources[i].name[0]; i++)
		if (n->sources[i].why[0])
			add_text(o, n->sources[i].name, n->sources[i].why);
	return o;
}

static json_object *node(const struct top_node *n)
{
	json_object *o = json_object_new_object();

	add_number(o, "node", (uint64_t)MAX(n->node, 0));
	json_object_object_add(o, "read_bytes_per_s", json_object_new_double(n->rates.bytes));
	add_number(o, "pool_bytes", n->pool_bytes);
	add_number(o, "pool_used_bytes", n->pool_used_bytes);
	if (n->roofline_bytes_s) {
		add_number(o, "roofline_bytes_per_s", n->roofline_bytes_s);
		add_number(o, "calibrated_s", n->calibrated_s);
	}
	if (n->source) {
		add_text(o, "dram_source", n->source->name);
		json_object_object_add(o, "dram_read_bytes_per_s",
				       json_object_new_double(n->dram_rate));
	} else {
		json_object_object_add(o, "dram_absent", reasons(n));
	}
	return o;
}

static json_object *user(const struct top_user *u)
{
	json_object *o = json_object_new_object();

	add_number(o, "uid", u->uid);
	add_number(o, "sessions", u->sessions);
	add_number(o, "sequences", u->sequences);
	add_number(o, "charged_bytes", u->charged_bytes);
	add_rates(o, &u->rates);
	return o;
}

static json_object *sequence(const struct top_sequence *s)
{
	json_object *o = json_object_new_object();
	char id[24];

	snprintf(id, sizeof(id), "%#llx", (unsigned long long)s->id);
	add_text(o, "id", id);
	add_text(o, "name", s->name);
	add_number(o, "uid", s->uid);
	add_number(o, "rows", s->rows);
	add_number(o, "bytes", s->bytes);
	add_rates(o, &s->rates);
	return o;
}

static void print_json(const struct top *t)
{
	CLEANUP(ctl_putp) json_object *o = json_object_new_object();
	json_object *nodes = json_object_new_array(), *users = json_object_new_array(),
		    *sequences = json_object_new_array();

	json_object_object_add(o, "seconds", json_object_new_double(t->seconds));
	add_number(o, "generation", stats_header(t->stats)->generation);
	add_number(o, "sessions", t->control.sessions);
	add_rates(o, &t->rates);
	for (uint32_t i = 0; i < t->n_nodes; i++)
		json_object_array_add(nodes, node(&t->node[i]));
	for (uint32_t i = 0; i < t->n_users; i++)
		json_object_array_add(users, user(&t->user[i]));
	for (uint32_t i = 0; i < t->n_sequences; i++)
		json_object_array_add(sequences, sequence(&t->sequence[i]));
	json_object_object_add(o, "nodes", nodes);
	json_object_object_add(o, "devices", top_devices_json(t));
	json_object_object_add(o, "users", users);
	json_object_object_add(o, "sequences", sequences);
	ctl_print_json(o);
}

/* ---- one sample ------------------------------------------------------------------- */

static void print_line(void *arg, enum top_style style, const char *text)
{
	puts(text);
}

/* Two looks at one daemon: if another one came between them, two more. */
static int sample(struct top *t, double interval, char *why)
{
	const struct timespec pause = {
		.tv_sec = (time_t)interval,
		.tv_nsec = (long)((interval - (double)(time_t)interval) * 1e9),
	};
	int r = top_look(t, why);

	while (r == 0 && !t->whole) {
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		r = top_look(t, why);
	}
	return r;
}

static int once(const struct ctl_options *o, struct top *t, double interval, enum top_order order)
{
	char why[SPARQ_ERROR_TEXT] = "";
	int r = sample(t, interval, why);

	if (r < 0)
		return complain(r, why);
	top_sort(t, order);
	if (ctl_flag(o, OPT_JSON))
		print_json(t);
	else
		top_text(t, TOP_TEXT - 1, UINT32_MAX, print_line, NULL);
	return CTL_OK;
}

static int find_order(const char *name, enum top_order *ret)
{
	for (unsigned i = 0; i < TOP_ORDERS; i++) {
		if (!strcmp(name, top_order_name[i])) {
			*ret = i;
			return CTL_OK;
		}
	}
	fprintf(stderr, "sparqctl: --sort %s: one of these is expected:", name);
	for (unsigned i = 0; i < TOP_ORDERS; i++)
		fprintf(stderr, " %s", top_order_name[i]);
	fputc('\n', stderr);
	return CTL_USAGE;
}

int ctl_top(const struct ctl_options *o)
{
	CLEANUP(top_deinit) struct top t = TOP_NULL;
	double interval = ctl_seconds(o, OPT_INTERVAL, INTERVAL_S);
	const char *sort = ctl_text(o, OPT_SORT);
	enum top_order order = TOP_BYTES;
	char why[SPARQ_ERROR_TEXT] = "";
	int r;

	if (sort && find_order(sort, &order) != CTL_OK)
		return CTL_USAGE;
	if (interval < INTERVAL_LEAST_S || interval > 86400) {
		fputs("sparqctl: --interval: 0.1 to 86400 seconds are expected\n", stderr);
		return CTL_USAGE;
	}
	if (ctl_flag(o, OPT_JSON) && !ctl_flag(o, OPT_ONCE)) {
		fputs("sparqctl: top: --json is for --once\n", stderr);
		return CTL_USAGE;
	}
	r = top_open(&t, ctl_text(o, OPT_SOCKET), why);
	if (r < 0)
		return complain(r, why);
	return ctl_flag(o, OPT_ONCE) ? once(o, &t, interval, order)
				     : top_screen(&t, interval, order);
}
