/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of one layer that others take the place of: a client has computed them again
 * (sparq-protocol(7), OVERWRITE). Numbers stay, and whoever shares the rows keeps them
 * as they were.
 *
 * All that holds such a row is copied: chunks of the tail, sinks, extents. The copies
 * are changed beside what is live; then one store makes them the layer's:
 *
 *   the record as it will be -> a block of its own -> layer_record.overwrite names it   (valid)
 *        -> copied into the record -> the name goes -> the old pages go
 *
 * Recovery that finds a name does the rest of it. A table in which an extent changes is made
 * anew, and so are those that go on from it, with the pages of all other extents in common
 * (table_copy).
 *
 * Token path: by the worker that holds the sequence; nothing is allocated but pages and blocks.
 */
#pragma once

#include <stdint.h>

#include "daemon/record.h"
#include "daemon/seq.h"

struct overwrite {
	struct seq *seq;
	uint32_t layer, row, n;
	struct kv_view view;           /* the rows as they are */
	struct kv_view recent;         /* sinks and tail as they will be */
	struct kv_extent *to;          /* extents as they will be: kv_overwrite */
	struct layer_record old, next; /* the layer's, as it is and as it will be */
	uint32_t intent;               /* block */
	uint32_t n_tables;             /* made anew, from the youngest down */
	uint64_t charged;
};

/* Takes all that rows [row, row + n), which the layer has, need. `from` and `to` are room for
 * n_extents entries each, seq_extents of the layer, and stay the caller's. -ENOSPC (s->shortage):
 * nothing is taken then. */
int overwrite_begin(struct overwrite *o, struct seq *s, uint32_t layer, uint32_t row, uint32_t n,
		    struct kv_extent *from, struct kv_extent *to, uint32_t n_extents);
/* The rows, as kv_write has them: those of sinks and tail, then one KV head after the other, by any
 * thread, of those in tiles. `stride` bytes from row to row. */
void overwrite_recent(struct overwrite *o, const void *kv, size_t stride);
bool overwrite_has_heads(const struct overwrite *o);
void overwrite_head(const struct overwrite *o, uint32_t head, const void *kv, size_t stride);
/* They count, and what they took the place of is given back. */
void overwrite_commit(struct overwrite *o);
