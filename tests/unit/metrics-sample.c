/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics-sample plain|open [SEQUENCES]: the text of a page that has worked, for other programs to
 * read; with SEQUENCES their series as well.
 * metrics-sample list: name and labels of each metric.
 * metrics-sample time SEQUENCES: how long it takes to make it, without and with the series of
 * sequences; the least and the median of 100.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/metrics-private.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "tests/unit/metrics-page.h"

#define TIMES 100

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int show_time(const struct stats *s, bool sequences)
{
	const struct metrics_options o = { METRICS_OPENMETRICS, sequences };
	CLEANUP(metrics_text_deinit) struct metrics_text text = METRICS_TEXT_NULL;
	uint64_t ns[TIMES];

	for (unsigned i = 0; i < TIMES; i++) {
		uint64_t from = clock_now_ns();

		if (metrics_render(s, &o, &text) < 0)
			return 1;
		ns[i] = clock_now_ns() - from;
	}
	qsort(ns, TIMES, sizeof(ns[0]), by_size);
	printf("%s series of sequences: least %.3f ms, median %.3f ms, %zu bytes\n",
	       sequences ? "with" : "without", (double)ns[0] / 1e6, (double)ns[TIMES / 2] / 1e6,
	       text.n);
	return 0;
}

static int list(void)
{
	const struct metric *m;

	for (unsigned i = 0; (m = metrics_at(i)); i++)
		printf("%s%s%s\n", m->name, m->labels[0] ? " " : "", m->labels);
	return 0;
}

int main(int argc, char **argv)
{
	CLEANUP(metrics_text_deinit) struct metrics_text text = METRICS_TEXT_NULL;
	CLEANUP(page_deinit) struct stats page = { .n_sequences = 0 };
	struct metrics_options o = { METRICS_PLAIN, argc > 2 };

	if (argc < 2)
		return 64;
	if (!strcmp(argv[1], "list"))
		return list();
	page_busy(&page, argc > 2 ? (uint32_t)atoi(argv[2]) : 3);
	if (argc > 2 && !strcmp(argv[1], "time"))
		return show_time(&page, false) | show_time(&page, true);
	if (!strcmp(argv[1], "open"))
		o.format = METRICS_OPENMETRICS;
	if (metrics_render(&page, &o, &text) < 0)
		return 1;
	fwrite(text.data, 1, text.n, stdout);
	return 0;
}
