/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The figures of the stats page as text for a monitoring system: OpenMetrics 1.0, or the older
 * plain format that everything reads. What there is to know of a metric stands in metrics.def.
 *
 * Not part of libsparq: sparqctl and sparqd-exporter are made with it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stats;

enum metrics_format {
	METRICS_PLAIN,       /* text/plain; version=0.0.4 */
	METRICS_OPENMETRICS, /* application/openmetrics-text; version=1.0.0 */
};

enum metric_type { METRIC_GAUGE, METRIC_COUNTER, METRIC_HISTOGRAM, METRIC_INFO };

struct metrics_options {
	enum metrics_format format;
	bool sequences; /* four series for each: a daemon may have a great many */
};

struct metrics_text { /* grows; kept from one rendering to the next */
	char *data;
	size_t n, allocated;
	bool failed; /* no memory */
};
#define METRICS_TEXT_NULL                                                                          \
	{                                                                                          \
		.data = NULL                                                                       \
	}
void metrics_text_deinit(struct metrics_text *t);

/* Replaces what is in `ret`; with `s` NULL all that is known is that the daemon is not there.
 * -ENOMEM; -EAGAIN: the page was written whenever it was read. `ret` holds nothing then. */
int metrics_render(const struct stats *s, const struct metrics_options *o,
		   struct metrics_text *ret);

/* The same in parts, so that a daemon with a million sequences needs no more memory than one with a
 * few. `s` stays as long as the stream; a sequence that comes or goes between two parts is in some
 * families and not in others. */
struct metrics_stream;
int metrics_stream_open(const struct stats *s, const struct metrics_options *o,
			struct metrics_stream **ret);
struct metrics_stream *metrics_stream_close(struct metrics_stream *m); /* NULL */
/* Adds the next part to `text`: 1; 0: there is none; -errno as metrics_render. */
int metrics_stream_next(struct metrics_stream *m, struct metrics_text *text);

/* The table, for tests. NULL: there is no i-th. */
struct metric;
const struct metric *metrics_at(unsigned i);
