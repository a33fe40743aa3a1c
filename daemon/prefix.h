/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that begin with what the cache already holds. An index over the token
 * hashes of all sequences of a store, in which a lookup finds the longest known
 * beginning of a list of ids; it is derived, and made when it is asked: a sequence
 * that is forked and dropped between two lookups is never in it.
 *
 * Shared are rows, by fork, within one cache: one uid, one set of parameters. A row is
 * offered when every layer has it. A sequence that its client gives up becomes a
 * prefix, nobody's, if its cache may evict it later; otherwise it goes.
 *
 * Control thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/tokens.h"

struct store;

/* One per block of a chain. */
struct token_link {
	struct token_link *next, **at; /* in its bucket; at NULL: in none */
	uint32_t number;               /* of the hash in its chain */
};
struct token_part {
	struct token_part *next;
	struct seq *seq;
	struct token_link link[HASHES_NEXT];
};

struct prefixes {
	struct token_link **bucket; /* [mask + 1] */
	uint32_t mask;
	/* Sequences with hashes that the index does not know; prefixes in whose place shorter ones
	 * may still be. The next lookup sees to both. */
	struct seq *first[TOKENS_LISTS];
};
int prefixes_init(struct prefixes *p, uint32_t n_blocks); /* -ENOMEM */
void prefixes_deinit(struct prefixes *p);

/* The sequence has hashes from number `linked` on that the index shall know. */
void prefix_note(struct seq *s);
/* From number `from` on the index knows none any more. */
void prefix_forget(struct seq *s, uint32_t from);
/* And the heap's part goes. */
void prefix_free(struct seq *s);

/* A sequence that is told to be of the n ids, and begins with the longest part of them that the
 * cache holds and can be had: *ret_rows of them, sinks and whole tiles, are there. */
int prefix_create(struct cache *c, const char *name, const uint32_t *ids, uint32_t n,
		  uint64_t session, struct seq **ret, uint32_t *ret_rows, char *why);
/* Is there a reason to keep what its client gives up? Then it is cut to what others can begin
 * with, and nobody's from here on. The caller holds it. */
bool prefix_keep(struct seq *s);
/* A cache that nobody can find again keeps none. The caller has a reference to it. */
void prefix_drop_all(struct cache *c);
