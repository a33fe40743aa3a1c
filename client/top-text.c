/* SPDX-License-Identifier: Apache-2.0 */
/* What was seen, in order and as lines: see top.h. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl-print.h"
#include "client/top-private.h"
#include "shm/base.h"

const char *const top_order_name[TOP_ORDERS] = {
	[TOP_BYTES] = "bytes",   [TOP_STEPS] = "steps", [TOP_SAVED] = "saved",
	[TOP_MEMORY] = "memory", [TOP_NAME] = "name",
};

/* ---- order ------------------------------------------------------------------------ */

static double figure(enum top_order order, const struct top_rates *r, uint64_t memory)
{
	switch (order) {
	case TOP_BYTES:
		return r->bytes;
	case TOP_STEPS:
		return r->steps;
	case TOP_SAVED:
		return r->dense - r->bytes;
	case TOP_MEMORY:
		return (double)memory;
	default:
		return 0;
	}
}

static int compare(double a, double b, const char *x, const char *y)
{
	if (a > b || a < b)
		return a > b ? -1 : 1;
	return strcmp(x, y);
}

static int compare_users(const void *a, const void *b, void *order)
{
	const struct top_user *x = a, *y = b;
	enum top_order o = *(const enum top_order *)order;

	return compare(figure(o, &x->rates, x->charged_bytes),
		       figure(o, &y->rates, y->charged_bytes), x->name, y->name);
}

static int compare_sequences(const void *a, const void *b, void *order)
{
	const struct top_sequence *x = a, *y = b;
	enum top_order o = *(const enum top_order *)order;
	int r = compare(figure(o, &x->rates, x->bytes), figure(o, &y->rates, y->bytes), x->name,
			y->name);

	return r ? r : (x->id > y->id) - (x->id < y->id);
}

void top_sort(struct top *t, enum top_order order)
{
	qsort_r(t->user, t->n_users, sizeof(*t->user), compare_users, &order);
	qsort_r(t->sequence, t->n_sequences, sizeof(*t->sequence), compare_sequences, &order);
}

/* ---- words ------------------------------------------------------------------------- */

const char *top_bandwidth(double bytes_s, char ret[16])
{
	static const char *const units[] = { "B/s", "kB/s", "MB/s", "GB/s", "TB/s" };
	unsigned unit = 0;

	while (bytes_s >= 999.5 && unit + 1 < ARRAY_SIZE(units)) {
		bytes_s /= 1000;
		unit++;
	}
	snprintf(ret, 16, "%.*f %s",
		 !unit || bytes_s >= 99.95 ? 0
		 : bytes_s >= 9.995        ? 1
					   : 2,
		 bytes_s, units[unit]);
	return ret;
}

/* Of what dense attention over f16 would have read. */
static const char *saved(const struct top_rates *r, char ret[16])
{
	if (r->dense > 0)
		snprintf(ret, 16, "%.1f%%", 100 * (1 - r->bytes / r->dense));
	else
		snprintf(ret, 16, "-");
	return ret;
}

/* Behind what is pinned stands a "!". */
static const char *state(uint32_t flags)
{
	bool pinned = flags & STATS_SEQUENCE_PINNED;

	if (flags & STATS_SEQUENCE_SPILLED)
		return pinned ? "spilled!" : "spilled";
	if (flags & STATS_SEQUENCE_PREFIX)
		return "prefix";
	if (flags & STATS_SEQUENCE_PARKED)
		return pinned ? "parked!" : "parked";
	return pinned ? "attached!" : "attached";
}

/* ---- lines -------------------------------------------------------------------------- */

void top_put(struct top_page *p, enum top_style style, const char *format, ...)
{
	char text[TOP_TEXT];
	va_list args;
	size_t n;

	if (!p->left)
		return;
	p->left--;
	va_start(args, format);
	vsnprintf(text, MIN(sizeof(text), p->width + 1ul), format, args);
	va_end(args);
	for (n = strlen(text); n && text[n - 1] == ' '; n--)
		;
	text[n] = '\0';
	p->put(p->arg, style, text);
}

static void put_title(struct top_page *p, const struct top *t)
{
	const struct stats_header *h = stats_header(t->stats);
	const struct stats_control *c = &t->control;
	uint64_t up = (uint64_t)time(NULL) - h->started_s;
	char parked[40] = "";

	if (c->parked != STATS_UNKNOWN)
		snprintf(parked, sizeof(parked), ", %llu parked", (unsigned long long)c->parked);
	top_put(p, TOP_TITLE, "sparqd %s %s, up %llu:%02llu:%02llu, %u sessions, %llu sequences%s",
		h->version, h->isa, (unsigned long long)up / 3600, (unsigned long long)up / 60 % 60,
		(unsigned long long)up % 60, c->sessions, (unsigned long long)c->sequences, parked);
}

static void put_sum(struct top_page *p, const struct top *t)
{
	char read[16], dense[16], share[16];

	top_put(p, TOP_PLAIN, "%10.0f steps/s  read %s  dense would read %s  saved %s",
		t->rates.steps, top_bandwidth(t->rates.bytes, read),
		top_bandwidth(t->rates.dense, dense), saved(&t->rates, share));
}

#define BAR 20u

static void put_node(struct top_page *p, const struct top_node *n)
{
	char read[16], most[16], used[24], pool[24], roof[48], dram[48] = "", bar[BAR + 1];
	double part = n->roofline_bytes_s ? n->rates.bytes / (double)n->roofline_bytes_s : 0;

	for (unsigned i = 0; i < BAR; i++)
		bar[i] = i < part * BAR ? '|' : ' ';
	bar[BAR] = '\0';
	if (n->roofline_bytes_s)
		snprintf(roof, sizeof(roof), "[%s] %3.0f %% of %s", bar, 100 * part,
			 top_bandwidth((double)n->roofline_bytes_s, most));
	else
		snprintf(roof, sizeof(roof), "(roofline: run sparqctl calibrate)");
	if (n->source)
		snprintf(dram, sizeof(dram), "  DRAM %s (%.16s)", top_bandwidth(n->dram_rate, read),
			 n->source->name);
	top_put(p, TOP_BAR, "node %-2d %9s %s  %s of %s%s", MAX(n->node, 0),
		top_bandwidth(n->rates.bytes, read), roof,
		ctl_format_bytes((double)n->pool_used_bytes, used, sizeof(used)),
		ctl_format_bytes((double)n->pool_bytes, pool, sizeof(pool)), dram);
}

static void put_users(struct top_page *p, const struct top *t, unsigned most)
{
	top_put(p, TOP_HEADING, "%-16s %8s %9s %10s %10s %9s %7s", "USER", "SESSIONS", "SEQUENCES",
		"CHARGED", "READ/S", "STEPS/S", "SAVED");
	for (uint32_t i = 0; i < t->n_users && i < most; i++) {
		const struct top_user *u = &t->user[i];
		char read[16], share[16], bytes[24];

		top_put(p, TOP_PLAIN, "%-16.16s %8llu %9llu %10s %10s %9.0f %7s", u->name,
			(unsigned long long)u->sessions, (unsigned long long)u->sequences,
			ctl_format_bytes((double)u->charged_bytes, bytes, sizeof(bytes)),
			top_bandwidth(u->rates.bytes, read), u->rates.steps,
			saved(&u->rates, share));
	}
}

static const char *user_of(const struct top *t, uint32_t uid)
{
	for (uint32_t i = 0; i < t->n_users; i++)
		if (t->user[i].uid == uid)
			return t->user[i].name;
	return "-";
}

#define NAME_LEAST 14u /* with it a row takes 79 columns; a name has up to 63 */
#define NAME_MOST 63u

static void put_sequences(struct top_page *p, const struct top *t)
{
	int name = (int)(p->width > 80 ? MIN(NAME_LEAST + p->width - 80, NAME_MOST) : NAME_LEAST);

	top_put(p, TOP_HEADING, "%-*s %-8s %7s %10s %10s %7s %7s %s", name, "SEQUENCE", "USER",
		"ROWS", "BYTES", "READ/S", "STEPS/S", "SAVED", "STATE");
	for (uint32_t i = 0; i < t->n_sequences && p->left; i++) {
		const struct top_sequence *s = &t->sequence[i];
		char read[16], share[16], bytes[24], id[24];

		snprintf(id, sizeof(id), "%#llx", (unsigned long long)s->id);
		top_put(p, TOP_PLAIN, "%-*.*s %-8.8s %7u %10s %10s %7.0f %7s %s", name, name,
			s->name[0] ? s->name : id, user_of(t, s->uid), s->rows,
			ctl_format_bytes((double)s->bytes, bytes, sizeof(bytes)),
			top_bandwidth(s->rates.bytes, read), s->rates.steps,
			saved(&s->rates, share), state(s->flags));
	}
}

void top_text(const struct top *t, unsigned width, unsigned lines, top_put_fn *put_line, void *arg)
{
	struct top_page p = { .width = width, .left = lines, .put = put_line, .arg = arg };

	put_title(&p, t);
	put_sum(&p, t);
	for (uint32_t i = 0; i < t->n_nodes; i++)
		put_node(&p, &t->node[i]);
	top_put_devices(&p, t);
	top_put(&p, TOP_PLAIN, "%s", "");
	put_users(&p, t, lines / 3);
	top_put(&p, TOP_PLAIN, "%s", "");
	put_sequences(&p, t);
}
