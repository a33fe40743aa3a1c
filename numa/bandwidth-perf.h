/* SPDX-License-Identifier: Apache-2.0 */
/* Events of uncore PMUs, as sysfs describes them: what the sources that use perf share. */
#pragma once

#include <stdbool.h>

#include "numa/bandwidth.h"

enum perf_way { PERF_READ, PERF_WRITE, PERF_TOTAL, PERF_WAYS };

/* An event of a PMU and what it counts. `name`: a file of its folder "events"; if it has none,
 * `terms` are used ("event=0x0a,rdwrmask=0x1"), or NULL: then it is not there. Without a file
 * NAME.scale one count is `bytes`. */
struct perf_event {
	enum perf_way way;
	const char *name, *terms;
	unsigned bytes;
};

struct perf_pmus {
	const char *prefix, *without; /* of their names; NULL, or what must not be in them */
	const struct perf_event *event;
	unsigned n_events;
};

/* How many PMUs there are; -errno. */
int perf_count_pmus(const struct bandwidth_machine *m, const struct perf_pmus *p);
/* Opens each event of each PMU on the CPUs of a node that its cpumask names. -ENODEV: none is of
 * this node, -EACCES: perf_event_paranoid, or CAP_PERFMON is missing. */
int perf_open_node(const struct bandwidth_machine *m, const struct perf_pmus *p, unsigned node,
		   struct bandwidth **ret, char *why);
int perf_read_node(const struct bandwidth_machine *m, struct bandwidth *b,
		   struct bandwidth_count *ret, char *why);
void perf_close_node(struct bandwidth *b);

/* "event=0x04,umask=0x03" into the words of an attribute, by the PMU's folder "format". -EINVAL. */
int perf_parse_terms(int pmu, const char *terms, uint64_t ret_config[3]);
