/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cold sequences in files of one directory, and back: sparqd.conf(5), spill_dir.
 *
 *   in memory --(spilling: held, its image written)--> file whole and fsynced
 *             --(record->spilled = file)--> pages given back: spilled
 *   spilled   --(loading: held, its image read and compared)--> pages filled
 *             --(record->spilled = 0)--> in memory, file removed
 *
 * Each arrow in brackets is one store to the record, so a crash finds the sequence
 * in memory or in its file, never in neither. Recovery takes the record's word: what a
 * spilled one's layers say is nothing, a file that no record names is removed.
 *
 * Only a parked sequence (session 0) is spilled. Who wants to attach to one that is not
 * in memory waits (struct spill_wait) until it is: a spill under way is cancelled for it. What a
 * fork shares with others stays with them; only this one's references go, and what is loaded has
 * pages of its own. What a client made spill is charged to its user (USER_SPILLED).
 *
 * The disk's thread moves the bytes (disk.h), the hold makes it their only reader or
 * writer; all else is the control thread's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/config.h"
#include "daemon/evict.h"
#include "daemon/loop.h"
#include "daemon/record.h"
#include "daemon/seq.h"

/* record->spilled: which directory, and which file there. So that a daemon that was given another
 * directory does not take its files for those. */
#define SPILL_NUMBER_BITS 40
#define SPILL_NUMBER_MASK ((1ull << SPILL_NUMBER_BITS) - 1)

struct spill;

/* Somebody who cannot go on before a sequence is in memory. */
struct spill_wait {
	/* Once, unless spill_leave came before: 0, or -errno with `why`. */
	void (*done)(struct spill_wait *w, int error, const char *why);
	struct spill_wait *next;
	struct seq *seq; /* NULL: waits for nothing */
};
#define SPILL_WAIT_NULL ((struct spill_wait){ .seq = NULL })

/* Opens the directory of `config`, which it reads anew whenever it needs it. What is wrong with it
 * is logged, and then, as with an empty spill_dir, nothing is spilled; what was, stays. -ENOMEM. */
int spill_open(struct store *st, struct loop *loop, const struct config *config,
	       struct spill **ret);
/* For whom it belongs to; any may be NULL. */
struct spill_hooks {
	void (*changed)(void *arg); /* something began or ended */
	/* A user lacks room for what is to be loaded. LATER: when something was spilled. */
	enum evicted (*make_room)(void *arg, struct user *u, const struct shortage *s);
	void *arg;
};
void spill_hook(struct spill *sp, const struct spill_hooks *hooks);
/* Ends what is under way; before the store. */
struct spill *spill_close(struct spill *sp);

/* ---- after a restart ------------------------------------------------------------- */

/* A sequence whose record says that it is spilled: its layers have their records, and no page.
 * Takes it over; -errno with `why`: it is lost, and its record names no file any more. A file that
 * cannot be right is renamed to NUMBER.seq.bad. */
int spill_adopt(struct spill *sp, struct seq *s, char *why);
/* All were taken over: removes the files that nobody has. */
void spill_adopted(struct spill *sp);

/* ---- sequences -------------------------------------------------------------------- */

static inline bool seq_is_spilled(const struct seq *s)
{
	return ((const struct sequence_record *)s->record)->spilled != 0;
}
/* In memory, and to stay there for as long as the control thread does not return to its loop. */
static inline bool seq_is_here(const struct seq *s)
{
	return !s->spilling && !seq_is_spilled(s);
}

/* Begins to spill a parked sequence; its room comes later. -EBUSY: attached, in use, not in memory;
 * -EAGAIN: enough are under way; -EOPNOTSUPP: there is no directory; -ENOSPC, -EDQUOT: it is full,
 * or the user's part of it. */
int spill_sequence(struct spill *sp, struct seq *s);
/* Begins to load one; 0 also if that was begun before, or it is in memory. -EIO with `why`. */
int spill_load(struct spill *sp, struct seq *s, char *why);
/* The same for who has to wait for it. */
int spill_await(struct spill *sp, struct seq *s, struct spill_wait *w, char *why);
void spill_leave(struct spill_wait *w);
/* Bytes in memory of sequences that are on their way to a file: of the cache; NULL: of the user. */
uint64_t spill_leaving(const struct spill *sp, const struct user *u, const struct cache *c);
/* A spilled sequence is dropped: so is its file. */
void spill_forget(struct spill *sp, struct seq *s);
/* Of what is under way: bytes of the file, and how many have passed. */
void spill_progress(const struct seq *s, uint64_t *ret_bytes, uint64_t *ret_done);

/* ---- asking ----------------------------------------------------------------------- */

struct spill_stat {
	const char *directory, *engine;                  /* "": none is used */
	uint64_t sequences, bytes, limit_bytes;          /* that are there; limit 0: none */
	uint64_t away;                                   /* sequences of another directory */
	unsigned out, in;                                /* under way, waiting ones too */
	uint64_t out_bytes, out_done, in_bytes, in_done; /* of those */
	uint64_t spilled, loaded, failed;                /* since the start */
	uint64_t spilled_bytes, loaded_bytes, spilled_ns, loaded_ns;
};
struct spill_stat spill_stat(const struct spill *sp);
/* ", 3 sequences (1.2 GiB) spilled, loading 1: 34 %": the end of a sentence, or nothing. */
int spill_sentence(const struct spill *sp, char *ret, size_t n);
