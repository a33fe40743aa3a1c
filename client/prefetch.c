/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence that the daemon has put on its disk is wanted soon. */
#include "client/object.h"
#include "client/private.h"
#include "shm/base.h"

/* A hundredth of an integer that may be any: no product that overflows. */
static int percent(uint64_t done, uint64_t all)
{
	return all ? (int)MIN(done / (all / 100 + 1), 99) : 100;
}

int sparq_seq_prefetch(sparq_cache *k, const char *name)
{
	union message m;
	int r;

	if (!name || !*name)
		return conn_fail(k->h.c, -EINVAL, "only a sequence with a name can be prefetched");
	if (!(conn_features(k->h.c) & SPARQ_FEATURE_PREFETCH))
		return conn_fail(k->h.c, -EOPNOTSUPP, "this daemon knows no SEQ_PREFETCH");
	message_init(&m, SPARQ_MSG_SEQ_PREFETCH);
	r = conn_string(k->h.c, "name", name, m.seq_create.name, sizeof(m.seq_create.name));
	if (r == 0)
		r = conn_call_of(&k->h, &m);
	return r < 0 ? r : percent(m.seq_prefetch.bytes_done, m.seq_prefetch.bytes);
}
