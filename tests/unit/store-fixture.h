/* SPDX-License-Identifier: Apache-2.0 */
/* A store over anonymous memory, for tests of what is stored. */
#pragma once

#include "daemon/cache.h"
#include "daemon/recover.h"

/* Arenas that the pool has, as if each were a node: $FIXTURE_PARTS, or one. With $FIXTURE_BOUND
 * they are bound to the nodes that there are, in turn. */
#define FIXTURE_PARTS_MOST 4u
unsigned fixture_parts(void);
/* Of caches that fixture_request asks for: enough to be spread over all parts. */
uint32_t fixture_kv_heads(void);

struct store_fixture {
	struct arena arena[FIXTURE_PARTS_MOST];
	unsigned n_arenas;
	struct pool pool;
	struct catalogue *catalogue;
	struct users users;
	struct user *user, *stranger;
	struct store store;
	void (*opened)(struct store_fixture *f); /* NULL, or called before recovery */
};

#define FIXTURE_UID 1000
#define FIXTURE_SESSION 42

void fixture_open(struct store_fixture *f, size_t pool_bytes, size_t catalogue_bytes);
/* Asserts that nothing is taken, charged or left in a record. */
void fixture_assert_empty(struct store_fixture *f);
void fixture_close(struct store_fixture *f);
/* The arena that has it. With FIXTURE_BOUND, which binds them to the machine's nodes, the kernel is
 * asked as well. */
unsigned fixture_node_at(const struct store_fixture *f, const void *memory);
/* Another daemon over the same catalogue and pool: the heap's part is gone, `ret` what came back.
 * FIXTURE_UID has its user again. */
void fixture_restart(struct store_fixture *f, struct recovered *ret);
/* A small valid request: f32, 2 layers, 4 heads over 2 KV heads (or fixture_kv_heads), 64 channels,
 * dense. */
struct sparq_msg_cache_create fixture_request(const char *name, const char *options);
