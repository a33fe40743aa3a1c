/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparqctl top: what two looks at the stats page tell, and how it is shown. A look reads
 * the counters; what happened since the look before is a rate. The text is the same on a
 * screen, where it is cut to fit, and on a line printer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/stats.h"

#define TOP_TEXT 256

struct top_counts {
	uint64_t id; /* of whom; another one began at 0 */
	uint64_t steps, bytes, dense;
};

struct top_rates { /* in a second */
	double steps, bytes, dense;
};

struct top_node {
	int32_t node;
	uint64_t pool_bytes, pool_used_bytes, roofline_bytes_s, calibrated_s;
	struct top_counts counts; /* bytes only */
	struct top_rates rates;
	const struct stats_source *source; /* whose rate dram_rate is; NULL: there is none */
	struct stats_source sources[STATS_SOURCES];
	char dram_by[16]; /* the source that counted at the last look, and what it said */
	uint64_t dram_bytes;
	double dram_rate;
};

struct top_user {
	uint32_t uid;
	uint64_t sequences, sessions, charged_bytes;
	char name[32];
	struct top_rates rates;
};

struct top_sequence {
	uint64_t id, cache, bytes;
	uint32_t uid, flags, rows;
	char name[64];
	struct top_rates rates;
};

struct top_device {
	struct stats_device page;   /* as it said at the last look; used is STATS_FREE: none */
	double steps, read, copied; /* in a second; bytes of its memory, and brought to it */
	double busy;                /* part of the time in which its kernels ran */
};

struct top_before { /* by index of the page */
	struct top_counts *counts;
	uint32_t n;
};

struct top {
	struct stats *stats;
	bool whole;     /* there were two looks at this daemon */
	double seconds; /* between them */
	int64_t looked_ns;
	struct stats_control control;
	struct top_rates rates;
	struct top_counts sum; /* of all workers */
	struct top_node node[STATS_NODES];
	struct top_device device[STATS_DEVICES];
	uint32_t n_nodes, n_users, n_sequences;
	struct top_user *user;
	struct top_sequence *sequence;
	struct top_before users, sequences;
};
#define TOP_NULL ((struct top){ .stats = NULL })

int top_open(struct top *t, const char *socket, char *why); /* -errno; `why`: SPARQ_ERROR_TEXT */
void top_deinit(struct top *t);
/* -errno with `why`: all stays as it was. */
int top_look(struct top *t, char *why);

/* ---- order and text ------------------------------------------------------------------ */

enum top_order { TOP_BYTES, TOP_STEPS, TOP_SAVED, TOP_MEMORY, TOP_NAME, TOP_ORDERS };
extern const char *const top_order_name[TOP_ORDERS];

/* Users and sequences; ties by name, so that idle ones stay where they are. */
void top_sort(struct top *t, enum top_order order);

enum top_style { TOP_PLAIN, TOP_TITLE, TOP_HEADING, TOP_BAR };

/* Line after line, each at most `width` columns; `lines` of them at most, of which the users get a
 * third where there are more. */
typedef void top_put_fn(void *arg, enum top_style style, const char *text);
void top_text(const struct top *t, unsigned width, unsigned lines, top_put_fn *put, void *arg);

/* ---- the screen ---------------------------------------------------------------------- */

/* Until the user ends it: an exit status. Without curses: says so. */
int top_screen(struct top *t, double interval, enum top_order order);
