/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and unmaking of sequences: what creating, forking and dropping have in
 * common. Control thread.
 *
 *   seq_make --> (filled: nobody can see it) --> seq_publish --> seen by its id
 */
#pragma once

#include "daemon/seq.h"

/* An empty sequence, its record BUILDING. */
int seq_make(struct cache *c, const char *name, unsigned node, struct seq **ret, char *why);
/* On the node whose turn it is. */
int seq_make_next(struct cache *c, const char *name, struct seq **ret, char *why);
/* A name that a new one may have: "" or one that no other has. -EINVAL, -EEXIST. */
int seq_check_new(struct cache *c, const char *name, char *why);
/* What is out of it, back; the record FREE again. Takes half-built ones. */
void seq_unmake(struct seq *s);
/* Its record LIVE, itself in the cache's list, its id valid. */
void seq_publish(struct seq *s, uint64_t session);
/* Says what could not be had for `what`, and leaves the limit where who can make room finds it. */
int seq_fail_make(struct cache *c, int error, const struct shortage *s, const char *what,
		  char *why);
/* The same for one that was made in part: it is unmade, and all that it had is wanted again. */
int seq_fail_made(struct seq *s, int error, const char *what, char *why);
/* One that begins with the first `rows` rows of `parent`, which the caller holds; not published. */
int seq_fork_held(struct seq *parent, const char *name, uint32_t rows, struct seq **ret, char *why);

/* seq_create in two steps, for one that is filled in between: nobody sees it, its record is
 * BUILDING, and the cache can neither go nor change. -EEXIST at the end if its name was taken
 * meanwhile; then it is still to be dropped. */
int seq_build(struct cache *c, const char *name, struct seq **ret, char *why);
int seq_build_end(struct seq *s, uint64_t session, char *why);
void seq_build_drop(struct seq *s);
/* It has no name any more, but these flags; the caller holds it. A crash meanwhile loses it. */
void seq_unname(struct seq *s, uint32_t flags);

/* After a restart (recover.h): the heap's part of a record that was checked, holding and charged
 * nothing yet, its layers without records; -ENOMEM. Then it is parked, or unmade. */
int seq_revive(struct cache *c, uint32_t slot, struct seq **ret);
void seq_park(struct seq *s);

/* As seq_try_control, with words. */
int seq_take_control(struct seq *s, char *why);
/* Drops one that the caller has taken for a control call. */
void seq_remove(struct seq *s);
/* Holds one that others use, for as long as a fork takes: they wait, and are not told of it. False:
 * they did not let go of it before `until_ns` (clock_now_ns). */
bool seq_try_borrow(struct seq *s, int64_t until_ns);
void seq_end_borrow(struct seq *s);
/* Committed in every layer. */
uint32_t seq_least_rows(const struct seq *s);
