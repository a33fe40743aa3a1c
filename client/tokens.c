/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens rows are of: told to the daemon, so that sequences may begin with each other's. */
#include <stdio.h>

#include "client/object.h"
#include "client/private.h"

#define PIECE 65536u /* ids of a message that need not have all of them: 256 KiB of the arena */

static int check(sparq *c, const uint32_t *tokens, size_t n)
{
	if (!(conn_features(c) & SPARQ_FEATURE_TOKENS))
		return conn_fail(c, -EOPNOTSUPP, "this daemon knows nothing of tokens");
	if (n && !tokens)
		return conn_fail(c, -EINVAL, "%zu tokens, and no ids", n);
	if (n > SPARQ_ROW_LIMIT)
		return conn_fail(c, -EINVAL, "%zu tokens: at most %u", n, SPARQ_ROW_LIMIT);
	return 0;
}

/* A request whose ids lie in the arena for as long as it takes. */
static int call(struct handle *of, union message *m, const uint32_t *tokens, uint32_t n,
		uint64_t *at, struct handle *made, struct handle **list)
{
	struct payload payload = { .data = tokens, .bytes = n * sizeof(*tokens) };
	sparq_buf *buf;
	int r = sparq_buf_alloc(of->c, MAX(payload.bytes, 1u), &buf);

	if (r < 0)
		return r;
	*at = payload.offset = sparq_buf_addr(buf);
	r = conn_call_with(of, m, &payload, made, list);
	sparq_buf_unref(buf);
	return r;
}

static int tell(sparq_seq *s, uint32_t row, const uint32_t *tokens, uint32_t n)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_TOKENS);
	m.seq_tokens.row = row;
	m.seq_tokens.n_tokens = n;
	return call(&s->h, &m, tokens, n, &m.seq_tokens.tokens, NULL, NULL);
}

int sparq_seq_tokens(sparq_seq *s, uint64_t row, const uint32_t *tokens, size_t n)
{
	int r = check(s->h.c, tokens, n);

	if (r == 0 && row + n > SPARQ_ROW_LIMIT)
		r = conn_fail(s->h.c, -EINVAL, "row %llu: below %u", (unsigned long long)row,
			      SPARQ_ROW_LIMIT);
	for (size_t part; r == 0 && n > 0; n -= part) {
		part = MIN(n, PIECE);
		r = tell(s, (uint32_t)row, tokens, (uint32_t)part);
		row += part;
		tokens += part;
	}
	return r;
}

int sparq_seq_create_prefix(sparq_cache *k, const char *name, const uint32_t *tokens, size_t n,
			    sparq_seq **ret, uint64_t *ret_rows)
{
	FREE_MEMORY struct sparq_seq *s = calloc(1, sizeof(*s));
	uint32_t first = (uint32_t)MIN(n, SPARQ_MAX_TOKENS);
	sparq *c = k->h.c;
	union message m;
	int r = s ? check(c, tokens, n) : -ENOMEM;

	if (r < 0)
		return r;
	message_init(&m, SPARQ_MSG_SEQ_CREATE_PREFIX);
	m.seq_prefix.n_tokens = first;
	r = conn_string(c, "name", name, m.seq_prefix.name, sizeof(m.seq_prefix.name));
	if (r < 0)
		return r;
	s->in = &k->h;
	snprintf(s->name, sizeof(s->name), "%s", name ? name : "");
	r = call(&k->h, &m, tokens, first, &m.seq_prefix.tokens, &s->h, &c->sequences);
	if (r < 0)
		return r;
	if (n > first)
		r = sparq_seq_tokens(s, first, tokens + first, n - first);
	if (r < 0) {
		sparq_seq_drop(STEAL_PTR(s));
		return r;
	}
	*ret_rows = m.seq.rows;
	*ret = STEAL_PTR(s);
	return 0;
}
