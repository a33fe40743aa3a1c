/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences out to bytes and in again, over the store of a test. */
#pragma once

#include "seq-model.h"

extern char why[SPARQ_ERROR_TEXT]; /* of whatever was refused last */

/* A store; and that nothing is left in it. */
int setup(void **state);
int teardown(void **state);
struct cache *make_cache(struct store_fixture *f, const char *name, const char *k_format,
			 const char *v_format, const char *policy, const char *options);
struct seq *make_seq(struct cache *c, const char *name);
void drop(struct seq *s);
/* Channel tables, with outliers, for one head. */
void load_tables(struct cache *c);
void append_both(struct model *m, uint32_t n);

struct bytes {
	uint8_t *data;
	uint64_t n;
};
/* All of it, in pieces of `piece` bytes; their checksums are those of the bytes. */
struct bytes read_all(struct seq *s, size_t piece);
/* Builds it in pieces of `piece` bytes: NULL if it was refused, with `why`. */
struct seq *build(struct cache *c, const char *name, struct bytes b, size_t piece);
/* But for the name of the sequence. */
void assert_same_image(struct bytes a, struct bytes b);
/* Extents of the same shape, rows of the same bits. */
void assert_same(struct seq *a, struct seq *b);
/* A copy through its image, checked. */
struct seq *copy_of(struct seq *s, struct cache *to, size_t out, size_t in);
uint32_t roll(uint32_t *state, uint32_t below);
