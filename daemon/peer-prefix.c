/* SPDX-License-Identifier: Apache-2.0 */
/* What a client says of the tokens of its sequences, and asks for by them: see prefix.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer.h"
#include "daemon/prefix.h"
#include "daemon/seq-make.h"
#include "daemon/seq.h"
#include "shm/base.h"

/* Ids come by the arena: one message says as many as there are, and the daemon copies them once. */
static int copy_ids(const struct peer *p, uint64_t at, uint32_t n, uint32_t **ret, char *why)
{
	const struct session *session = p->session;
	uint64_t room = session->layout.arena_bytes, bytes = (uint64_t)n * sizeof(uint32_t);
	uint32_t *ids;

	if (n > SPARQ_MAX_TOKENS)
		return PEER_REFUSE(-EINVAL, "%" PRIu32 " token ids: at most %u in a message", n,
				   SPARQ_MAX_TOKENS);
	if (at % 16 || at > room || bytes > room - at)
		return PEER_REFUSE(-EINVAL,
				   "token ids at %#" PRIx64 ": %" PRIu64
				   " bytes in the arena, at a multiple of 16",
				   at, bytes);
	ids = malloc(MAX(bytes, 1u));
	if (!ids)
		return PEER_REFUSE(-ENOMEM, "out of memory");
	memcpy(ids, (const uint8_t *)session->segment.base + session->layout.arena_offset + at,
	       bytes);
	*ret = ids;
	return 0;
}

static int tell(struct seq *s, const struct sparq_msg_seq_tokens *request, const uint32_t *ids,
		uint32_t *ret_rows, char *why)
{
	uint32_t rows = 0;
	int r = tokens_put(s, request->row, ids, request->n_tokens, &rows);

	if (r == -ENODATA)
		return PEER_REFUSE(r,
				   "token ids of row %" PRIu32
				   ": those before it are not known; tell them from row %" PRIu32
				   " on",
				   request->row, rows);
	if (r == -EBUSY)
		return PEER_REFUSE(r, "the sequence was truncated at the same time");
	if (r < 0)
		return seq_fail_make(s->cache, r, &s->shortage, "token ids", why);
	*ret_rows = rows;
	return 0;
}

int peer_seq_tokens(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_tokens request = m->seq_tokens;
	struct store *st = &p->server->store;
	struct seq *s = seq_find(st, p->user, p->session->id, request.sequence);
	FREE_MEMORY uint32_t *ids = NULL;
	uint32_t rows = 0;
	int r;

	if (!s)
		return PEER_REFUSE(-ENOENT,
				   "sequence %#" PRIx64 ": this session has no such sequence",
				   request.sequence);
	if (request.row >= SPARQ_ROW_LIMIT - SPARQ_MAX_TOKENS)
		return PEER_REFUSE(-EINVAL, "row %" PRIu32 ": below %u", request.row,
				   SPARQ_ROW_LIMIT - SPARQ_MAX_TOKENS);
	r = copy_ids(p, request.tokens, request.n_tokens, &ids, why);
	if (r < 0)
		return r;
	if (s->cache->record->share) {
		do
			r = tell(s, &request, ids, &rows, why);
		while (r < 0 && peer_has_room(p, &r));
	}
	if (r)
		return r;
	message_reply(m, &request.head);
	m->seq.sequence = request.sequence;
	m->seq.rows = rows;
	return 0;
}

static struct cache *held_cache(const struct peer *p, uint64_t id)
{
	for (uint32_t i = 0; i < p->n_caches; i++)
		if (p->cache[i].cache->id == id)
			return p->cache[i].cache;
	return NULL;
}

int peer_seq_create_prefix(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_prefix request = m->seq_prefix;
	struct cache *c = held_cache(p, request.cache);
	FREE_MEMORY uint32_t *ids = NULL;
	struct seq *s = NULL;
	uint32_t rows = 0;
	int r;

	if (!c)
		return PEER_REFUSE(-ENOENT, "cache %#" PRIx64 ": this session has no such cache",
				   request.cache);
	r = copy_ids(p, request.tokens, request.n_tokens, &ids, why);
	if (r < 0)
		return r;
	do
		r = prefix_create(c, request.name, ids, request.n_tokens, p->session->id, &s, &rows,
				  why);
	while (r < 0 && peer_has_room(p, &r));
	if (r)
		return r;
	message_reply(m, &request.head);
	m->seq.sequence = s->id;
	m->seq.rows = rows;
	return 0;
}
