/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's memory: how much, cut over the nodes, in which pages, and what fell short. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/catalogue.h"
#include "daemon/config.h"
#include "daemon/keep.h"
#include "daemon/page.h"
#include "numa/arena.h"
#include "numa/topo.h"

struct placement {
	struct arena arena[POOL_MAX_NODES]; /* of the chosen nodes, in the order of the topology */
	unsigned n;
	struct pool pool;
	uint64_t shortfall_bytes; /* wanted in huge pages, and not in them */
};
#define PLACEMENT_NULL ((struct placement){ .n = 0 })

/* The bytes of the pool on each node. */
uint64_t placement_wanted(const struct topo *t, const struct config *c);
/* Of one part of a node, of which it has pool_parts. */
uint64_t placement_part(const struct topo *t, const struct config *c);
/* Of all parts of all nodes, each rounded up to what it is cut in. */
uint64_t placement_planned(const struct topo *t, const struct config *c);
/* Chooses the nodes of numa_nodes. -ENOENT, and said, if one is not there. */
int placement_choose(struct topo *t, const struct config *c);
/* Makes, binds, fills and verifies the arenas, and tells the manager how far it is. Logs what it
 * became. -ECANCELED: a signal to end is pending. */
int placement_init(struct placement *p, const struct topo *t, const struct config *c);
/* Maps the arenas of a catalogue again, from what was kept. -EUCLEAN with `why` (KEEP_WHY_BYTES) if
 * one is not there or not what the catalogue says. Their nodes are the chosen ones. */
int placement_adopt(struct placement *p, struct topo *t, const struct config *c,
		    const struct catalogue_header *h, struct kept *k, char *why);
uint64_t placement_bytes(const struct placement *p);
/* What the catalogue says of them; how many. */
unsigned placement_pools(const struct placement *p, struct catalogue_pool ret[POOL_MAX_NODES]);
/* The pool over the arenas, with the catalogue's notes. */
int placement_open_pool(struct placement *p, uint64_t *notes, bool adopted);
void placement_deinit(struct placement *p);
uint64_t placement_misplaced(const struct placement *p); /* pages */
