/* SPDX-License-Identifier: Apache-2.0 */
/* A whole store for a test: see store-fixture.h. */
#include "store-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <numa.h>
#include <numaif.h>

#include "daemon/record.h"
#include "shm/base.h"

static void open_users(struct store_fixture *f)
{
	static const uint64_t limits[USER_WHATS] = {
		[USER_BYTES] = UINT64_MAX, [USER_SESSIONS] = 4,   [USER_QUEUES] = 4,
		[USER_CACHES] = 4,         [USER_SEQUENCES] = 24, [USER_SPILLED] = UINT64_MAX,
	};

	users_limit(&f->users, limits);
	assert_int_equal(users_get(&f->users, FIXTURE_UID, &f->user), 0);
	assert_int_equal(users_get(&f->users, FIXTURE_UID + 1, &f->stranger), 0);
}

static void close_users(struct store_fixture *f)
{
	users_put(&f->users, f->user);
	users_put(&f->users, f->stranger);
	users_deinit(&f->users);
}

unsigned fixture_parts(void)
{
	const char *parts = getenv("FIXTURE_PARTS");
	unsigned n = parts ? (unsigned)strtoul(parts, NULL, 10) : 1;

	assert_true(n >= 1 && n <= FIXTURE_PARTS_MOST);
	return n;
}

uint32_t fixture_kv_heads(void)
{
	return MAX(2u, fixture_parts());
}

/* The first has what is left when it is cut into equal parts. */
static void map_arenas(struct store_fixture *f, size_t pool_bytes, struct catalogue_pool *ret)
{
	size_t units = pool_bytes / POOL_UNIT_BYTES, n = f->n_arenas;

	for (size_t i = 0; i < n; i++) {
		struct arena *a = &f->arena[i];

		ret[i] = (struct catalogue_pool){ -1, (uint32_t)(units / n + !i * (units % n)) };
		*a = ARENA_NULL;
		a->bytes = ret[i].units * POOL_UNIT_BYTES;
		a->base = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(a->base, MAP_FAILED);
		if (getenv("FIXTURE_BOUND")) {
			a->node = (int)i % (numa_max_node() + 1);
			numa_tonode_memory(a->base, a->bytes, a->node);
		}
	}
}

/* Whatever we believe: where the page is. */
static int kernel_node(const void *memory)
{
	void *page = (void *)((uintptr_t)memory & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1));
	int node = -1;

	assert_int_equal(move_pages(0, 1, &page, NULL, &node, 0), 0);
	return node;
}

unsigned fixture_node_at(const struct store_fixture *f, const void *memory)
{
	unsigned i = 0;

	while ((uintptr_t)memory - (uintptr_t)f->arena[i].base >= f->arena[i].bytes)
		assert_true(++i < f->n_arenas);
	if (f->arena[i].node >= 0)
		assert_int_equal(kernel_node(memory), f->arena[i].node);
	return i;
}

static void open_pool(struct store_fixture *f, bool adopted)
{
	assert_int_equal(pool_init(&f->pool, f->arena, f->n_arenas, catalogue_notes(f->catalogue),
				   adopted),
			 0);
}

void fixture_open(struct store_fixture *f, size_t pool_bytes, size_t catalogue_bytes)
{
	struct catalogue_pool pool[FIXTURE_PARTS_MOST];
	const struct catalogue_params catalogue = {
		.bytes = catalogue_bytes,
		.max_caches = 6,
		.max_sequences = 32,
		.pool = pool,
		.n_pools = fixture_parts(),
	};

	memset(f, 0, sizeof(*f));
	f->n_arenas = fixture_parts();
	pool_bytes *= fixture_kv_heads() / 2; /* as many rows for more heads */
	map_arenas(f, pool_bytes, pool);
	assert_int_equal(catalogue_create(&catalogue, &f->catalogue), 0);
	open_pool(f, false);
	open_users(f);
	assert_int_equal(store_init(&f->store, &f->pool, f->catalogue, &f->users, 1u << 20), 0);
}

void fixture_assert_empty(struct store_fixture *f)
{
	const struct catalogue_header *h = catalogue_header(f->catalogue);
	uint32_t *block = calloc(h->n_blocks, sizeof(*block)), n = 0;

	assert_null(f->store.caches);
	assert_int_equal(f->pool.used_bytes, 0);
	for (unsigned i = 0; i < f->n_arenas; i++)
		assert_int_equal(pool_node_used_bytes(&f->pool, i), 0);
	for (unsigned i = 0; i < USER_WHATS; i++)
		assert_int_equal(f->user->charged[i], 0);
	for (uint32_t i = 0; i < h->n_caches; i++)
		assert_int_equal(catalogue_cache(f->catalogue, i)->state, RECORD_FREE);
	for (uint32_t i = 0; i < h->n_sequences; i++) {
		const struct sequence_record *r = catalogue_sequence(f->catalogue, i);

		assert_int_equal(r->state, RECORD_FREE);
	}
	while (catalogue_take_block(f->catalogue, &block[n]) == 0)
		n++;
	assert_int_equal(n, h->n_blocks - 1);
	while (n)
		catalogue_put_block(f->catalogue, block[--n]);
	free(block);
}

void fixture_close(struct store_fixture *f)
{
	store_deinit(&f->store);
	f->catalogue = catalogue_free(f->catalogue);
	pool_deinit(&f->pool);
	close_users(f);
	for (unsigned i = 0; i < f->n_arenas; i++)
		munmap(f->arena[i].base, f->arena[i].bytes);
}

void fixture_restart(struct store_fixture *f, struct recovered *ret)
{
	struct catalogue *left = f->catalogue;
	char why[CATALOGUE_WHY_BYTES];

	store_deinit(&f->store);
	pool_deinit(&f->pool);
	close_users(f);
	if (catalogue_adopt(catalogue_fd(left), &f->catalogue, why) < 0)
		fail_msg("%s", why);
	catalogue_free(left);
	open_pool(f, true);
	open_users(f);
	assert_int_equal(store_init(&f->store, &f->pool, f->catalogue, &f->users, 1u << 20), 0);
	if (f->opened)
		f->opened(f);
	assert_int_equal(recover_store(&f->store, ret), 0);
}

struct sparq_msg_cache_create fixture_request(const char *name, const char *options)
{
	struct sparq_msg_cache_create m = {
		.layers = 2,
		.heads = 4,
		.kv_heads = fixture_kv_heads(),
		.k_dim = 64,
		.v_dim = 64,
		.dtype = SPARQ_DTYPE_F32,
		.k_format = "f32",
		.v_format = "f32",
		.policy = "dense",
	};

	snprintf(m.name, sizeof(m.name), "%s", name);
	snprintf(m.options, sizeof(m.options), "%s", options);
	return m;
}
