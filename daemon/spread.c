/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows lie on which node: see spread.h. */
#include "daemon/spread.h"

#include <string.h>

#include "daemon/name.h"
#include "daemon/seq.h"
#include "shm/base.h"

const char *const placement_names[3] = {
	[SPREAD_LOCAL] = "local",
	[SPREAD_HEADS] = "heads",
	[SPREAD_ROWS] = "rows",
};

int spread_settle(const struct pool *p, enum spread asked, enum spread preset, uint32_t kv_heads,
		  enum spread *ret, char *why)
{
	if (asked == SPREAD_HEADS && kv_heads < p->n_nodes)
		return why_fail(why, EINVAL,
				"placement=heads: %u KV heads do not reach %u nodes; rows and "
				"local do",
				kv_heads, p->n_nodes);
	if (asked == SPREAD_UNASKED)
		asked = preset == SPREAD_HEADS && kv_heads < p->n_nodes ? SPREAD_ROWS : preset;
	*ret = asked;
	return 0;
}

struct kv_parts spread_parts(const struct pool *p)
{
	struct kv_parts parts = { .n = p->n_nodes };

	_Static_assert(KV_MAX_PARTS >= POOL_MAX_NODES, "a part on each node");
	for (unsigned i = 0; i < p->n_nodes; i++)
		parts.shift[i] = pool_shift(p, i);
	return parts;
}

struct page_size spread_size(const struct cache *c, size_t head_bytes)
{
	uint32_t kv_heads = cache_shape(c)->kv_heads;
	struct page_size size = { .whole = head_bytes * kv_heads };

	if (c->parts)
		size.part = head_bytes * DIV_UP(kv_heads, c->parts->n);
	return size;
}

/* The block of a KV head. */
static char *block_of(const struct cache *c, page_ref page, uint32_t head, size_t bytes)
{
	char *base = pool_data(c->store->pool, page);
	uint32_t kv_heads = cache_shape(c)->kv_heads, part;

	if (!pool_is_striped(page))
		return base + head * bytes;
	part = kv_part_of(kv_heads, c->parts->n, head);
	head -= (uint32_t)DIV_UP((uint64_t)part * kv_heads, c->parts->n);
	return base + c->parts->shift[part] + head * bytes;
}

void spread_copy(const struct cache *c, struct page_size size, page_ref from, page_ref to)
{
	uint32_t kv_heads = cache_shape(c)->kv_heads;
	size_t bytes = size.whole / kv_heads;

	for (uint32_t head = 0; head < kv_heads; head++)
		memcpy(block_of(c, to, head, bytes), block_of(c, from, head, bytes), bytes);
}

unsigned spread_row_node(const struct seq *s, uint32_t row)
{
	const struct cache *c = s->cache;
	uint32_t sinks = cache_shape(c)->sinks;

	if (c->spread != SPREAD_ROWS || row < sinks)
		return s->node;
	return (s->node + (row - sinks) / KV_SHARE_ROWS) % c->store->pool->n_nodes;
}

unsigned seq_row_node(const struct seq *s, uint32_t head, uint32_t row)
{
	const struct cache *c = s->cache;

	if (c->parts)
		return kv_part_of(cache_shape(c)->kv_heads, c->parts->n, head);
	return spread_row_node(s, row);
}
