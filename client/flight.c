/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entries have no completion yet: what must be reported as lost when the
 * daemon goes. Completions name their entry by user_data only, which need not
 * be unique: of equals the oldest is taken, and any answer is the same.
 */
#include <assert.h>
#include <stdlib.h>

#include "client/private.h"

int flight_init(struct flight *f, uint32_t most)
{
	uint32_t n = 2;

	*f = (struct flight){};
	while (n < 2 * most) /* at least half are holes when it is full: closing them is paid for */
		n *= 2;
	f->user_data = calloc(n, sizeof(*f->user_data));
	f->done = calloc(n, sizeof(*f->done));
	f->mask = n - 1;
	if (!f->user_data || !f->done) {
		flight_deinit(f);
		return -ENOMEM;
	}
	return 0;
}

void flight_deinit(struct flight *f)
{
	free(f->user_data);
	free(f->done);
	*f = (struct flight){};
}

static void close_holes(struct flight *f)
{
	uint32_t to = f->head;

	for (uint32_t from = f->head; from != f->tail; from++) {
		if (f->done[from & f->mask])
			continue;
		f->user_data[to & f->mask] = f->user_data[from & f->mask];
		to++;
	}
	for (uint32_t i = f->head; i != to; i++)
		f->done[i & f->mask] = 0;
	f->tail = to;
}

static void skip_holes(struct flight *f)
{
	while (f->head != f->tail && f->done[f->head & f->mask])
		f->head++;
}

void flight_add(struct flight *f, uint64_t user_data)
{
	if (unlikely(f->tail - f->head > f->mask))
		close_holes(f);
	assert(f->tail - f->head <= f->mask);
	f->user_data[f->tail & f->mask] = user_data;
	f->done[f->tail & f->mask] = 0;
	f->tail++;
	f->live++;
}

void flight_done(struct flight *f, uint64_t user_data)
{
	for (uint32_t i = f->head; i != f->tail; i++) {
		uint32_t at = i & f->mask;

		if (f->user_data[at] != user_data || f->done[at])
			continue;
		f->done[at] = 1;
		f->live--;
		if (i == f->head)
			skip_holes(f);
		return;
	}
	/* A completion that nobody asked for: the daemon's mistake, not to be made ours. */
}

bool flight_take(struct flight *f, uint64_t *ret)
{
	skip_holes(f);
	if (f->head == f->tail)
		return false;
	*ret = f->user_data[f->head++ & f->mask];
	f->live--;
	return true;
}
