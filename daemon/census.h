/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cache has, kept as it changes, so that nobody has to look at all of its sequences: how
 * many rows, how many sequences that nobody is attached to, how many pinned ones; which of them are
 * attached; and who has a name.
 *
 * The rows of a sequence are those of its shortest layer. `least` is how many, `n_least` how many
 * layers have no more: a commit that leaves another layer as short changes nothing, and the one
 * that does not looks at all layers, once a token where a model steps through them in turn. All of
 * it is written by whoever holds the sequence, and the sum of the cache by one atomic addition
 * then.
 *
 * A sequence is in the census from when it is in its cache's list until it leaves that. One that is
 * in a file has the rows that it will have when it is loaded, whatever its layers say meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cache;
struct seq;
struct store;

int names_init(struct store *st);
void names_deinit(struct store *st);
/* NULL: the cache has none of that name; of "", never. */
struct seq *names_find(struct cache *c, const char *name);

/* Control thread: in, with the session it has; and out. */
void census_enter(struct seq *s);
void census_leave(struct seq *s);
/* It is another session's, or nobody's (0). The store releases what came before to its worker. */
void census_attach(struct seq *s, uint64_t session);
void census_pin(struct seq *s, bool pinned); /* before the flag is changed */
void census_unname(struct seq *s);           /* before the name goes */
/* Its rows are in a file now, or in memory again. */
void census_moved(struct seq *s);

/* Its holder, token path: a layer has other rows than before. */
void census_rows(struct seq *s, uint32_t before, uint32_t after);
