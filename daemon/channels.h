/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channel tables of a cache, one for each (layer, KV head) that was given one.
 * They lie in blocks of the catalogue that the cache's record leads to, and
 * kernels read them there:
 *
 *   cache_record.channels ──► channels_block ── next ──► channels_block ...
 *
 * They are loaded before the cache has a sequence: so every row of a layer is
 * written and read with the same tables, no worker looks at one that changes,
 * and a crash meanwhile loses a cache that holds nothing.
 */
#pragma once

#include <stdint.h>

#include "daemon/catalogue.h"
#include "kernels/kernels.h"
#include "shm/sparq-abi.h"

struct cache;

struct channels_record {
	uint32_t layer, kv_head;
	struct kv_channels channels;
};

struct channels_block {
	uint32_t next; /* block; BLOCK_NONE ends */
	uint32_t n;
	uint64_t checksum; /* of all the records, used or not */
	struct channels_record record[];
};
#define CHANNELS_PER_BLOCK                                                                         \
	((CATALOGUE_BLOCK - sizeof(struct channels_block)) / sizeof(struct channels_record))

_Static_assert(sizeof(struct channels_record) == 524, "channels_record");
_Static_assert(offsetof(struct channels_block, record) == 16, "channels_block");

struct channels {                         /* the heap's part */
	const struct kv_channels **table; /* [layers][kv_heads]; NULL: no table at all */
	uint32_t last;                    /* block */
};

/* Sets or replaces the table of one (layer, KV head). -EINVAL, -EBUSY, -ENOSPC, -ENOMEM
 * with `why` (SPARQ_ERROR_TEXT bytes). Control thread. */
int channels_load(struct cache *c, const struct sparq_msg_cache_table *m, char *why);
/* Those of a record that a restart found. -EUCLEAN with `why`: then there are none; -ENOMEM. */
int channels_revive(struct cache *c, char *why);
/* Gives back all that they hold. */
void channels_clear(struct cache *c);
/* For kv_view.channels. */
const struct kv_channels *const *channels_layer(const struct cache *c, uint32_t layer);
