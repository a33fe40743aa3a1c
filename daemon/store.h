/* SPDX-License-Identifier: Apache-2.0 */
/* What cache.c and seq.c need of each other. Control thread. */
#pragma once

#include "daemon/cache.h"

static inline uint64_t id_make(uint32_t slot, uint32_t generation)
{
	return (uint64_t)generation << 32 | slot;
}

static inline uint32_t id_slot(uint64_t id)
{
	return (uint32_t)id;
}

/* Drops a cache that has neither sessions nor sequences left. */
void cache_drop_unused(struct cache *c);
/* Frees the heap's part of a sequence slot; its record stays as it is. */
void seq_forget(struct seq *s);
