/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How each row of metrics.def is shown: a function for each word of its `show` column. A counter
 * that has not counted yet is shown as 0; what is not known is not shown.
 */
#include <inttypes.h>
#include <stdio.h>

#include "client/metrics-private.h"
#include "shm/base.h"

#define NUMBER_BYTES 24

/* Words of labels; an operation, plane or reason that is new needs its word here. */
static const char *const op_names[] = {
	"nop", "step", "append", "attend", "truncate", "overwrite"
};
_Static_assert(ARRAY_SIZE(op_names) == SPARQ_OP_COUNT, "each operation has its word");
const char *const metrics_plane_names[] = {
	[SPARQ_PLANE_SCORE] = "score",           [SPARQ_PLANE_K] = "k",
	[SPARQ_PLANE_V_UPPER] = "v_upper",       [SPARQ_PLANE_V_LOWER] = "v_lower",
	[SPARQ_PLANE_PARAMETERS] = "parameters", [SPARQ_PLANE_RECENT] = "recent",
	[SPARQ_PLANE_STATE] = "state",           [SPARQ_PLANE_OTHER] = "other",
};
_Static_assert(ARRAY_SIZE(metrics_plane_names) == SPARQ_PLANES, "each plane has its word");
static const char *const reason_names[] = {
	"none",     "op",        "flags",     "class",   "layer",    "unused", "items",
	"sequence", "duplicate", "cache",     "address", "stride",   "rows",   "queries",
	"row",      "busy",      "budget",    "pool",    "deadline", "linked", "unsupported",
	"reserved", "quota",     "catalogue", "device",
};
_Static_assert(ARRAY_SIZE(reason_names) == SPARQ_REASONS, "each reason has its word");
static const char *const fault_names[] = {
	[STATS_FAULT_MESSAGE] = "message",
	[STATS_FAULT_RING] = "ring",
	[STATS_FAULT_MEMORY] = "memory",
};
_Static_assert(ARRAY_SIZE(fault_names) == STATS_FAULTS, "each fault has its word");
static const char *const audit_ends[] = {
	[STATS_AUDIT_BUSY] = "busy",
	[STATS_AUDIT_LARGE] = "large",
	[STATS_AUDIT_DROPPED] = "dropped",
	[STATS_AUDIT_ODD] = "not_finite",
};
_Static_assert(ARRAY_SIZE(audit_ends) == STATS_AUDITS, "each reason has its word");
/* The daemon's limit_names; tests/unit/test-metrics.c compares them. */
const char *const metrics_limit_names[] = {
	"ahead", "budget", "quota", "pool", "catalogue", "sequences", "slots",
};
const unsigned metrics_n_limits = ARRAY_SIZE(metrics_limit_names);

/* The word of a block that the table names. */
static uint64_t word_of(const struct metric *m, const void *block)
{
	const char *at = (const char *)block + m->at;
	uint64_t wide;
	uint32_t narrow;

	if (m->bytes == sizeof(narrow)) {
		memcpy(&narrow, at, sizeof(narrow));
		return narrow;
	}
	memcpy(&wide, at, sizeof(wide));
	return wide;
}

static const char *number(uint64_t value, char *ret)
{
	snprintf(ret, NUMBER_BYTES, "%" PRIu64, value);
	return ret;
}

/* A machine without nodes has one pool, of node "". */
static const char *node_number(const struct stats_node *n, char *ret)
{
	if (n->node < 0)
		ret[0] = '\0';
	else
		number((uint64_t)n->node, ret);
	return ret;
}

static void show_nano(struct render *r, uint64_t value)
{
	sample_begin(r, "", NULL, 0);
	text_nano(r->text, value);
	text_put(r->text, "\n", 1);
}

static void show_plain(struct render *r, uint64_t value)
{
	sample_begin(r, "", NULL, 0);
	sample_number(r, value);
}

/* ---- the daemon --------------------------------------------------------------------- */

void metrics_show_up(struct render *r)
{
	show_plain(r, r->figures != NULL);
}

void metrics_show_build(struct render *r)
{
	const struct stats_header *h = r->figures->header;

	SAMPLE(r, 1, { "version", h->version }, { "isa", h->isa });
}

void metrics_show_generation(struct render *r)
{
	show_plain(r, r->figures->header->generation);
}

void metrics_show_start_time(struct render *r)
{
	show_plain(r, r->figures->header->started_s);
}

void metrics_show_control(struct render *r)
{
	uint64_t value = word_of(r->metric, &r->figures->control);

	if (value != STATS_UNKNOWN)
		show_plain(r, value);
}

void metrics_show_worker(struct render *r)
{
	show_plain(r, word_of(r->metric, &r->figures->worker));
}

void metrics_show_shares_far(struct render *r)
{
	if (r->figures->shares_far_known)
		show_plain(r, r->figures->worker.shares_far);
}

void metrics_show_recovery_time(struct render *r)
{
	show_nano(r, r->figures->control.recovery_ns);
}

void metrics_show_faults(struct render *r)
{
	for (unsigned i = 0; i < STATS_FAULTS; i++)
		SAMPLE(r, r->figures->control.faults[i], { "reason", fault_names[i] });
}

void metrics_show_rows(struct render *r)
{
	const struct stats_header *h = r->figures->header;

	for (unsigned i = 0; i < STATS_FORMATS && h->format[i][0]; i++)
		if (r->figures->control.rows[i] != STATS_UNKNOWN)
			SAMPLE(r, r->figures->control.rows[i], { "format", h->format[i] });
}

void metrics_show_evicted(struct render *r)
{
	for (unsigned i = 0; i < metrics_n_limits; i++)
		SAMPLE(r, word_of(r->metric, &r->figures->control.evicted[i]),
		       { "reason", metrics_limit_names[i] });
}

void metrics_show_spill(struct render *r)
{
	const struct stats_control *c = &r->figures->control;

	SAMPLE(r, word_of(r->metric, &c->spilled_out), { "dir", "out" });
	SAMPLE(r, word_of(r->metric, &c->spilled_in), { "dir", "in" });
}

/* ---- steps ---------------------------------------------------------------------------- */

void metrics_show_steps(struct render *r)
{
	const struct stats_header *h = r->figures->header;

	for (unsigned op = 0; op < SPARQ_OP_COUNT; op++)
		for (unsigned p = 0; p < STATS_POLICIES; p++) {
			const struct stats_steps *s = &r->figures->worker.steps[op][p];

			if (!h->policy[p][0])
				continue;
			SAMPLE(r, s->done, { "op", op_names[op] }, { "policy", h->policy[p] },
			       { "result", "done" });
			SAMPLE(r, s->failed, { "op", op_names[op] }, { "policy", h->policy[p] },
			       { "result", "failed" });
		}
}

static void show_bucket(struct render *r, const char *le, uint64_t value)
{
	const struct label labels[] = { { "le", le } };

	sample_begin(r, "_bucket", labels, ARRAY_SIZE(labels));
	sample_number(r, value);
}

void metrics_show_step_duration(struct render *r)
{
	const struct stats_worker *w = &r->figures->worker;
	uint64_t count = 0;
	char le[NUMBER_BYTES];

	for (unsigned i = 0; i + 1 < STATS_BUCKETS; i++) {
		count += w->step_count[i];
		snprintf(le, sizeof(le), "%.9g", (double)(2ull << i) / 1e6);
		show_bucket(r, le, count);
	}
	count += w->step_count[STATS_BUCKETS - 1];
	show_bucket(r, "+Inf", count);
	sample_begin(r, "_sum", NULL, 0);
	text_nano(r->text, w->step_ns);
	text_put(r->text, "\n", 1);
	sample_begin(r, "_count", NULL, 0);
	sample_number(r, count);
}

/* A policy that reads all rows has none: an empty family would say that it was looked at. */
static void show_errors(struct render *r, const char *policy, const struct stats_audit *a)
{
	struct label labels[] = { { "policy", policy }, { "le", "+Inf" } };
	uint64_t count = 0;
	char le[NUMBER_BYTES];

	for (unsigned i = 0; i < STATS_ERRORS; i++) {
		count += a->error_count[i];
		if (i + 1 < STATS_ERRORS)
			snprintf(le, sizeof(le), "%g", (double)stats_error_bounds[i] / 1e9);
		labels[1].value = i + 1 < STATS_ERRORS ? le : "+Inf";
		sample_begin(r, "_bucket", labels, ARRAY_SIZE(labels));
		sample_number(r, count);
	}
	sample_begin(r, "_sum", labels, 1);
	text_nano(r->text, a->error_n);
	text_put(r->text, "\n", 1);
	sample_begin(r, "_count", labels, 1);
	sample_number(r, count);
}

static bool can_select(const char *policy)
{
	return policy[0] && strcmp(policy, "none") != 0 && strcmp(policy, "dense") != 0;
}

void metrics_show_audit_error(struct render *r)
{
	const struct stats_header *h = r->figures->header;

	for (unsigned p = 0; p < STATS_POLICIES; p++)
		if (can_select(h->policy[p]))
			show_errors(r, h->policy[p], &r->figures->control.audit[p]);
}

void metrics_show_audit_most(struct render *r)
{
	const struct stats_header *h = r->figures->header;

	for (unsigned p = 0; p < STATS_POLICIES; p++) {
		const struct stats_audit *a = &r->figures->control.audit[p];
		const struct label labels[] = { { "policy", h->policy[p] } };

		if (!a->count)
			continue;
		sample_begin(r, "", labels, ARRAY_SIZE(labels));
		text_nano(r->text, a->most_n);
		text_put(r->text, "\n", 1);
	}
}

void metrics_show_audits_left_out(struct render *r)
{
	for (unsigned i = 0; i < STATS_AUDITS; i++)
		SAMPLE(r, r->figures->control.audits_left_out[i], { "reason", audit_ends[i] });
}

void metrics_show_refused(struct render *r)
{
	for (unsigned i = 0; i < SPARQ_REASONS; i++)
		SAMPLE(r, r->figures->worker.refused[i], { "reason", reason_names[i] });
}

/* ---- bytes ---------------------------------------------------------------------------- */

void metrics_show_read_node(struct render *r)
{
	const struct figures *f = r->figures;
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < f->n_nodes && i < STATS_NODES; i++)
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			SAMPLE(r, f->worker.read_node_bytes[i][p],
			       { "node", node_number(&f->node[i], node) },
			       { "plane", metrics_plane_names[p] }, { "source", "software" });
}

void metrics_show_read_op(struct render *r)
{
	for (unsigned op = 0; op < SPARQ_OP_COUNT; op++)
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			SAMPLE(r, r->figures->worker.op[op].bytes[p], { "op", op_names[op] },
			       { "plane", metrics_plane_names[p] });
}

void metrics_show_dense(struct render *r)
{
	uint64_t sum = 0;

	for (unsigned op = 0; op < SPARQ_OP_COUNT; op++)
		sum += r->figures->worker.op[op].dense_bytes;
	show_plain(r, sum);
}

void metrics_show_written(struct render *r)
{
	for (unsigned op = 0; op < SPARQ_OP_COUNT; op++)
		SAMPLE(r, r->figures->worker.written_bytes[op], { "op", op_names[op] });
}

void metrics_show_flush(struct render *r)
{
	SAMPLE(r, r->figures->worker.flush_read_bytes, { "dir", "read" });
	SAMPLE(r, r->figures->worker.flush_written_bytes, { "dir", "write" });
}

/* ---- nodes ---------------------------------------------------------------------------- */

void metrics_show_node(struct render *r)
{
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_nodes; i++)
		SAMPLE(r, word_of(r->metric, &r->figures->node[i]),
		       { "node", node_number(&r->figures->node[i], node) });
}

/* 0: nobody has measured it. */
void metrics_show_roofline(struct render *r)
{
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_nodes; i++) {
		const struct stats_node *n = &r->figures->node[i];

		if (n->roofline_bytes_s)
			SAMPLE(r, word_of(r->metric, n), { "node", node_number(n, node) });
	}
}

void metrics_show_pool(struct render *r)
{
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_nodes; i++) {
		const struct stats_node *n = &r->figures->node[i];

		node_number(n, node);
		SAMPLE(r, n->pool_used_bytes, { "node", node }, { "tier", "memory" },
		       { "state", "used" });
		SAMPLE(r, n->pool_bytes - n->pool_used_bytes, { "node", node },
		       { "tier", "memory" }, { "state", "free" });
	}
}

void metrics_show_pool_pages(struct render *r)
{
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_nodes; i++)
		SAMPLE(r, 1, { "node", node_number(&r->figures->node[i], node) },
		       { "pages", r->figures->node[i].pages });
}

typedef void source_show(struct render *r, const char *node, const struct stats_source *s);

static void each_source(struct render *r, source_show *show)
{
	char node[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_nodes; i++) {
		const struct stats_node *n = &r->figures->node[i];

		for (unsigned k = 0; k < STATS_SOURCES && n->source[k].name[0]; k++)
			show(r, node_number(n, node), &n->source[k]);
	}
}

static void show_traffic(struct render *r, const char *node, const struct stats_source *s)
{
	if (s->why[0])
		return;
	if (s->read_bytes != STATS_UNKNOWN)
		SAMPLE(r, s->read_bytes, { "node", node }, { "dir", "read" },
		       { "source", s->name });
	if (s->write_bytes != STATS_UNKNOWN)
		SAMPLE(r, s->write_bytes, { "node", node }, { "dir", "write" },
		       { "source", s->name });
	if (s->total_bytes != STATS_UNKNOWN)
		SAMPLE(r, s->total_bytes, { "node", node }, { "dir", "total" },
		       { "source", s->name });
}

void metrics_show_dram(struct render *r)
{
	each_source(r, show_traffic);
}

static void show_source(struct render *r, const char *node, const struct stats_source *s)
{
	SAMPLE(r, 1, { "node", node }, { "source", s->name },
	       { "state", s->why[0] ? "absent" : "counting" }, { "reason", s->why });
}

void metrics_show_dram_source(struct render *r)
{
	each_source(r, show_source);
}

/* ---- users and sequences -------------------------------------------------------------- */

void metrics_show_user(struct render *r)
{
	char uid[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_users; i++) {
		uint64_t value = word_of(r->metric, &r->figures->user[i]);

		if (value != STATS_UNKNOWN)
			SAMPLE(r, value, { "user", number(r->figures->user[i].uid, uid) });
	}
}

void metrics_show_user_read(struct render *r)
{
	char uid[NUMBER_BYTES];

	for (unsigned i = 0; i < r->figures->n_users; i++)
		SAMPLE(r, figures_sum(&r->figures->user[i].read),
		       { "user", number(r->figures->user[i].uid, uid) });
}

void metrics_show_sequence(struct render *r)
{
	const struct figures *f = r->figures;
	size_t n = strlen(r->metric->name);

	for (uint32_t i = f->shown_from; i < f->shown_to; i++) {
		const struct sequence_figures *s = &f->sequence[i];

		text_sample(r->text, r->metric->name, n, f->labels.data + s->labels_at,
			    s->labels_bytes, s->value[r->metric->at]);
	}
}
