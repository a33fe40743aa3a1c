/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: what a kept catalogue says is in the kept pools, checked and
 * built up again. Nothing is believed before it was checked: checksums of
 * records, the ranges of every number, that tables do not go in circles, that
 * pages exist and no two records claim one (but for those that forks share). A
 * record that fails is dropped whole and said; what no record reaches is free.
 *
 *   caches -> sequences: checked, begun cuts ended -> tables: how far others reach
 *          -> tables: blocks and pages marked -> sequences: marked, charged, parked
 *
 * A crash in here is as good as one before it: the only stores to the catalogue
 * end a cut that was begun, or free a record.
 */
#pragma once

#include <stdint.h>

#include "daemon/cache.h"

struct recovered {
	uint32_t caches, sequences, tables;
	uint32_t dropped; /* caches and sequences that were LIVE */
	uint64_t rows;    /* over sequences and layers */
	uint64_t bytes;   /* of pages */
	uint64_t ns;
};

/* Into an empty store over an adopted catalogue and a pool in which nothing is marked. Everything
 * is parked, whatever its cache says, until store_expire. -ENOMEM; control thread. */
int recover_store(struct store *st, struct recovered *ret);
/* What is still parked, of caches whose sequences go when their session ends, and caches that
 * nobody holds: gone. How many sequences. */
uint32_t recover_expire(struct store *st);
