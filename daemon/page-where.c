/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's nodes: which one has an address, and which are near. */
#include "daemon/page-private.h"

uint32_t pool_node_at(const struct pool *p, const void *address)
{
	for (unsigned i = 0; i < p->n_nodes; i++) {
		const struct pool_node *n = &p->node[i];

		if ((uintptr_t)address - (uintptr_t)n->base < n->n_units * UNIT_BYTES)
			return i;
	}
	return UINT32_MAX;
}

const uint8_t *pool_order(const struct pool *p, unsigned node)
{
	return p->node[node].near;
}
