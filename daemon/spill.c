/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences on their way to files and back: see spill.h. Opened and closed: spill-open.c. */
#include "daemon/spill.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/spill-private.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"
#include "shm/probe.h"

#define OUT_MOST 16 /* spills at once: what they hold cannot be evicted meanwhile */
#define CALM_NS (60 * 1000000000ll)
#define TRIES_MOST 3

static struct sequence_record *record_of(const struct seq *s)
{
	return s->record;
}

static uint64_t spilled_word(const struct spill *sp, uint64_t number)
{
	return (uint64_t)sp->dir.id << SPILL_NUMBER_BITS | number;
}

/* It lies in the directory that this daemon has. */
static bool is_ours(const struct spill *sp, uint64_t spilled)
{
	return sp->disk && spilled >> SPILL_NUMBER_BITS == sp->dir.id;
}

/* ---- jobs ----------------------------------------------------------------------------- */

static struct spill_job *job_new(struct spill *sp, enum spill_way way, struct seq *s,
				 uint64_t number)
{
	struct spill_job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->spill = sp;
	j->way = way;
	j->number = number;
	j->file.seq = s;
	j->disk.arg = &j->file;
	j->disk.head_bytes = SEQUENCE_BLOCK;
	spill_dir_name(number, j->disk.name);
	j->link = &sp->jobs;
	j->next = sp->jobs;
	if (j->next)
		j->next->link = &j->next;
	sp->jobs = j;
	return j;
}

struct spill_job *spill_job_free(struct spill_job *j)
{
	if (!j)
		return NULL;
	*j->link = j->next;
	if (j->next)
		j->next->link = j->link;
	spill_file_deinit(&j->file);
	free(j);
	return NULL;
}

static void tell_changed(const struct spill *sp)
{
	if (sp->hooks.changed)
		sp->hooks.changed(sp->hooks.arg);
}

static unsigned jobs_of(const struct spill *sp, enum spill_way way)
{
	unsigned n = 0;

	for (const struct spill_job *j = sp->jobs; j; j = j->next)
		n += j->way == way;
	return n;
}

static void wake(struct spill *sp, struct spill_wait *waiting, int error, const char *why)
{
	struct spill_wait *w;

	/* One that is told may be the end of another. */
	assert(!sp->waking);
	sp->waking = waiting;
	while ((w = sp->waking)) {
		sp->waking = w->next;
		*w = (struct spill_wait){ .done = w->done };
		w->done(w, error, why);
	}
}

static bool unlink_wait(struct spill_wait **at, const struct spill_wait *w)
{
	while (*at && *at != w)
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = w->next;
	return true;
}

/* What went wrong, in words; the file's name, not where the directory is: clients read it. */
static void tell(const struct spill_job *j, char *ret)
{
	const struct disk_job *d = &j->disk;

	if (j->file.why[0])
		snprintf(ret, SPARQ_ERROR_TEXT, "%s in spill_dir: %.180s", d->name, j->file.why);
	else
		snprintf(ret, SPARQ_ERROR_TEXT, "%s in spill_dir: %s at offset %" PRIu64 ": %s",
			 d->name, d->what, d->error_at, strerror(-d->error));
}

static void say_failed(struct spill *sp, const struct spill_job *j, const char *what,
		       const char *stays)
{
	char why[SPARQ_ERROR_TEXT];

	sp->stat.failed++;
	if (log_limited(&sp->log))
		return;
	tell(j, why);
	log_event(EVENT_SPILL_FAILED,
		  ABOUT(.uid = &j->file.seq->cache->user->uid, .sequence = j->file.seq->id,
			.cache = j->file.seq->cache->record->name),
		  "sequence \"%s\" of uid %u is not %s: %s; it stays %s (spill_dir = %s)",
		  record_of(j->file.seq)->name, j->file.seq->cache->user->uid, what, why, stays,
		  sp->config->spill_dir);
}

/* ---- charges -------------------------------------------------------------------------- */

static int charge(struct spill *sp, struct seq *s, uint64_t bytes)
{
	uint64_t limit = sp->config->spill_bytes ? sp->config->spill_bytes : UINT64_MAX;

	if (sp->stat.bytes > limit || bytes > limit - sp->stat.bytes)
		return -ENOSPC;
	if (user_charge(s->cache->user, USER_SPILLED, bytes) < 0)
		return -EDQUOT;
	sp->stat.bytes += bytes;
	s->spilled_bytes = bytes;
	return 0;
}

static void refund(struct spill *sp, struct seq *s)
{
	user_refund(s->cache->user, USER_SPILLED, s->spilled_bytes);
	sp->stat.bytes -= s->spilled_bytes;
	s->spilled_bytes = 0;
}

/* ---- out ------------------------------------------------------------------------------ */

/* The pages go; what it says of its rows stays. The record says already that it is elsewhere, so
 * none of this matters to a crash. */
static void empty(struct seq *s)
{
	for (uint32_t i = 0; i < record_of(s)->layers; i++) {
		struct seq_layer *l = &s->layer[i];

		layer_clear(s, l);
		layer_publish(l, (struct commit){ 0, 0 });
		layer_init(s, l, l->record);
	}
}

static int begin_out(struct spill *sp, struct seq *s)
{
	struct spill_job *j;
	int r;

	j = job_new(sp, SPILL_OUT, s, sp->dir.next);
	if (!j)
		return -ENOMEM;
	r = image_open_uncharged(s, &j->file.image, j->file.why);
	/* Nothing goes that could not come back. */
	if (r == 0)
		r = sequence_image_check(image_head(j->file.image), image_bytes(j->file.image),
					 j->file.why);
	if (r == 0) {
		char writer[32];

		spill_file_writer(s, writer);
		sequence_file_plan(image_bytes(j->file.image), (uint64_t)time(NULL), writer,
				   &j->file.head);
		r = charge(sp, s, j->file.head.file_bytes);
	}
	if (r < 0) {
		spill_job_free(j);
		return r;
	}
	sp->dir.next++;
	s->spilling = j;
	evict_displace(s);
	j->disk.op = DISK_WRITE;
	j->disk.group = s->cache->user->uid;
	j->disk.bytes = j->file.head.file_bytes;
	j->disk.move = spill_file_write;
	disk_submit(sp->disk, &j->disk);
	tell_changed(sp);
	return 0;
}

int spill_sequence(struct spill *sp, struct seq *s)
{
	int r;

	if (!sp || !sp->disk || clock_now_ns() < sp->calm_ns)
		return -EOPNOTSUPP;
	if (jobs_of(sp, SPILL_OUT) >= OUT_MOST)
		return -EAGAIN;
	if (load_relaxed(&s->session) || !seq_is_here(s) || !seq_try_control(s))
		return -EBUSY;
	r = begin_out(sp, s);
	if (r < 0)
		seq_end_control(s);
	return r;
}

static void record_out(struct spill *sp, struct spill_job *j)
{
	struct seq *s = j->file.seq;

	for (uint32_t i = 0; i < record_of(s)->layers; i++)
		s->layer[i].record->spilled_rows = layer_commit(&s->layer[i]).rows;
	POINT(spill_written);
	/* The file and the rows are there before the word that names them. */
	store_release(&record_of(s)->spilled, spilled_word(sp, j->number));
	POINT(spill_recorded);
	empty(s);
	census_moved(s);
	POINT(spill_emptied);
	sp->stat.sequences++;
	sp->stat.spilled++;
	sp->stat.spilled_bytes += j->disk.bytes;
	sp->stat.spilled_ns += (uint64_t)j->disk.ns;
	PROBE4(spill, s->id, s->cache->user->uid, j->disk.bytes, j->way);
}

static int begin_in(struct spill *sp, struct seq *s, struct spill_wait *waiting, char *why);

static void end_out(struct spill *sp, struct spill_job *j)
{
	struct spill_wait *waiting = STEAL_PTR(j->waiting);
	char why[SPARQ_ERROR_TEXT] = "";
	struct seq *s = j->file.seq;
	int error = j->disk.error;

	/* It refers to pages of the sequence. */
	j->file.image = image_close(j->file.image);
	if (error == 0) {
		record_out(sp, j);
	} else {
		refund(sp, s);
		evict_allow(s->cache);
		if (error != -ECANCELED) {
			say_failed(sp, j, "spilled", "in memory");
			sp->calm_ns = clock_now_ns() + CALM_NS;
		}
	}
	s->spilling = NULL;
	evict_place(s);
	spill_job_free(j);
	seq_end_control(s);
	if (!waiting)
		return;
	/* Wanted back before it was gone, or after all. */
	error = seq_is_spilled(s) ? begin_in(sp, s, waiting, why) : 0;
	if (error < 0 || !seq_is_spilled(s))
		wake(sp, waiting, error, why);
}

/* ---- in ------------------------------------------------------------------------------- */

static void submit_in(struct spill_job *j)
{
	j->disk.op = DISK_READ;
	j->disk.group = j->file.seq->cache->user->uid;
	j->disk.opened = spill_file_opened;
	j->disk.move = spill_file_read;
	j->file.why[0] = '\0';
	j->tries++;
	disk_submit(j->spill->disk, &j->disk);
}

static int check_reachable(const struct spill *sp, const struct seq *s, char *why)
{
	uint64_t spilled = record_of(s)->spilled;

	if (sp && is_ours(sp, spilled))
		return 0;
	return why_fail(why, EIO,
			"the sequence lies in %llu.seq of spill directory %06llx, which this "
			"daemon does not have: start it with that spill_dir",
			(unsigned long long)(spilled & SPILL_NUMBER_MASK),
			(unsigned long long)(spilled >> SPILL_NUMBER_BITS));
}

/* On failure `waiting` is still the caller's. */
static int begin_in(struct spill *sp, struct seq *s, struct spill_wait *waiting, char *why)
{
	struct spill_job *j;
	int r;

	r = check_reachable(sp, s, why);
	if (r < 0)
		return r;
	j = job_new(sp, SPILL_IN, s, record_of(s)->spilled & SPILL_NUMBER_MASK);
	if (!j)
		return why_fail(why, ENOMEM, "out of memory");
	/* Parked: nobody is in it, but for a worker that is about to find that. */
	while (!seq_try_control(s))
		sched_yield();
	s->spilling = j;
	evict_displace(s);
	j->waiting = waiting;
	submit_in(j);
	tell_changed(sp);
	return 0;
}

/* A file that nothing needs any more; what cannot be removed now is at the next start. */
static void remove_file(struct spill *sp, uint64_t number, uint32_t group)
{
	struct spill_job *j = job_new(sp, SPILL_REMOVE, NULL, number);

	if (!j)
		return;
	j->disk.op = DISK_REMOVE;
	j->disk.group = group;
	disk_submit(sp->disk, &j->disk);
}

static void record_in(struct spill *sp, struct spill_job *j)
{
	struct seq *s = j->file.seq;

	POINT(spill_loaded);
	/* All its rows are in the pool before the word that says so. */
	store_release(&record_of(s)->spilled, 0);
	POINT(spill_forgotten);
	census_moved(s);
	/* Else it would be the first to go again. */
	store_relaxed(&record_of(s)->used_s, (uint64_t)time(NULL));
	refund(sp, s);
	evict_allow(s->cache);
	sp->stat.sequences--;
	sp->stat.loaded++;
	sp->stat.loaded_bytes += j->disk.bytes;
	sp->stat.loaded_ns += (uint64_t)j->disk.ns;
	PROBE4(spill, s->id, s->cache->user->uid, j->disk.bytes, j->way);
	remove_file(sp, j->number, s->cache->user->uid);
}

/* What a client is told: no room stays no room, all else is the file's fault. */
static int fail_in(struct spill *sp, struct spill_job *j, char *why)
{
	int error = j->disk.error;

	say_failed(sp, j, "loaded", "spilled");
	tell(j, why);
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -ENOMEM:
		return error;
	default:
		return -EIO;
	}
}

/* Is there room now, or soon, so that it is worth trying again? Then it is, or will be. */
static bool again(struct spill *sp, struct spill_job *j)
{
	struct seq *s = j->file.seq;
	struct shortage wanted = s->shortage;
	enum evicted got;

	if (j->disk.error != -ENOSPC || !sp->hooks.make_room)
		return false;
	/* It begins anew: room for all of it, not for the page that it came to. */
	wanted.bytes = MAX(wanted.bytes, s->spilled_bytes);
	got = sp->hooks.make_room(sp->hooks.arg, s->cache->user, &wanted);
	j->stalled = got == EVICTED_LATER;
	if (j->stalled)
		return true;
	if (got == EVICTED_NOTHING || j->tries >= TRIES_MOST)
		return false;
	submit_in(j);
	return true;
}

static void end_in(struct spill *sp, struct spill_job *j)
{
	struct spill_wait *waiting = STEAL_PTR(j->waiting);
	char why[SPARQ_ERROR_TEXT] = "";
	struct seq *s = j->file.seq;
	int error = j->disk.error;

	/* Gives back the pages of one that did not end. */
	spill_file_deinit(&j->file);
	j->waiting = waiting;
	if (error < 0 && again(sp, j))
		return;
	j->waiting = NULL;
	if (error == 0)
		record_in(sp, j);
	else
		error = fail_in(sp, j, why);
	s->spilling = NULL;
	evict_place(s);
	spill_job_free(j);
	seq_end_control(s);
	wake(sp, waiting, error, why);
}

static void try_stalled(struct spill *sp)
{
	for (struct spill_job *j = sp->jobs; j; j = j->next)
		if (j->stalled) {
			j->stalled = false;
			j->tries = 0; /* something has come of it */
			submit_in(j);
		}
}

int spill_load(struct spill *sp, struct seq *s, char *why)
{
	struct spill_job *j = s->spilling;

	if (j && j->way == SPILL_OUT)
		disk_cancel(sp->disk, &j->disk);
	if (j || !seq_is_spilled(s))
		return 0;
	return begin_in(sp, s, NULL, why);
}

int spill_await(struct spill *sp, struct seq *s, struct spill_wait *w, char *why)
{
	struct spill_job *j;
	int r;

	assert(!w->seq && !seq_is_here(s));
	r = spill_load(sp, s, why);
	if (r < 0)
		return r;
	j = s->spilling;
	w->seq = s;
	w->next = j->waiting;
	j->waiting = w;
	return 0;
}

void spill_leave(struct spill_wait *w)
{
	struct spill *sp = w->seq ? w->seq->cache->store->spill : NULL;
	struct spill_job *j = sp ? w->seq->spilling : NULL;

	if (sp && !(j && unlink_wait(&j->waiting, w)))
		unlink_wait(&sp->waking, w);
	w->seq = NULL;
	w->next = NULL;
}

uint64_t spill_leaving(const struct spill *sp, const struct user *u, const struct cache *c)
{
	uint64_t bytes = 0;

	for (const struct spill_job *j = sp ? sp->jobs : NULL; j; j = j->next) {
		const struct seq *s = j->file.seq;

		if (j->way == SPILL_OUT && (c ? s->cache == c : s->cache->user == u))
			bytes += load_relaxed(&s->bytes);
	}
	return bytes;
}

void spill_forget(struct spill *sp, struct seq *s)
{
	uint64_t spilled = record_of(s)->spilled;

	assert(!s->spilling && spilled);
	if (!sp)
		return;
	if (!is_ours(sp, spilled)) {
		sp->stat.away--;
		return;
	}
	refund(sp, s);
	sp->stat.sequences--;
	remove_file(sp, spilled & SPILL_NUMBER_MASK, s->cache->user->uid);
}

void spill_progress(const struct seq *s, uint64_t *ret_bytes, uint64_t *ret_done)
{
	const struct spill_job *j = s->spilling;

	/* Of one that is about to be opened nothing is known but what is charged for it. */
	*ret_bytes = s->spilled_bytes;
	*ret_done = j ? load_relaxed(&j->disk.moved) : 0;
}

/* ---- ends ------------------------------------------------------------------------------ */

static void end_remove(struct spill *sp, struct spill_job *j)
{
	int error = j->disk.error;

	if (error && error != -ENOENT && !log_limited(&sp->log))
		log_warning("spill_dir = %s: %s cannot be removed: %s", sp->config->spill_dir,
			    j->disk.name, strerror(-error));
	spill_job_free(j);
}

void spill_ended(struct spill *sp)
{
	struct disk_job *d;
	bool spilled = false;

	while ((d = disk_fetch(sp->disk))) {
		struct spill_job *j = container_of(d, struct spill_job, disk);

		spilled |= j->way == SPILL_OUT;
		switch (j->way) {
		case SPILL_OUT:
			end_out(sp, j);
			break;
		case SPILL_IN:
			end_in(sp, j);
			break;
		case SPILL_REMOVE:
			end_remove(sp, j);
			break;
		}
	}
	if (spilled)
		try_stalled(sp);
	tell_changed(sp);
}
