/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of metrics.h: the page is copied once (metrics-read.c), each metric of the
 * table is shown from the copy (metrics-show.c), in a text that grows (metrics-text.c).
 */
#pragma once

#include <string.h>

#include "client/metrics.h"
#include "shm/stats-page.h"

/* ---- metrics-read.c: what the page said, at one time ----------------------------------- */

enum sequence_value {
	SEQUENCE_ROWS,
	SEQUENCE_BYTES,
	SEQUENCE_STEPS,
	SEQUENCE_READ,
	SEQUENCE_VALUES
};
struct sequence_figures {
	size_t labels_at, labels_bytes; /* in figures.labels */
	uint64_t value[SEQUENCE_VALUES];
};

struct figures {
	const struct stats_header *header; /* does not change */
	struct stats_control control;
	struct stats_worker worker; /* summed over all */
	struct stats_node *node;
	struct stats_user *user;     /* those that are in use */
	struct stats_device *device; /* those that a cache has asked for */
	struct sequence_figures *sequence;
	struct metrics_text labels;
	uint32_t n_nodes, n_users, n_devices, n_sequences;
	uint32_t shown_from, shown_to; /* those whose turn it is */
	/* Of the sequences: SEQUENCES_AT_ONCE slots from `slot` on; UINT32_MAX: none are. */
	uint32_t slot;
	uint64_t labelled_cache; /* whose name is at hand: 0: no cache's */
	char cache_name[SPARQ_NAME_MAX + 1];
	bool shares_far_known;
};
#define FIGURES_NULL                                                                               \
	{                                                                                          \
		.header = NULL                                                                     \
	}

/* All but the sequences. -ENOMEM, -EAGAIN as metrics_render. */
int figures_read(const struct stats *s, struct figures *ret);
/* Of so many slots the figures are held at once, whatever the daemon has: a few MiB. */
#define SEQUENCES_AT_ONCE 16384u
/* Those of the slots from `slot` on, in the place of others. */
int figures_read_sequences(const struct stats *s, uint32_t slot, struct figures *f);
void figures_deinit(struct figures *f);
uint64_t figures_sum(const struct stats_read *r); /* over the planes */

/* ---- the table ---------------------------------------------------------------------------- */

struct render {
	struct metrics_text *text;
	const struct metric *metric;   /* whose turn it is */
	const struct figures *figures; /* NULL: the daemon is not there */
};

struct metric {
	const char *name, *unit, *labels, *help;
	enum metric_type type;
	bool is_sequence; /* shown only if asked for */
	void (*show)(struct render *r);
	size_t at, bytes; /* of a word in its block */
};

/* Those of metrics.def, each the `show` of a row. */
#define METRIC(name, type, unit, labels, show, from, help)                                         \
	void metrics_show_##show(struct render *r);
#include "client/metrics.def"
#undef METRIC

/* Words of the label plane, by SPARQ_PLANE_*. */
extern const char *const metrics_plane_names[];

/* ---- metrics-text.c ----------------------------------------------------------------------- */

void text_put(struct metrics_text *t, const char *bytes, size_t n);
static inline void text_string(struct metrics_text *t, const char *s)
{
	text_put(t, s, strlen(s));
}
void text_number(struct metrics_text *t, uint64_t value);
/* A sample whose labels are a text already, with the braces. */
void text_sample(struct metrics_text *t, const char *name, size_t name_bytes, const char *labels,
		 size_t labels_bytes, uint64_t value);
/* Of 10^-9, exactly: 1500000 is "0.0015". */
void text_nano(struct metrics_text *t, uint64_t value);
/* `text`, of at most n bytes, as the value of a label, with its quotes. */
void text_quoted(struct metrics_text *t, const char *text, size_t n);

/* One sample: the name of the metric and `suffix`, labels as "name", "value", ... NULL; then a
 * value. */
struct label {
	const char *name, *value;
};
void sample_begin(struct render *r, const char *suffix, const struct label *labels, unsigned n);
void sample_number(struct render *r, uint64_t value);
#define SAMPLE(r, value, ...)                                                                      \
	do {                                                                                       \
		const struct label labels_[] = { __VA_ARGS__ };                                    \
		sample_begin(r, "", labels_, sizeof(labels_) / sizeof(labels_[0]));                \
		sample_number(r, value);                                                           \
	} while (0)
