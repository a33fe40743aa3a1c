/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of metrics, and the text that is made of it: each family with its type, unit and help,
 * also where it has no sample yet.
 *
 * The two formats differ in the families: OpenMetrics calls one by the name of its samples without
 * _total or _info, the plain format by the whole name.
 */
#include "client/metrics.h"

#include <errno.h>
#include <stdio.h>

#include "client/metrics-private.h"
#include "shm/base.h"

#define AT(type, word) .at = offsetof(struct type, word), .bytes = sizeof(((struct type *)0)->word)
#define NOTHING .at = 0
#define CONTROL(word) AT(stats_control, word)
#define WORKER(word) AT(stats_worker, word)
#define NODE(word) AT(stats_node, word)
#define USER(word) AT(stats_user, word)
#define SUM(word) AT(stats_sum, word)
#define SEQUENCE(which) .is_sequence = true, .at = SEQUENCE_##which

#define METRIC(name_, type_, unit_, labels_, show_, from_, help_)                                  \
	{ .name = #name_,                                                                          \
	  .type = METRIC_##type_,                                                                  \
	  .unit = unit_,                                                                           \
	  .labels = labels_,                                                                       \
	  .show = metrics_show_##show_,                                                            \
	  .help = help_,                                                                           \
	  from_ },
static const struct metric metrics[] = {
#include "client/metrics.def"
};
#undef METRIC

const struct metric *metrics_at(unsigned i)
{
	return i < ARRAY_SIZE(metrics) ? &metrics[i] : NULL;
}

/* What a type is called, and what its samples end in. */
static const struct {
	const char *plain, *open, *end;
} types[] = {
	[METRIC_GAUGE] = { "gauge", "gauge", "" },
	[METRIC_COUNTER] = { "counter", "counter", "_total" },
	[METRIC_HISTOGRAM] = { "histogram", "histogram", "" },
	[METRIC_INFO] = { "gauge", "info", "_info" },
};

static void family_line(struct metrics_text *t, const char *what, const struct metric *m, size_t n,
			const char *said)
{
	text_string(t, what);
	text_put(t, m->name, n);
	text_put(t, " ", 1);
	text_string(t, said);
	text_put(t, "\n", 1);
}

static void show_family(struct render *r, enum metrics_format format)
{
	const struct metric *m = r->metric;
	bool open = format == METRICS_OPENMETRICS;
	size_t n = strlen(m->name);

	if (open)
		n -= strlen(types[m->type].end);
	family_line(r->text, "# HELP ", m, n, m->help);
	family_line(r->text, "# TYPE ", m, n, open ? types[m->type].open : types[m->type].plain);
	if (open && m->unit[0])
		family_line(r->text, "# UNIT ", m, n, m->unit);
	m->show(r);
}

int metrics_render(const struct stats *s, const struct metrics_options *o, struct metrics_text *ret)
{
	CLEANUP(figures_deinit) struct figures figures = FIGURES_NULL;
	struct render r = { .text = ret, .figures = s ? &figures : NULL };
	int error = s ? figures_read(s, o->sequences, &figures) : 0;

	ret->n = 0;
	ret->failed = false;
	if (error < 0)
		return error;
	for (unsigned i = 0; i < ARRAY_SIZE(metrics); i++) {
		r.metric = &metrics[i];
		/* Of a daemon that is not there nothing else is known. */
		if (!s && i > 0)
			break;
		if (!r.metric->is_sequence || o->sequences)
			show_family(&r, o->format);
	}
	if (o->format == METRICS_OPENMETRICS)
		text_string(ret, "# EOF\n");
	if (!ret->failed)
		return 0;
	ret->n = 0;
	return -ENOMEM;
}
