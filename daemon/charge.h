/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages and catalogue blocks of a sequence: charged to its cache and user before
 * they are taken, refunded to the byte when they go. By whoever holds the sequence.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/page.h"

struct seq;

/* For what is taken besides, as pages that others hold already: those are refunded by
 * charge_page_put. As charge_page. */
int charge_bytes(struct seq *s, uint64_t bytes);
void charge_refund(struct seq *s, uint64_t bytes);
/* Wanted on `node`, as pool_take. -ENOSPC: nothing is charged then, and s->shortage says which
 * limit is in the way. */
int charge_page(struct seq *s, struct page_size size, unsigned node, page_ref *ret);
/* On the sequence's node, in the place of a page of that size which is charged and about to be
 * put. */
int charge_page_swap(struct seq *s, struct page_size size, page_ref *ret);
/* The sequence's hold of it. */
void charge_page_put(struct seq *s, struct page_size size, page_ref page);
int charge_block(struct seq *s, uint32_t *ret);
void charge_block_put(struct seq *s, uint32_t block);
/* After a restart: what it holds already, whatever the limits say by now. */
void charge_restore(struct seq *s, uint64_t bytes);
