/* SPDX-License-Identifier: Apache-2.0 */
/* What a client asks for that is not in memory: spill.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "daemon/peer.h"
#include "daemon/seq.h"

/* Answered at once: whoever wants to wait attaches. */
int peer_seq_prefetch(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_create request = m->seq_create;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	struct spill *sp = p->server->store.spill;
	struct sparq_msg_seq_stat stat;
	struct seq *s;
	int r;

	if (!held)
		return peer_no_cache(request.cache, why);
	r = seq_find_named(held->cache, request.name, &s, why);
	if (r == 0 && !seq_is_here(s))
		r = spill_load(sp, s, why);
	if (r == 0)
		r = seq_stat(s, SPARQ_LAYER_ALL, &stat);
	if (r < 0)
		return r;
	message_reply(m, &request.head);
	m->seq_prefetch.sequence = s->id;
	m->seq_prefetch.rows = stat.rows_least;
	if (!seq_is_here(s))
		spill_progress(s, &m->seq_prefetch.bytes, &m->seq_prefetch.bytes_done);
	return 0;
}
