/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's memory. */
#include "daemon/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "shm/base.h"

#define ARENA_ALIGN (2 * MIB)
#define WHY_BYTES 160
#define FILL_USEC 10000000 /* a slice of the filling takes far less than ten seconds */

static void on_progress(void *arg, size_t done, size_t total)
{
	const struct topo_node *node = arg;

	notify_extend(FILL_USEC);
	notify_status("preparing memory of node %d: %zu of %zu MiB", node->id, done / MIB,
		      total / MIB);
}

/* The pool's bytes on one node: an equal part, since KV heads are spread over all. */
static size_t bytes_per_node(const struct topo *t, const struct config *c)
{
	uint64_t total = c->pool_bytes;

	for (unsigned i = 0; i < t->n_nodes && c->pool_bytes == 0; i++)
		total += t->node[i].memory_bytes / 4;
	return ALIGN_UP(MAX(total / t->n_nodes, 1u), ARENA_ALIGN);
}

static bool in_huge_pages(const struct arena *a)
{
	return a->pages == ARENA_HUGETLB_1G || a->pages == ARENA_HUGETLB_2M;
}

static int make_arena(struct placement *p, const struct topo *t, unsigned i, const struct config *c,
		      char *why)
{
	size_t bytes = bytes_per_node(t, c);
	struct arena_params params = {
		.name = "sparqd-pool",
		.bytes = bytes,
		.node = t->node[i].id,
		/* 1 GiB pages are rare: asked for only where they lie ready. */
		.want_1g = c->huge_pages && t->node[i].huge_free[1] * GIB >= bytes,
		.want_2m = c->huge_pages,
		.progress = on_progress,
		.arg = (void *)&t->node[i],
	};
	int r = arena_create(&params, &p->arena[i], why);

	if (r < 0) {
		log_error("no memory for the pool: %zu MiB on node %d: %s%s%s", bytes / MIB,
			  t->node[i].id, strerror(-r), *why ? ": " : "", why);
		return r;
	}
	p->n = i + 1;
	if (c->huge_pages && !in_huge_pages(&p->arena[i]))
		p->shortfall_bytes += p->arena[i].bytes;
	r = arena_verify(&p->arena[i]);
	if (r < 0)
		log_error("cannot ask where the pool's pages are: %s", strerror(-r));
	return r;
}

/* What an administrator must know: where it is, and what it lacks. */
static void report(const struct placement *p, const char *why)
{
	uint64_t misplaced = placement_misplaced(p);

	for (unsigned i = 0; i < p->n; i++)
		log_info("pool: %zu MiB on node %d in %s", p->arena[i].bytes / MIB,
			 p->arena[i].node, arena_pages_name(p->arena[i].pages));
	if (p->shortfall_bytes > 0)
		log_warning("%" PRIu64 " MiB of the pool are not in huge pages: %s",
			    p->shortfall_bytes / MIB, why);
	if (misplaced > 0)
		log_warning("%" PRIu64 " pages of the pool are not on their node", misplaced);
}

int placement_init(struct placement *p, const struct topo *t, const struct config *c)
{
	char first[WHY_BYTES] = "", why[WHY_BYTES];
	int r;

	*p = PLACEMENT_NULL;
	for (unsigned i = 0; i < t->n_nodes; i++) {
		why[0] = '\0';
		r = make_arena(p, t, i, c, why);
		if (r < 0)
			return r;
		if (!first[0])
			memcpy(first, why, sizeof(first));
	}
	report(p, first);
	return 0;
}

/* ---- after a restart -------------------------------------------------------- */

static bool has_node(const struct topo *t, int node)
{
	for (unsigned i = 0; i < t->n_nodes; i++)
		if (t->node[i].id == node)
			return true;
	return false;
}

static int adopt(struct placement *p, const struct topo *t, const struct catalogue_pool *pool,
		 struct kept *k, char *why)
{
	struct arena *a = &p->arena[p->n];
	int node = has_node(t, pool->node) ? pool->node : -1, r;
	char name[KEEP_NAME_BYTES];
	int fd;

	keep_pool_name(p->n, name);
	fd = kept_steal(k, name);
	if (fd < 0) {
		snprintf(why, KEEP_WHY_BYTES, "the catalogue speaks of %s, which was not kept",
			 name);
		return -EUCLEAN;
	}
	if (node != pool->node)
		log_warning("%s was made for node %" PRId32 ", which is not there", name,
			    pool->node);
	r = arena_adopt(fd, node, a);
	if (r < 0) {
		close(fd);
		snprintf(why, KEEP_WHY_BYTES, "%s cannot be mapped: %s", name, strerror(-r));
		return -EUCLEAN;
	}
	p->n++;
	if (a->bytes == pool->units * POOL_UNIT_BYTES)
		return 0;
	snprintf(why, KEEP_WHY_BYTES, "%s has %zu bytes, the catalogue says %zu", name, a->bytes,
		 pool->units * POOL_UNIT_BYTES);
	return -EUCLEAN;
}

int placement_adopt(struct placement *p, const struct topo *t, const struct config *c,
		    const struct catalogue_header *h, struct kept *k, char *why)
{
	int r = 0;

	*p = PLACEMENT_NULL;
	if (h->n_pools > ARRAY_SIZE(p->arena)) {
		snprintf(why, KEEP_WHY_BYTES, "the catalogue speaks of %" PRIu32 " pools",
			 h->n_pools);
		return -EUCLEAN;
	}
	for (uint32_t i = 0; i < h->n_pools && r == 0; i++)
		r = adopt(p, t, &h->pool[i], k, why);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < p->n; i++)
		if (c->huge_pages && !in_huge_pages(&p->arena[i]))
			p->shortfall_bytes += p->arena[i].bytes;
	report(p, "as the daemon before had it");
	return 0;
}

uint64_t placement_bytes(const struct placement *p)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < p->n; i++)
		bytes += p->arena[i].bytes;
	return bytes;
}

unsigned placement_pools(const struct placement *p, struct catalogue_pool ret[POOL_MAX_NODES])
{
	for (unsigned i = 0; i < p->n; i++)
		ret[i] = (struct catalogue_pool){
			.node = p->arena[i].node,
			.units = (uint32_t)(p->arena[i].bytes / POOL_UNIT_BYTES),
		};
	return p->n;
}

int placement_open_pool(struct placement *p, uint64_t *notes, bool adopted)
{
	int r = pool_init(&p->pool, p->arena, p->n, notes, adopted);

	if (r < 0)
		log_error("the pool: %s", strerror(-r));
	return r;
}

void placement_deinit(struct placement *p)
{
	pool_deinit(&p->pool);
	for (unsigned i = 0; i < p->n; i++)
		arena_deinit(&p->arena[i]);
	*p = PLACEMENT_NULL;
}

uint64_t placement_misplaced(const struct placement *p)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < p->n; i++)
		n += p->arena[i].misplaced_pages;
	return n;
}
