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
#include "client/stats.h"
#include "shm/base.h"

#define AT(type, word) .at = offsetof(struct type, word), .bytes = sizeof(((struct type *)0)->word)
#define NOTHING .at = 0
#define CONTROL(word) AT(stats_control, word)
#define WORKER(word) AT(stats_worker, word)
#define NODE(word) AT(stats_node, word)
#define USER(word) AT(stats_user, word)
#define DEVICE(word) AT(stats_device, word)
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

static void family_head(struct render *r, enum metrics_format format)
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
}

/* ---- in parts ----------------------------------------------------------------------------- */

#define SHOWN_AT_ONCE 256u /* of sequences: what stays in a cache until it is sent */

struct metrics_stream {
	const struct stats *stats; /* NULL: the daemon is not there */
	struct metrics_options options;
	struct figures figures;
	unsigned metric; /* the next one */
	uint32_t slot;   /* of a metric of sequences: the next one's */
	bool ended;
};

int metrics_stream_open(const struct stats *s, const struct metrics_options *o,
			struct metrics_stream **ret)
{
	FREE_MEMORY struct metrics_stream *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->stats = s;
	m->options = *o;
	r = s ? figures_read(s, &m->figures) : 0;
	if (r < 0)
		return r;
	*ret = STEAL_PTR(m);
	return 0;
}

struct metrics_stream *metrics_stream_close(struct metrics_stream *m)
{
	if (!m)
		return NULL;
	figures_deinit(&m->figures);
	free(m);
	return NULL;
}

/* The block of slots that the stream is at, and all of its sequences shown of this family? */
static bool is_shown(const struct metrics_stream *m)
{
	return m->figures.slot == m->slot && m->figures.shown_to == m->figures.n_sequences;
}

/* A part of a family of sequences; the family is over with the last slot. */
static int show_sequences(struct metrics_stream *m, struct render *r)
{
	uint32_t n = stats_count(m->stats, STATS_SEQUENCE);
	struct figures *f = &m->figures;
	int error = 0;

	if (m->slot == 0 && f->shown_to == 0)
		family_head(r, m->options.format);
	if (m->slot < n && f->slot != m->slot)
		error = figures_read_sequences(m->stats, m->slot, f);
	if (error < 0)
		return error;
	if (m->slot < n) {
		f->shown_from = f->shown_to;
		f->shown_to = MIN(f->shown_from + SHOWN_AT_ONCE, f->n_sequences);
		r->metric->show(r);
	}
	if (m->slot < n && !is_shown(m))
		return 0;
	f->shown_to = 0;
	m->slot = n - m->slot > SEQUENCES_AT_ONCE ? m->slot + SEQUENCES_AT_ONCE : 0;
	m->metric += m->slot == 0;
	return 0;
}

/* One family, or a part of one. */
static int show_next(struct metrics_stream *m, struct metrics_text *text)
{
	struct render r = {
		.text = text,
		.metric = &metrics[m->metric],
		.figures = m->stats ? &m->figures : NULL,
	};

	if (r.metric->is_sequence && m->options.sequences)
		return show_sequences(m, &r);
	if (!r.metric->is_sequence) {
		family_head(&r, m->options.format);
		r.metric->show(&r);
	}
	m->metric++;
	return 0;
}

int metrics_stream_next(struct metrics_stream *m, struct metrics_text *text)
{
	/* Of a daemon that is not there nothing else than that is known. */
	unsigned end = m->stats ? ARRAY_SIZE(metrics) : 1;
	size_t before = text->n;
	int r;

	while (!m->ended && text->n == before) {
		if (m->metric < end) {
			r = show_next(m, text);
			if (r < 0)
				return r;
			continue;
		}
		m->ended = true;
		if (m->options.format == METRICS_OPENMETRICS)
			text_string(text, "# EOF\n");
	}
	return text->failed ? -ENOMEM : text->n > before;
}

int metrics_render(const struct stats *s, const struct metrics_options *o, struct metrics_text *ret)
{
	struct metrics_stream *m;
	int r;

	ret->n = 0;
	ret->failed = false;
	r = metrics_stream_open(s, o, &m);
	if (r < 0)
		return r;
	while ((r = metrics_stream_next(m, ret)) > 0)
		;
	metrics_stream_close(m);
	if (r < 0)
		ret->n = 0;
	return r;
}
