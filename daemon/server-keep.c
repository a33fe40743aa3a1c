/* SPDX-License-Identifier: Apache-2.0 */
/* What the end of this daemon means for what it holds, said when it comes near. */
#include <errno.h>
#include <inttypes.h>

#include "daemon/layer.h"
#include "daemon/notify.h"
#include "daemon/seq.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "shm/atomic.h"
#include "shm/base.h"

bool server_is_kept(const struct server *s)
{
	return keep_kind() != KEEP_NONE && !s->unkept;
}

struct holding {
	uint32_t caches;
	uint64_t sequences, rows; /* of all layers, as recovery counts them */
};

static void count_rows(const struct seq *q, struct holding *h)
{
	for (uint32_t i = 0; i < q->cache->record->layers; i++)
		h->rows += layer_commit(&q->layer[i]).rows;
}

static struct holding holding(const struct store *st)
{
	struct holding h = { 0 };

	for (const struct cache *c = st->caches; c; c = c->next) {
		h.caches++;
		h.sequences += c->n_sequences;
		for (const struct seq *q = c->first; q; q = q->next)
			count_rows(q, &h);
	}
	return h;
}

/* A stop and a restart end it in the same way, so the words are true of both. */
static const char *fate(const struct server *s)
{
	if (!server_is_kept(s))
		return "end with this daemon";
	return keep_kind() == KEEP_KEEPER
		       ? "stay with the keeper for the next start, the end of the keeper drops them"
		       : "stay with systemd for the next start, a stop of the unit drops them";
}

void server_tell_end(const struct server *s)
{
	struct holding h = holding(&s->store);

	if (s->refused)
		log_event(EVENT_STOPPING, NULL,
			  "stopping: the memory that was not touched stays with %s for the next "
			  "start, a stop drops it",
			  keep_kind_name(keep_kind()));
	else
		log_event(EVENT_STOPPING, NULL,
			  "stopping: %" PRIu32 " sessions to end; %" PRIu32 " caches, %" PRIu64
			  " sequences, %" PRIu64 " rows and %" PRIu64 " MiB of pages %s",
			  s->n_sessions, h.caches, h.sequences, h.rows,
			  load_relaxed(&s->placement.pool.used_bytes) / MIB, fate(s));
}

void server_feed_watchdog(struct server *s)
{
	if (notify_watchdog() != -ECONNREFUSED || s->unkept)
		return;
	s->unkept = true;
	log_event(EVENT_KEEPER_GONE, NULL, "%s is gone: KV ends with this daemon",
		  keep_kind_name(keep_kind()));
	server_changed(s);
}
