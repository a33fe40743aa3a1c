/* SPDX-License-Identifier: Apache-2.0 */
/* What a client keeps from being evicted. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "daemon/evict.h"
#include "daemon/peer.h"

int peer_seq_pin(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct seq *s = seq_find(&p->server->store, p->user, p->session->id, request.sequence);

	if (!s)
		return PEER_REFUSE(-ENOENT,
				   "sequence %#" PRIx64 ": this session has no such sequence",
				   request.sequence);
	if (request.rows > 1)
		return PEER_REFUSE(-EINVAL, "%" PRIu64 ": 1 pins a sequence, 0 lets it go",
				   request.rows);
	evict_pin(s, request.rows);
	message_reply(m, &request.head);
	m->seq.sequence = request.sequence;
	m->seq.rows = request.rows;
	return 0;
}
