/* SPDX-License-Identifier: Apache-2.0 */
/* How much of one node is out: added up over its slabs when somebody wants to know. */
#include "daemon/page-private.h"
#include "daemon/page.h"
#include "shm/atomic.h"

uint64_t pool_node_used_bytes(const struct pool *p, unsigned node)
{
	const struct pool_node *n = &p->node[node];
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n->n_units; i++) {
		struct slab_state s = state_unpack(load_relaxed(&n->state[i]));

		if (s.class < CLASS_MORE)
			bytes += s.used * class_stride(s.class);
	}
	return bytes;
}
