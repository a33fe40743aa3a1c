/* SPDX-License-Identifier: Apache-2.0 */
/* The way through a kept catalogue: see recover.h. */
#include "daemon/recover-private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/evict.h"
#include "daemon/log.h"
#include "daemon/point.h"
#include "daemon/seq.h"
#include "daemon/store.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define SAID_MOST 20 /* of one kind of record: a damaged catalogue must not flood the log */

/* ---- caches ----------------------------------------------------------------------- */

static int lose_cache(struct recovery *rc, uint32_t slot, const char *why)
{
	const struct cache_record *r = catalogue_cache(rc->st->catalogue, slot);

	if (rc->count->dropped++ < SAID_MOST)
		log_event(EVENT_LOST, ABOUT(.uid = &r->uid, .cache = r->name),
			  "recovery: cache %" PRIu32 " of uid %" PRIu32 " is dropped: %s", slot,
			  r->uid, why);
	catalogue_drop_cache(rc->st->catalogue, slot);
	return 0;
}

static int find_cache(struct recovery *rc, uint32_t slot)
{
	struct cache_record *r = catalogue_cache(rc->st->catalogue, slot);
	char why[SPARQ_ERROR_TEXT] = "";
	int error;

	if (r->state == RECORD_FREE)
		return 0;
	/* It was being made, changed or dropped: nothing was in it. */
	if (r->state != RECORD_LIVE) {
		catalogue_drop_cache(rc->st->catalogue, slot);
		return 0;
	}
	if (!catalogue_cache_is_whole(rc->st->catalogue, slot))
		return lose_cache(rc, slot, "its checksum does not agree");
	error = cache_revive(rc->st, slot, &rc->cache[slot], why);
	if (error == -ENOMEM)
		return error;
	if (error < 0)
		return lose_cache(rc, slot, why);
	rc->count->caches++;
	return 0;
}

/* ---- sequences -------------------------------------------------------------------- */

static bool is_live(const struct recovery *rc, uint32_t slot)
{
	return recover_record(rc, slot)->state == RECORD_LIVE;
}

static void lose_sequence(struct recovery *rc, uint32_t slot, const char *why)
{
	const struct sequence_record *r = recover_record(rc, slot);

	if (rc->count->dropped++ < SAID_MOST)
		log_event(EVENT_LOST, NULL,
			  "recovery: sequence %" PRIu32 " \"%.63s\" of cache %" PRIu32
			  " is dropped: %s",
			  slot, r->name, r->cache_slot, why);
	if (r->state != RECORD_FREE)
		catalogue_drop_sequence(rc->st->catalogue, slot);
}

typedef int sequence_step(struct recovery *rc, uint32_t slot, char *why);

/* One step of all that are still there. */
static int each_sequence(struct recovery *rc, sequence_step *step)
{
	for (uint32_t i = 0; i < rc->st->max_sequences; i++) {
		char why[SPARQ_ERROR_TEXT] = "";
		int r;

		if (!is_live(rc, i))
			continue;
		r = step(rc, i, why);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			lose_sequence(rc, i, why);
	}
	return 0;
}

/* What was being made or dropped belongs to nobody. */
static void end_halves(struct recovery *rc)
{
	for (uint32_t i = 0; i < rc->st->max_sequences; i++) {
		uint32_t state = recover_record(rc, i)->state;

		if (state != RECORD_LIVE && state != RECORD_FREE)
			catalogue_drop_sequence(rc->st->catalogue, i);
	}
}

static int build(struct recovery *rc, uint32_t slot, char *why)
{
	int r = recover_sequence(rc, slot, why);

	rc->count->sequences += r == 0;
	return r;
}

/* ---- all of it ---------------------------------------------------------------------- */

static int find_all(struct recovery *rc)
{
	uint32_t n_caches = catalogue_header(rc->st->catalogue)->n_caches;
	int r = 0;

	for (uint32_t i = 0; i < n_caches && r == 0; i++)
		r = find_cache(rc, i);
	if (r < 0)
		return r;
	end_halves(rc);
	POINT(recover_halves);
	r = each_sequence(rc, recover_check);
	POINT(recover_checked);
	if (r == 0)
		r = each_sequence(rc, recover_reaches);
	if (r < 0)
		return r;
	recover_tables(rc);
	r = each_sequence(rc, build);
	recover_sweep(rc);
	POINT(recover_built);
	return r;
}

int recover_store(struct store *st, struct recovered *ret)
{
	const struct catalogue_header *h = catalogue_header(st->catalogue);
	FREE_MEMORY struct cache **caches = calloc(h->n_caches, sizeof(struct cache *));
	FREE_MEMORY struct found_table *tables = calloc(h->n_blocks, sizeof(*tables));
	struct recovered count = { .caches = 0 };
	struct recovery rc = { .st = st, .cache = caches, .table = tables, .count = &count };
	int64_t from = clock_now_ns();
	int r;

	if (!caches || !tables)
		return -ENOMEM;
	/* Before the first is found, which is in use until its client had time to come back. */
	st->reattaching = true;
	r = find_all(&rc);
	if (r < 0)
		return r;
	count.bytes = load_relaxed(&st->pool->used_bytes);
	count.ns = (uint64_t)(clock_now_ns() - from);
	*ret = count;
	return 0;
}

uint32_t recover_expire(struct store *st)
{
	struct cache *c, *next_cache;
	uint32_t n = 0;

	st->reattaching = false;
	for (c = st->caches; c; c = next_cache) {
		struct seq *s, *next;
		bool drop = c->on_disconnect == ON_DISCONNECT_DROP;

		next_cache = c->next;
		c->n_sessions++; /* lives as long as this looks at it */
		for (s = c->first; s; s = next) {
			next = s->next;
			if ((drop || !seq_is_known(s)) && seq_expire(s))
				n++;
			else
				evict_place(s);
		}
		evict_allow(c);
		cache_leave(c);
	}
	return n;
}
