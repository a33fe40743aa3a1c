/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's memory. */
#include "daemon/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "shm/base.h"
#include "shm/clock.h"

#define FILL_USEC 30000000 /* what has to come of the filling within it is one page */

/* How the filling goes, for the manager; and whether anybody wants an end of it. */
struct progress {
	uint64_t begun_ns;
	size_t told;
};

static bool told_to_end(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

static int on_progress(void *arg, size_t done, size_t total)
{
	struct progress *p = arg;
	double seconds = (double)(clock_now_ns() - p->begun_ns) / 1e9;

	if (told_to_end())
		return -ECANCELED;
	/* A filling that has stopped gets no more time. */
	if (done != p->told)
		notify_extend(FILL_USEC);
	p->told = done;
	notify_status("preparing memory: %zu %%, %.1f of %.1f GiB at %.1f GiB/s",
		      total ? done * 100 / total : 100, (double)done / (double)GIB,
		      (double)total / (double)GIB,
		      seconds > 0 ? (double)done / (double)GIB / seconds : 0);
	return 0;
}

static bool in_huge_pages(const struct arena *a)
{
	return a->pages == ARENA_HUGETLB_1G || a->pages == ARENA_HUGETLB_2M;
}

static bool fell_short(const struct arena *a, const struct config *c)
{
	switch (c->huge_pages) {
	case HUGE_NO:
		return false;
	case HUGE_1G:
		return a->pages != ARENA_HUGETLB_1G;
	default:
		return !in_huge_pages(a);
	}
}

static void count_shortfall(struct placement *p, const struct config *c)
{
	for (unsigned i = 0; i < p->n; i++)
		if (fell_short(&p->arena[i], c))
			p->shortfall_bytes += p->arena[i].bytes;
}

static struct arena_params params_of(const struct topo *t, unsigned node, size_t bytes,
				     const struct config *c)
{
	const struct topo_node *n = &t->node[node];
	/* 1 GiB pages are rare: without being told to, only where they lie ready. */
	bool ready = n->huge_free[1] > 0 && n->huge_free[1] * GIB >= bytes;

	return (struct arena_params){
		.name = "sparqd-pool",
		.bytes = bytes,
		.node = n->id,
		.cpus = &t->node[n->near].cpus,
		.want_1g = c->huge_pages == HUGE_1G ||
			   (c->huge_pages == HUGE_YES && ready && bytes % GIB == 0),
		.want_2m = c->huge_pages != HUGE_NO,
	};
}

/* Once, whatever the number of nodes: the reason of the first stands for all. `why` for each; NULL:
 * an earlier daemon's. */
static void tell_shortfall(const struct placement *p, const struct config *c,
			   char (*why)[ARENA_WHY_BYTES])
{
	const char *pages = c->huge_pages == HUGE_1G ? "pages of 1 GiB" : "huge pages";
	unsigned first = 0, n = 0;
	char more[32] = "";

	for (unsigned i = p->n; i-- > 0;) {
		if (!fell_short(&p->arena[i], c))
			continue;
		first = i;
		n++;
	}
	if (n == 0)
		return;
	if (n > 1)
		snprintf(more, sizeof(more), " and %u other%s", n - 1, n > 2 ? "s" : "");
	log_event(EVENT_SMALL_PAGES, NULL, "pool: %" PRIu64 " MiB on node %d%s are not in %s%s%s%s",
		  p->shortfall_bytes / MIB, p->arena[first].node, more, pages,
		  why ? ": "
		      : ", as the daemon before had them; a stop and a start look for some "
			"again, and drop the KV",
		  why ? why[first] : "", n > 1 ? "; sparqctl doctor tells of each" : "");
}

static void tell_memory_only(const struct topo *t, const struct topo_node *n)
{
	if (n->left_out)
		log_notice("node %d has %" PRIu64
			   " MiB of memory and no CPUs: the pool has no part "
			   "of it; numa_nodes in sparqd.conf(5) gives it one",
			   n->id, n->memory_bytes / MIB);
	else
		log_info("node %d has no CPUs: those of node %d work for it", n->id,
			 t->node[n->near].id);
}

/* What an administrator must know: where it is, and what it lacks. */
static void report(const struct placement *p, const struct topo *t, const struct config *c,
		   char (*why)[ARENA_WHY_BYTES])
{
	uint64_t misplaced = placement_misplaced(p);

	for (unsigned i = 0; i < p->n; i++)
		log_info("pool: %zu MiB on node %d in %s", p->arena[i].bytes / MIB,
			 p->arena[i].node, arena_pages_name(p->arena[i].pages));
	for (unsigned i = t->n_nodes; i < topo_all(t); i++)
		tell_memory_only(t, &t->node[i]);
	tell_shortfall(p, c, why);
	if (misplaced > 0)
		log_event(EVENT_MISPLACED, NULL,
			  "%" PRIu64 " pages of the pool are not on their node", misplaced);
}

static void tell_failure(const struct arena_params *params, unsigned n, size_t bytes, int error,
			 char (*why)[ARENA_WHY_BYTES])
{
	unsigned i = 0;

	while (i + 1 < n && !why[i][0])
		i++;
	log_event(EVENT_NO_POOL, NULL, "no memory for the pool: %zu MiB on node %d: %s%s%s",
		  bytes / MIB, params[i].node, strerror(-error), why[i][0] ? ": " : "", why[i]);
}

/* Arenas: a part of each node, or several. -EINVAL, and said, if those are too many. */
static int plan(const struct topo *t, const struct config *c,
		struct arena_params params[POOL_MAX_NODES])
{
	size_t part = placement_part(t, c);
	unsigned n = 0;

	if (topo_n_chosen(t) * c->pool_parts > POOL_MAX_NODES) {
		log_error("pool_parts = %" PRIu32 ": %u nodes make more than %u parts",
			  c->pool_parts, topo_n_chosen(t), POOL_MAX_NODES);
		return -EINVAL;
	}
	TOPO_EACH_CHOSEN(t, i)
	for (unsigned k = 0; k < c->pool_parts; k++)
		params[n++] = params_of(t, i, part, c);
	return 0;
}

int placement_choose(struct topo *t, const struct config *c)
{
	int missing, r = topo_choose(t, c->numa_nodes, &missing);

	if (r == -ENOENT)
		log_error("numa_nodes = %s: this machine has no node %d whose memory this process "
			  "may use",
			  c->numa_nodes, missing);
	return r;
}

int placement_init(struct placement *p, const struct topo *t, const struct config *c)
{
	unsigned n = topo_n_chosen(t) * c->pool_parts;
	FREE_MEMORY char(*why)[ARENA_WHY_BYTES] = calloc(n, sizeof(*why));
	struct progress progress = { .begun_ns = clock_now_ns(), .told = SIZE_MAX };
	struct arena_params params[POOL_MAX_NODES];
	size_t bytes = placement_wanted(t, c);
	double seconds;
	int r;

	*p = PLACEMENT_NULL;
	if (!why)
		return -ENOMEM;
	r = plan(t, c, params);
	if (r < 0)
		return r;
	r = arena_create_all(params, n, on_progress, &progress, p->arena, why);
	if (r == -ECANCELED)
		return r;
	if (r < 0) {
		tell_failure(params, n, bytes, r, why);
		return r;
	}
	p->n = n;
	count_shortfall(p, c);
	report(p, t, c, why);
	seconds = (double)(clock_now_ns() - progress.begun_ns) / 1e9;
	log_info("pool: %.1f GiB taken and cleared in %.2f s",
		 (double)placement_bytes(p) / (double)GIB, seconds);
	return 0;
}

/* ---- after a restart -------------------------------------------------------- */

static int adopt(struct placement *p, const struct topo *t, const struct catalogue_pool *pool,
		 struct kept *k, char *why)
{
	struct arena *a = &p->arena[p->n];
	int node = topo_find(t, pool->node) >= 0 ? pool->node : -1, r;
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

/* Whatever the configuration says: what is kept lies where it lies. */
static void choose_adopted(const struct placement *p, struct topo *t)
{
	cpu_set_t ids;

	CPU_ZERO(&ids);
	for (unsigned i = 0; i < p->n; i++)
		if (p->arena[i].node >= 0)
			CPU_SET((size_t)p->arena[i].node, &ids);
	topo_choose_set(t, &ids);
}

int placement_adopt(struct placement *p, struct topo *t, const struct config *c,
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
	choose_adopted(p, t);
	count_shortfall(p, c);
	report(p, t, c, NULL);
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
