/* SPDX-License-Identifier: Apache-2.0 */
/* One look at the stats page, and what was done since the one before: see top.h. */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "client/top-private.h"
#include "shm/base.h"
#include "shm/clock.h"

int top_open(struct top *t, const char *socket, char *why)
{
	*t = TOP_NULL;
	return stats_open(socket, &t->stats, why);
}

void top_deinit(struct top *t)
{
	t->stats = stats_close(t->stats);
	free(t->user);
	free(t->sequence);
	free(t->users.counts);
	free(t->sequences.counts);
	*t = TOP_NULL;
}

/* ---- rates ------------------------------------------------------------------------ */

static uint64_t bytes_of(const struct stats_read *read)
{
	uint64_t sum = 0;

	for (unsigned p = 0; p < SPARQ_PLANES; p++)
		sum += read->bytes[p];
	return sum;
}

static double rate(const struct top *t, uint64_t now, uint64_t before)
{
	return t->whole && now > before ? (double)(now - before) / t->seconds : 0;
}

/* What `now` has more than `before`, which becomes `now`. */
static struct top_rates advance(const struct top *t, struct top_counts *before,
				const struct top_counts *now)
{
	struct top_counts from = { .id = now->id };
	struct top_rates r;

	if (before->id == now->id)
		from = *before;
	r = (struct top_rates){
		.steps = rate(t, now->steps, from.steps),
		.bytes = rate(t, now->bytes, from.bytes),
		.dense = rate(t, now->dense, from.dense),
	};
	*before = *now;
	return r;
}

/* Room for one of each index; what is new began at nothing. */
static int grow(struct top_before *b, uint32_t n)
{
	struct top_counts *counts;

	if (n <= b->n)
		return 0;
	counts = reallocarray(b->counts, n, sizeof(*counts));
	if (!counts)
		return -ENOMEM;
	memset(&counts[b->n], 0, (n - b->n) * sizeof(*counts));
	b->counts = counts;
	b->n = n;
	return 0;
}

/* ---- nodes and the whole ------------------------------------------------------------- */

static void add_worker(const struct stats_worker *w, struct top_counts *sum,
		       uint64_t node_bytes[STATS_NODES])
{
	for (unsigned op = SPARQ_OP_NOP + 1; op < STATS_OPS; op++) {
		sum->bytes += bytes_of(&w->op[op]);
		sum->dense += w->op[op].dense_bytes;
		for (unsigned p = 0; p < STATS_POLICIES; p++)
			sum->steps += w->steps[op][p].done;
	}
	for (unsigned n = 0; n < STATS_NODES; n++)
		for (unsigned p = 0; p < SPARQ_PLANES; p++)
			node_bytes[n] += w->read_node_bytes[n][p];
}

/* Reads, or both ways where the source does not tell them apart. */
static uint64_t traffic(const struct stats_source *s)
{
	return s->read_bytes != STATS_UNKNOWN ? s->read_bytes : s->total_bytes;
}

/* The first source that counts. */
static const struct stats_source *find_source(const struct top_node *n)
{
	for (unsigned i = 0; i < STATS_SOURCES; i++)
		if (n->sources[i].name[0] && !n->sources[i].why[0] &&
		    traffic(&n->sources[i]) != STATS_UNKNOWN)
			return &n->sources[i];
	return NULL;
}

/* Of a source that was not counting at the look before there is no rate yet. */
static void look_at_dram(const struct top *t, struct top_node *n)
{
	const struct stats_source *source = find_source(n);
	bool counted = source && !strcmp(n->dram_by, source->name);

	n->source = counted ? source : NULL;
	if (counted)
		n->dram_rate = rate(t, traffic(source), n->dram_bytes);
	n->dram_bytes = source ? traffic(source) : 0;
	snprintf(n->dram_by, sizeof(n->dram_by), "%s", source ? source->name : "");
}

static void look_at_node(struct top *t, struct top_node *n, const struct stats_node *now,
			 uint64_t bytes)
{
	const struct top_counts counts = { .id = 1, .bytes = bytes };

	n->node = now->node;
	n->pool_bytes = now->pool_bytes;
	n->pool_used_bytes = now->pool_used_bytes;
	n->roofline_bytes_s = now->roofline_bytes_s;
	n->calibrated_s = now->calibrated_s;
	n->rates = advance(t, &n->counts, &counts);
	memcpy(n->sources, now->source, sizeof(n->sources));
	look_at_dram(t, n);
}

static int look_at_workers(struct top *t)
{
	uint64_t node_bytes[STATS_NODES] = { 0 };
	struct top_counts sum = { .id = 1 };
	struct stats_worker w;
	struct stats_node node;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < stats_count(t->stats, STATS_WORKER); i++) {
		r = stats_copy(t->stats, STATS_WORKER, i, &w);
		if (r == 0)
			add_worker(&w, &sum, node_bytes);
	}
	if (r < 0)
		return r;
	t->rates = advance(t, &t->sum, &sum);
	t->n_nodes = MIN(stats_count(t->stats, STATS_NODE), STATS_NODES);
	for (uint32_t i = 0; r == 0 && i < t->n_nodes; i++) {
		r = stats_copy(t->stats, STATS_NODE, i, &node);
		if (r == 0)
			look_at_node(t, &t->node[i], &node, node_bytes[i]);
	}
	return r;
}

/* ---- users and sequences ----------------------------------------------------------- */

/* A name service may be slow: asked once for each. */
static void name_user(struct top_user *u)
{
	const struct passwd *p = u->name[0] ? NULL : getpwuid(u->uid);

	if (p)
		snprintf(u->name, sizeof(u->name), "%s", p->pw_name);
	else if (!u->name[0])
		snprintf(u->name, sizeof(u->name), "%u", u->uid);
	for (char *c = u->name; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static const struct top_user *find_user(const struct top_user *user, uint32_t n, uint32_t uid)
{
	for (uint32_t i = 0; i < n; i++)
		if (user[i].uid == uid)
			return &user[i];
	return NULL;
}

static int look_at_users(struct top *t)
{
	uint32_t n = stats_count(t->stats, STATS_USER), n_users = 0;
	FREE_MEMORY struct top_user *user = calloc(n + 1, sizeof(*user));
	struct stats_user now;
	int r = user ? grow(&t->users, n) : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		struct top_user *u = &user[n_users];
		const struct top_user *known;
		struct top_counts counts;

		r = stats_copy(t->stats, STATS_USER, i, &now);
		if (r < 0 || now.used != STATS_USED)
			continue;
		*u = (struct top_user){ .uid = now.uid,
					.sequences = now.sequences,
					.sessions = now.sessions,
					.charged_bytes = now.charged_bytes };
		counts = (struct top_counts){ now.uid + 1ull, now.steps, bytes_of(&now.read),
					      now.read.dense_bytes };
		u->rates = advance(t, &t->users.counts[i], &counts);
		known = find_user(t->user, t->n_users, u->uid);
		if (known)
			memcpy(u->name, known->name, sizeof(u->name));
		name_user(u);
		n_users++;
	}
	if (r < 0)
		return r;
	free(t->user);
	t->user = STEAL_PTR(user);
	t->n_users = n_users;
	return 0;
}

static void look_at_sequence(struct top *t, uint32_t index, const struct stats_sequence *now,
			     struct top_sequence *ret)
{
	const struct top_counts counts = { now->id, now->steps, bytes_of(&now->read),
					   now->read.dense_bytes };

	*ret = (struct top_sequence){ .id = now->id,
				      .cache = now->cache,
				      .bytes = now->bytes,
				      .uid = now->uid,
				      .flags = now->flags,
				      .rows = now->rows };
	memcpy(ret->name, now->name, sizeof(ret->name));
	ret->name[sizeof(ret->name) - 1] = '\0';
	ret->rates = advance(t, &t->sequences.counts[index], &counts);
}

/* Slots behind the last that is taken are not touched: a page of the file comes to be by a look at
 * it, and there may be slots for millions. */
static int look_at_sequences(struct top *t)
{
	uint32_t n = stats_count(t->stats, STATS_SEQUENCE), found = 0;
	uint32_t there = (uint32_t)MIN(t->control.sequences, n);
	FREE_MEMORY struct top_sequence *sequence = calloc(there + 1ull, sizeof(*sequence));
	struct stats_sequence now;
	int r = sequence ? 0 : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < n && found < there; i++) {
		if (i >= t->sequences.n)
			r = grow(&t->sequences, MIN(n, MAX(2 * i, 1024u)));
		if (r == 0)
			r = stats_copy(t->stats, STATS_SEQUENCE, i, &now);
		if (r == 0 && now.id)
			look_at_sequence(t, i, &now, &sequence[found++]);
	}
	if (r < 0)
		return r;
	free(t->sequence);
	t->sequence = STEAL_PTR(sequence);
	t->n_sequences = found;
	return 0;
}

int top_look(struct top *t, char *why)
{
	int64_t now;
	int r = stats_refresh(t->stats, why);

	if (r < 0)
		return r;
	now = clock_now_ns();
	/* Another daemon has counted from 0 on: nothing of it is known yet. */
	t->whole = r == 0 && t->looked_ns;
	t->seconds = (double)(now - t->looked_ns) / (double)NS_PER_S;
	r = stats_copy(t->stats, STATS_CONTROL, 0, &t->control);
	if (r == 0)
		r = look_at_workers(t);
	if (r == 0)
		r = top_look_at_devices(t);
	if (r == 0)
		r = look_at_users(t);
	if (r == 0)
		r = look_at_sequences(t);
	if (r < 0) {
		snprintf(why, SPARQ_ERROR_TEXT, "the stats page: %s", strerror(-r));
		return r;
	}
	t->looked_ns = now;
	return 0;
}
