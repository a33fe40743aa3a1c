/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is spilled ahead of need, what a restart finds spilled, and how it all
 * stands.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/evict-order.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/spill-private.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define SWEEP_NS 1000000000ull
#define SWEEP_FAILURES 8u
#define SWEEP_SLOTS 4096u /* looked at in one go: max_sequences may be millions */

/* ---- ahead of need -------------------------------------------------------------------- */

static bool is_idle(const struct spill *sp, struct seq *s, uint64_t now_s)
{
	struct sequence_record *r = s->record;
	uint64_t used_s = load_relaxed(&r->used_s);

	/* A prefix is there to be shared, a pinned one to stay, and one that nobody wants parked
	 * is about to go. */
	if (r->flags & (SEQUENCE_PREFIX | SEQUENCE_PINNED) ||
	    s->cache->on_disconnect != ON_DISCONNECT_PARK)
		return false;
	/* Only a restart has ended its session, which is about to come back. */
	if (r->flags & SEQUENCE_IN_USE && s->cache->store->reattaching)
		return false;
	if (!used_s || used_s > now_s) {
		evict_displace(s); /* it stands where its last use says */
		store_relaxed(&r->used_s, now_s); /* counts from now on */
		evict_place(s);
		return false;
	}
	return now_s - used_s >= sp->config->spill_idle_s;
}

/* 0, or why it is not on its way. */
static int sweep_slot(struct spill *sp, uint32_t slot, uint64_t now_s)
{
	struct seq *s = sp->store->seq_by_slot[slot];

	if (!s || !load_relaxed(&s->id) || load_relaxed(&s->session) || !seq_is_here(s) ||
	    !is_idle(sp, s, now_s))
		return 0;
	return spill_sequence(sp, s);
}

static void on_sweep(void *arg)
{
	struct spill *sp = arg;
	uint32_t slots = sp->config->spill_idle_s ? MIN(sp->store->max_sequences, SWEEP_SLOTS) : 0;
	uint64_t now_s = (uint64_t)time(NULL);
	unsigned failures = 0;

	/* Where there is no room every one of them fails: not more than a few in a second. */
	for (uint32_t n = 0; n < slots && failures < SWEEP_FAILURES; n++) {
		int r = sweep_slot(sp, sp->sweep_slot, now_s);

		if (r == -EAGAIN || r == -EOPNOTSUPP)
			break;
		failures += r < 0;
		sp->sweep_slot = (sp->sweep_slot + 1) % sp->store->max_sequences;
	}
	loop_timer_set(sp->loop, &sp->sweep, SWEEP_NS, on_sweep, sp);
}

void spill_sweep_start(struct spill *sp)
{
	loop_timer_set(sp->loop, &sp->sweep, SWEEP_NS, on_sweep, sp);
}

/* ---- after a restart -------------------------------------------------------------------- */

static int note_adopted(struct spill *sp, uint64_t number)
{
	size_t room = MAX(2 * sp->adopted_room, 64u);
	uint64_t *adopted;

	if (sp->n_adopted == sp->adopted_room) {
		adopted = realloc(sp->adopted, room * sizeof(*adopted));
		if (!adopted)
			return -ENOMEM;
		sp->adopted = adopted;
		sp->adopted_room = room;
	}
	sp->adopted[sp->n_adopted++] = number;
	return 0;
}

/* What its layers say besides is of a spill or a load that a crash cut short: nothing of it is
 * marked, so nothing of it may be given back, of a sequence that is dropped either. */
static int forget_pages(struct seq *s, char *why)
{
	const struct sequence_record *r = s->record;
	int error = 0;

	for (uint32_t i = 0; i < r->layers; i++) {
		struct layer_record *l = s->layer[i].record;
		uint32_t rows = l->spilled_rows;

		if (rows >= SPARQ_ROW_LIMIT)
			error = why_fail(why, EUCLEAN,
					 "layer %" PRIu32 ": its row count is damaged", i);
		*l = (struct layer_record){ .spilled_rows = rows };
		layer_init(s, &s->layer[i], l);
	}
	return error;
}

int spill_adopt(struct spill *sp, struct seq *s, char *why)
{
	struct sequence_record *r = s->record;
	uint64_t number = r->spilled & SPILL_NUMBER_MASK;
	struct sequence_file head;
	int error;

	error = forget_pages(s, why);
	if (error == 0 && (!sp || !sp->disk || r->spilled >> SPILL_NUMBER_BITS != sp->dir.id)) {
		if (sp)
			sp->stat.away++;
		return 0;
	}
	if (error == 0)
		error = spill_dir_look(&sp->dir, number, &head, why);
	if (error == 0 && note_adopted(sp, number) < 0)
		error = why_fail(why, ENOMEM, "out of memory");
	if (error < 0) {
		r->spilled = 0; /* whoever drops it is not to give back what it never had */
		return error;
	}
	/* There already, whatever the limits say today. */
	s->spilled_bytes = head.file_bytes;
	fetch_add(&s->cache->user->charged[USER_SPILLED], head.file_bytes);
	sp->stat.bytes += head.file_bytes;
	sp->stat.sequences++;
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void spill_adopted(struct spill *sp)
{
	unsigned removed;

	if (sp->disk) {
		if (sp->n_adopted)
			qsort(sp->adopted, sp->n_adopted, sizeof(*sp->adopted), compare_numbers);
		removed = spill_dir_clean(&sp->dir, sp->adopted, sp->n_adopted);
		if (sp->n_adopted || removed)
			log_notice("spill_dir = %s: %" PRIu64 " sequences, %.1f GiB; removed %u "
				   "files that no sequence has",
				   sp->config->spill_dir, sp->stat.sequences,
				   (double)sp->stat.bytes / (double)GIB, removed);
	}
	if (sp->stat.away)
		log_event(EVENT_SPILL_AWAY, NULL,
			  "%" PRIu64 " sequences lie in another spill directory: start the daemon "
			  "with that spill_dir, or they cannot be attached",
			  sp->stat.away);
	free(sp->adopted);
	sp->adopted = NULL;
	sp->n_adopted = sp->adopted_room = 0;
}

/* ---- asking --------------------------------------------------------------------------- */

static void add_job(struct spill_stat *stat, const struct spill_job *j)
{
	uint64_t bytes, done;

	if (j->way == SPILL_REMOVE)
		return;
	spill_progress(j->file.seq, &bytes, &done);
	if (j->way == SPILL_OUT) {
		stat->out++;
		stat->out_bytes += bytes;
		stat->out_done += done;
	} else {
		stat->in++;
		stat->in_bytes += bytes;
		stat->in_done += done;
	}
}

struct spill_stat spill_stat(const struct spill *sp)
{
	struct spill_stat stat = { .directory = "", .engine = "" };

	if (!sp)
		return stat;
	stat = sp->stat;
	stat.directory = sp->disk ? sp->config->spill_dir : "";
	stat.engine = sp->disk ? disk_made(sp->disk).engine : "";
	stat.limit_bytes = sp->config->spill_bytes;
	for (const struct spill_job *j = sp->jobs; j; j = j->next)
		add_job(&stat, j);
	return stat;
}

static unsigned percent(uint64_t done, uint64_t all)
{
	return all ? (unsigned)(MIN(done, all) * 100 / all) : 0;
}

int spill_sentence(const struct spill *sp, char *ret, size_t n)
{
	struct spill_stat stat = spill_stat(sp);
	size_t at = 0;

	if (n)
		ret[0] = '\0';
	if (stat.sequences + stat.away)
		at = (size_t)snprintf(ret, n, ", %" PRIu64 " sequences (%.1f GiB) spilled",
				      stat.sequences + stat.away, (double)stat.bytes / (double)GIB);
	if (stat.out && at < n)
		at += (size_t)snprintf(ret + at, n - at, ", spilling %u: %u %%", stat.out,
				       percent(stat.out_done, stat.out_bytes));
	if (stat.in && at < n)
		at += (size_t)snprintf(ret + at, n - at, ", loading %u: %u %%", stat.in,
				       percent(stat.in_done, stat.in_bytes));
	if (stat.away && at < n)
		at += (size_t)snprintf(ret + at, n - at, ", %" PRIu64 " in another spill_dir",
				       stat.away);
	return (int)at;
}
