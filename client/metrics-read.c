/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One copy of the page, so that a figure is the same wherever it is shown.
 */
#include <errno.h>
#include <time.h>

#include "client/metrics-private.h"
#include "client/stats.h"
#include "shm/base.h"

#define COPY_TRIES 50u
#define WORKER_WORDS offsetof(struct stats_worker, step_ns) /* what is summed begins there */
_Static_assert((sizeof(struct stats_worker) - WORKER_WORDS) % sizeof(uint64_t) == 0, "words");

void figures_deinit(struct figures *f)
{
	free(f->node);
	free(f->user);
	free(f->device);
	free(f->sequence);
	metrics_text_deinit(&f->labels);
	*f = (struct figures)FIGURES_NULL;
}

/* A writer that lost the CPU in the middle of a group has it back within a few milliseconds. */
static int copy_block(const struct stats *s, enum stats_kind kind, uint32_t index, void *ret)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	int r = stats_copy(s, kind, index, ret);

	for (unsigned i = 0; r == -EAGAIN && i < COPY_TRIES; i++) {
		nanosleep(&pause, NULL);
		r = stats_copy(s, kind, index, ret);
	}
	return r;
}

uint64_t figures_sum(const struct stats_read *r)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(r->bytes); i++)
		sum += r->bytes[i];
	return sum;
}

static int read_workers(const struct stats *s, struct figures *f)
{
	uint64_t *sum = (uint64_t *)((char *)&f->worker + WORKER_WORDS);
	struct stats_worker one;
	int r;

	f->shares_far_known = true;
	for (uint32_t i = 0; i < stats_count(s, STATS_WORKER); i++) {
		const uint64_t *word = (const uint64_t *)((char *)&one + WORKER_WORDS);

		r = copy_block(s, STATS_WORKER, i, &one);
		if (r < 0)
			return r;
		f->shares_far_known &= one.shares_far != STATS_UNKNOWN;
		for (size_t w = 0; w < (sizeof(one) - WORKER_WORDS) / sizeof(*word); w++)
			sum[w] += word[w];
	}
	return 0;
}

static int read_nodes(const struct stats *s, struct figures *f)
{
	uint32_t n = stats_count(s, STATS_NODE);
	int r;

	f->node = calloc(n + 1, sizeof(*f->node));
	if (!f->node)
		return -ENOMEM;
	for (; f->n_nodes < n; f->n_nodes++) {
		r = copy_block(s, STATS_NODE, f->n_nodes, &f->node[f->n_nodes]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_users(const struct stats *s, struct figures *f)
{
	uint32_t n = stats_count(s, STATS_USER);
	int r;

	f->user = calloc(n + 1, sizeof(*f->user));
	if (!f->user)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		r = copy_block(s, STATS_USER, i, &f->user[f->n_users]);
		if (r < 0)
			return r;
		f->n_users += f->user[f->n_users].used != STATS_FREE;
	}
	return 0;
}

static int read_devices(const struct stats *s, struct figures *f)
{
	uint32_t n = stats_count(s, STATS_DEVICE);
	int r;

	f->device = calloc(n + 1, sizeof(*f->device));
	if (!f->device)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		r = copy_block(s, STATS_DEVICE, i, &f->device[f->n_devices]);
		if (r < 0)
			return r;
		f->n_devices += f->device[f->n_devices].used != STATS_FREE;
	}
	return 0;
}

/* ---- sequences ------------------------------------------------------------------------ */

static void label(struct metrics_text *t, const char *name, const char *value, size_t n)
{
	text_string(t, name);
	text_quoted(t, value, n);
}

/* The name of a cache, remembered: the next sequence is likely one of the same. */
static const char *cache_name(const struct stats *s, uint64_t id, struct figures *f)
{
	struct stats_cache cache = { .id = 0 };
	uint32_t slot = (uint32_t)id;

	if (id && id == f->labelled_cache)
		return f->cache_name;
	f->labelled_cache = id;
	memset(f->cache_name, 0, sizeof(f->cache_name));
	/* It may have gone since the sequence was read: then it has no name any more. */
	if (slot < stats_count(s, STATS_CACHE) && copy_block(s, STATS_CACHE, slot, &cache) == 0 &&
	    cache.id == id)
		memcpy(f->cache_name, cache.name, sizeof(f->cache_name));
	return f->cache_name;
}

/* A sample's labels are the same in each of the families: made once. */
static void label_sequence(const struct stats *s, const struct stats_sequence *q, struct figures *f)
{
	struct metrics_text *t = &f->labels;

	text_string(t, "{user=\"");
	text_number(t, q->uid);
	label(t, "\",cache=", cache_name(s, q->cache, f), sizeof(f->cache_name));
	text_string(t, ",sequence=\"");
	text_number(t, q->id);
	label(t, "\",name=", q->name, sizeof(q->name));
	text_string(t, "} ");
}

static void add_sequence(const struct stats *s, const struct stats_sequence *q, struct figures *f)
{
	struct sequence_figures *to = &f->sequence[f->n_sequences++];

	to->labels_at = f->labels.n;
	label_sequence(s, q, f);
	to->labels_bytes = f->labels.n - to->labels_at;
	to->value[SEQUENCE_ROWS] = q->rows;
	to->value[SEQUENCE_BYTES] = q->bytes;
	to->value[SEQUENCE_STEPS] = q->steps;
	to->value[SEQUENCE_READ] = figures_sum(&q->read);
}

int figures_read_sequences(const struct stats *s, uint32_t slot, struct figures *f)
{
	uint32_t n = stats_count(s, STATS_SEQUENCE), end = slot + MIN(n - slot, SEQUENCES_AT_ONCE);
	struct stats_sequence one;
	int r;

	if (!f->sequence)
		f->sequence = malloc(SEQUENCES_AT_ONCE * sizeof(*f->sequence));
	if (!f->sequence)
		return -ENOMEM;
	f->slot = UINT32_MAX;
	f->n_sequences = 0;
	f->labels.n = 0;
	for (uint32_t i = slot; i < end; i++) {
		r = copy_block(s, STATS_SEQUENCE, i, &one);
		if (r < 0)
			return r;
		if (one.id)
			add_sequence(s, &one, f);
	}
	f->slot = slot;
	return f->labels.failed ? -ENOMEM : 0;
}

int figures_read(const struct stats *s, struct figures *ret)
{
	CLEANUP(figures_deinit) struct figures f = FIGURES_NULL;
	int r;

	f.header = stats_header(s);
	r = copy_block(s, STATS_CONTROL, 0, &f.control);
	if (r < 0)
		return r;
	if ((r = read_workers(s, &f)) < 0 || (r = read_nodes(s, &f)) < 0 ||
	    (r = read_users(s, &f)) < 0 || (r = read_devices(s, &f)) < 0)
		return r;
	f.slot = UINT32_MAX;
	*ret = STEAL(f, (struct figures)FIGURES_NULL);
	return 0;
}
