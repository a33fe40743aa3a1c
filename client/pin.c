/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon is not to evict. */
#include "client/object.h"
#include "client/private.h"

int sparq_seq_pin(sparq_seq *s, int pinned)
{
	union message m;

	if (!(conn_features(s->h.c) & SPARQ_FEATURE_EVICT))
		return conn_fail(s->h.c, -EOPNOTSUPP, "this daemon never evicts a sequence");
	message_init(&m, SPARQ_MSG_SEQ_PIN);
	m.seq.rows = pinned != 0;
	return conn_call_of(&s->h, &m);
}
