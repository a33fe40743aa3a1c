/* SPDX-License-Identifier: Apache-2.0 */
/* On which nodes the rows of a sequence lie. */
#pragma once

#include <stdint.h>

struct seq;

/* Where a row of a KV head is, as an index of the pool's nodes. All rows of one share of a decode
 * step (kv_exec_share_at) are there with it. A rule, not a look at pages: one that found no room
 * there lies elsewhere, which costs time and changes no result. Whoever holds the sequence; a few
 * instructions. */
unsigned seq_row_node(const struct seq *s, uint32_t head, uint32_t row);
