/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token ids told and asked for in every wrong way, while the arena that they come by
 * changes and entries append rows and cut them: each message is answered, and what is
 * refused is refused with a sentence.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "enemy.h"
#include "shm/base.h"

#define SEQUENCES 8u

static uint64_t make_cache(struct enemy *e)
{
	union message m;

	message_init(&m, SPARQ_MSG_CACHE_CREATE);
	m.cache_create.layers = 2;
	m.cache_create.heads = 4;
	m.cache_create.kv_heads = 2;
	m.cache_create.k_dim = m.cache_create.v_dim = 64;
	m.cache_create.dtype = SPARQ_DTYPE_F16;
	strcpy(m.cache_create.k_format, "f16");
	strcpy(m.cache_create.policy, "dense");
	strcpy(m.cache_create.options, draw(e) & 1 ? "evict=lru" : "evict=none rollback=0");
	if (ask(e, &m, NULL, 0, NULL) < 0)
		die("no cache");
	return m.cache.cache;
}

/* How many: few, about as many as make a hash, or nearly too many. */
static uint32_t some_count(struct enemy *e)
{
	uint64_t r = draw(e);

	switch (r % 5) {
	case 0:
		return (uint32_t)(r >> 8) % 4;
	case 1:
		return SPARQ_MAX_TOKENS - 2 + (uint32_t)(r >> 8) % 4;
	case 2:
		return (uint32_t)(r >> 8);
	default:
		return (uint32_t)(r >> 8) % 1000;
	}
}

static void some_message(struct enemy *e, uint64_t cache, const uint64_t sequence[SEQUENCES],
			 union message *m)
{
	uint64_t r = draw(e);

	if (r & 3) {
		message_init(m, SPARQ_MSG_SEQ_TOKENS);
		m->seq_tokens.sequence = r >> 60 ? sequence[r >> 8 & (SEQUENCES - 1)] : draw(e);
		m->seq_tokens.tokens = some_address(e);
		m->seq_tokens.n_tokens = some_count(e);
		m->seq_tokens.row = r >> 20 & 1 ? 0 : some_count(e);
	} else {
		message_init(m, SPARQ_MSG_SEQ_CREATE_PREFIX);
		m->seq_prefix.cache = r >> 60 ? cache : draw(e);
		m->seq_prefix.tokens = some_address(e);
		m->seq_prefix.n_tokens = some_count(e);
		memcpy(m->seq_prefix.name, &r, (r >> 30 & 15) == 0 ? sizeof(r) : 0);
	}
}

/* Forgets one to make place, and counts what an answer was. */
static void note(struct enemy *e, const union message *m, int r, uint64_t sequence[SEQUENCES],
		 unsigned *taken, unsigned *shared)
{
	uint64_t *slot = &sequence[draw(e) & (SEQUENCES - 1)];
	union message drop;

	*taken += r == 0;
	if (r < 0 || (m->head.type & ~SPARQ_MSG_REPLY) != SPARQ_MSG_SEQ_CREATE_PREFIX)
		return;
	*shared += m->seq.rows > 0;
	message_init(&drop, SPARQ_MSG_SEQ_DROP);
	drop.seq.sequence = *slot;
	if (*slot)
		ask(e, &drop, NULL, 0,
		    NULL); /* -EBUSY if entries hold it: its session's end drops it */
	*slot = m->seq.sequence;
}

static void push_entries(struct enemy *e)
{
	for (unsigned i = 0; i < 4; i++) {
		struct sparq_sqe sqe;

		some_entry(e, &sqe);
		publish(e, &sqe);
	}
	doorbell_ring(&e->doorbell);
	for (unsigned i = 0; i < 2000 && e->head < e->tail; i++) {
		reap(e);
		sched_yield();
	}
}

/* Rows that can be shared: of no layer's use unless all have them. */
static void add_rows(struct enemy *e, uint64_t sequence)
{
	for (unsigned i = 0; i < 4; i++) {
		struct sparq_sqe sqe = {
			.op = SPARQ_OP_APPEND,
			.sequence = sequence,
			.layer = i & 1,
			.row = i / 2 * 200,
			.n_rows = 200,
		};

		publish(e, &sqe);
	}
	doorbell_ring(&e->doorbell);
	for (double end = now() + 5; e->head < e->tail; sched_yield()) {
		reap(e);
		if (now() > end)
			die("appends are not answered");
	}
}

void attack_tokens(struct enemy *e)
{
	unsigned taken = 0, refused = 0, shared = 0;
	double end = now() + e->seconds;
	char text[SPARQ_ERROR_TEXT];

	while (now() < end) {
		uint64_t sequence[SEQUENCES] = { 0 }, cache;
		union message m;

		enter(e);
		cache = make_cache(e);
		for (unsigned i = 0; i < 300; i++) {
			int r;

			if (i % 16 == 0)
				push_entries(e);
			some_message(e, cache, sequence, &m);
			text[0] = '\0';
			r = ask(e, &m, NULL, 0, text);
			if (r < 0 && (r == -EPROTO || r == -ECONNRESET || !*text))
				die("tokens: %s, \"%s\"", strerror(-r), text);
			refused += r < 0;
			note(e, &m, r, sequence, &taken, &shared);
			if (r == 0 && m.seq.sequence && draw(e) % 4 == 0) {
				e->sequence = m.seq.sequence;
				add_rows(e, m.seq.sequence);
			}
		}
		leave(e);
	}
	if (!taken || !refused || !shared)
		die("%u taken, %u refused, %u shared", taken, refused, shared);
	printf("%u messages taken, %u refused, %u with shared rows\n", taken, refused, shared);
}
