/* SPDX-License-Identifier: Apache-2.0 */
/* How large the pool is to be: for the daemon, its checks, and who sets pages aside for it. */
#include "daemon/placement.h"
#include "shm/base.h"

/* What every part is a multiple of. */
static size_t part_align(const struct config *c)
{
	return c->huge_pages == HUGE_1G ? GIB : 2 * MIB;
}

uint64_t placement_wanted(const struct topo *t, const struct config *c)
{
	uint64_t total = c->pool_bytes;

	TOPO_EACH_CHOSEN(t, i)
	total += c->pool_bytes ? 0 : t->node[i].memory_bytes / 4;
	/* An equal part on each node, since KV heads are spread over all. */
	return ALIGN_UP(MAX(total / topo_n_chosen(t), 1u), part_align(c));
}

uint64_t placement_part(const struct topo *t, const struct config *c)
{
	return ALIGN_UP(DIV_UP(placement_wanted(t, c), c->pool_parts), POOL_UNIT_BYTES);
}

uint64_t placement_planned(const struct topo *t, const struct config *c)
{
	return (uint64_t)topo_n_chosen(t) * c->pool_parts * placement_part(t, c);
}
