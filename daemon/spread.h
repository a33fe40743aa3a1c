/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On which nodes the rows of a sequence lie: the option `placement` of its cache,
 * sparq_cache_create(3).
 *
 *   heads  every page is striped (page.h): part i has the KV heads of node i, all rows of them
 *   rows   pages are whole; runs of KV_SHARE_ROWS rows lie on the nodes in turn, the sequence's
 *          own first; there are the sinks and the tail as well
 *   local  pages are whole, on the sequence's own node
 *
 * The names of pages say where they are, so a page that found its node full lies elsewhere and
 * is right all the same. With one node the three are the same.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/page.h"

struct cache;
struct kv_parts;
struct seq;

/* In records. A cache that asks for nothing gets what the configuration says. */
enum spread { SPREAD_LOCAL, SPREAD_HEADS, SPREAD_ROWS, SPREAD_UNASKED };
extern const char *const placement_names[3]; /* by the first three */

/* What a cache with so many KV heads gets. -EINVAL with `why` (SPARQ_ERROR_TEXT bytes) if it asks
 * for heads and has fewer than there are nodes; `preset` is what it gets if it asks for nothing,
 * and then rows in that case. */
int spread_settle(const struct pool *p, enum spread asked, enum spread preset, uint32_t kv_heads,
		  enum spread *ret, char *why);
/* Where kernels find the parts of striped pages. */
struct kv_parts spread_parts(const struct pool *p);
/* Of a page with `head_bytes` for each KV head. */
struct page_size spread_size(const struct cache *c, size_t head_bytes);

/* All of a page of that size, whole or in parts, to another. */
void spread_copy(const struct cache *c, struct page_size size, page_ref from, page_ref to);

/* Where a page of sealed rows that begins with `row` is wanted. */
unsigned spread_row_node(const struct seq *s, uint32_t row);
/* Where a row of a KV head is, as an index of the pool's nodes. All rows of one share of a decode
 * step (kv_exec_share_at) are there with it. A rule, not a look at pages: one that found no room
 * there lies elsewhere, which costs time and changes no result. Whoever holds the sequence; a few
 * instructions. */
unsigned seq_row_node(const struct seq *s, uint32_t head, uint32_t row);
