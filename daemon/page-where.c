/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's nodes: which one has an address, which are near, and how full one is. */
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

uint64_t pool_node_taken_bytes(const struct pool *p, unsigned node)
{
	return load_relaxed(&p->node[node].taken) * (uint64_t)UNIT_BYTES;
}

int pool_take_there(struct pool *p, unsigned node, struct page_size size, uint32_t uid,
		    page_ref *ret)
{
	bool striped = node == POOL_STRIPED, busy = true;
	uint32_t class = striped ? class_of_part(p, size) : class_of(size.whole);
	struct pool_node *n = &p->node[striped ? 0 : node];
	size_t at;

	for (unsigned try = 0; busy && class != CLASS_MORE && try < RETRIES; try++) {
		busy = false;
		if (!pool_node_take(p, n, class, uid, &busy, &at))
			continue;
		*ret = (page_ref)node << REF_NODE_SHIFT | (at + 1);
		return 0;
	}
	return -ENOSPC;
}
