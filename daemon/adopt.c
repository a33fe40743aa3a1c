/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches and sequences taken over by what a client remembers of them: a name, or
 * the id, which holds across a restart. Who may not have one is told what he
 * would be told if it had never been.
 */
#include "daemon/cache.h"
#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/name.h"
#include "daemon/record.h"
#include "daemon/seq.h"
#include "daemon/spill.h"
#include "daemon/store.h"
#include "shm/atomic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

int cache_attach(struct store *s, const struct user *user, uint64_t id, const char *name,
		 struct cache **ret, char *why)
{
	struct cache *c;
	int r;

	if (id && *name)
		return why_fail(why, EINVAL, "cache %#" PRIx64 " and name \"%s\": one of them", id,
				name);
	r = id ? 0 : name_check("cache", name, why);
	if (r < 0)
		return r;
	c = id ? cache_find(s, user, id) : cache_find_named(s, user, name);
	if (!c && id)
		return why_fail(why, ENOENT, "there is no cache %#" PRIx64, id);
	if (!c)
		return why_fail(why, ENOENT, "there is no cache \"%s\"", name);
	/* Whose device cannot be opened is attached all the same: it has rows. */
	if (c->device && device_open(c->device, why) == DEVICE_LATER)
		return DEVICE_LATER;
	c->n_sessions++;
	*ret = c;
	return 0;
}

/* Parked, and here: it is the session's. `what` names it. */
static int take_over(struct seq *s, const char *what, uint64_t session, struct seq **ret, char *why)
{
	if (load_relaxed(&s->session))
		return why_fail(why, EBUSY, "sequence %s is attached to %s session", what,
				load_relaxed(&s->session) == session ? "this" : "another");
	*ret = s;
	if (!seq_is_here(s))
		return SEQ_ELSEWHERE;
	census_attach(s, session);
	evict_touch(s);
	return 0;
}

int seq_attach(struct cache *c, const char *name, uint64_t session, struct seq **ret, char *why)
{
	char quoted[sizeof(((struct sequence_record *)0)->name) + 2];
	struct seq *s;
	int r;

	r = seq_find_named(c, name, &s, why);
	if (r < 0)
		return r;
	snprintf(quoted, sizeof(quoted), "\"%s\"", name);
	return take_over(s, quoted, session, ret, why);
}

int seq_adopt(struct store *st, const struct user *user, uint64_t id, uint64_t session,
	      struct seq **ret, char *why)
{
	struct seq *s = NULL;
	char number[24];

	if (id && id_slot(id) < st->max_sequences)
		s = st->seq_by_slot[id_slot(id)];
	if (!s || s->id != id || s->cache->user != user || seq_is_prefix(s))
		return why_fail(why, ENOENT, "there is no sequence %#" PRIx64, id);
	snprintf(number, sizeof(number), "%#" PRIx64, id);
	return take_over(s, number, session, ret, why);
}
