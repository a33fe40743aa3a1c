/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of the server: found again, or made. What is made is handed over,
 * pools first and then the catalogue that speaks of them, before the first client
 * is served; what a start leaves that ended earlier than that holds nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "daemon/point.h"
#include "daemon/recover.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "shm/base.h"
#include "shm/probe.h"

static int failed(const char *what, int error)
{
	log_error("%s: %s", what, strerror(-error));
	return error;
}

/* ---- made ----------------------------------------------------------------------- */

/* A client knows a new daemon from the one it left by another number. The catalogue counts them;
 * where there was none, what was counted before is not known. */
static uint32_t first_generation(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint32_t)now.tv_sec ^ (uint32_t)getpid() << 16;
}

static int create_catalogue(struct server *s)
{
	const struct config *c = &s->config;
	struct catalogue_pool pool[POOL_MAX_NODES];
	struct catalogue_params params = {
		.bytes = c->catalogue_bytes,
		.max_caches = c->max_caches,
		.max_sequences = c->max_sequences,
		.generation = first_generation(),
		.pool = pool,
		.n_pools = placement_pools(&s->placement, pool),
	};
	int r = catalogue_create(&params, &s->catalogue);

	if (r == -EINVAL) {
		log_error("catalogue_bytes = %" PRIu64 " is too small for max_caches = %" PRIu32
			  " and max_sequences = %" PRIu32,
			  c->catalogue_bytes, c->max_caches, c->max_sequences);
		return r;
	}
	return r < 0 ? failed("the catalogue", r) : 0;
}

/* Of a start that ended before it had a catalogue. */
static void drop_leftovers(struct server *s)
{
	char name[KEEP_NAME_BYTES];

	for (unsigned i = 0; kept_left(&s->kept) > 0 && i < KEEP_MOST; i++) {
		int fd;

		keep_pool_name(i, name);
		fd = kept_steal(&s->kept, name);
		if (fd < 0)
			continue;
		close(fd);
		keep_drop(name);
	}
}

static int hand_over(struct server *s)
{
	char name[KEEP_NAME_BYTES];
	int r = 0;

	for (unsigned i = 0; i < s->placement.n && r == 0; i++) {
		keep_pool_name(i, name);
		r = keep_push(name, s->placement.arena[i].fd);
	}
	POINT(start_pools_kept);
	if (r == 0)
		r = keep_push(KEEP_CATALOGUE, catalogue_fd(s->catalogue));
	if (r == 0)
		r = keep_settle();
	POINT(start_kept);
	return r;
}

static int make_memory(struct server *s)
{
	int r;

	drop_leftovers(s);
	r = placement_choose(&s->topo, &s->config);
	if (r < 0)
		return r; /* it said why */
	r = placement_init(&s->placement, &s->topo, &s->config);
	if (r < 0)
		return r; /* it said why */
	r = create_catalogue(s);
	if (r < 0)
		return r;
	r = hand_over(s);
	s->unkept = r < 0;
	if (r == 0 && keep_kind() == KEEP_NONE)
		log_info("nobody keeps the memory: KV ends with this daemon (sparq-recovery(7))");
	if (r < 0)
		log_event(EVENT_NOT_KEPT, NULL,
			  "%s does not take the memory (%s): KV will not outlive this daemon",
			  keep_kind_name(keep_kind()), strerror(-r));
	return placement_open_pool(&s->placement, catalogue_notes(s->catalogue), false);
}

/* ---- found again ------------------------------------------------------------------ */

/* Sizes are of the memory that is there: a configuration that says otherwise must wait. */
static void compare_sizes(const struct server *s)
{
	const struct catalogue_header *h = catalogue_header(s->catalogue);
	const struct config *c = &s->config;
	const struct {
		const char *key;
		uint64_t have, want, told; /* as it is rounded, and as it was said */
		uint64_t more;             /* that a memfd may have of it */
	} sizes[] = {
		{ "pool_bytes", placement_bytes(&s->placement), placement_planned(&s->topo, c),
		  c->pool_bytes, 0 },
		{ "catalogue_bytes", h->bytes, c->catalogue_bytes, c->catalogue_bytes, 2 * MIB },
		{ "max_caches", h->n_caches, c->max_caches, c->max_caches, 0 },
		{ "max_sequences", h->n_sequences, c->max_sequences, c->max_sequences, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		/* 0 is whatever it was. */
		if (sizes[i].told && (sizes[i].have < sizes[i].want ||
				      sizes[i].have - sizes[i].want > sizes[i].more))
			log_warning("%s = %" PRIu64 ": what is kept has %" PRIu64
				    "; a stop and a start change it, and drop the KV",
				    sizes[i].key, sizes[i].told, sizes[i].have);
}

static void tell(const struct server *s, const struct recovered *r)
{
	PROBE4(recover, r->caches, r->sequences, r->rows, r->ns);
	log_event(EVENT_RECOVERED, NULL,
		  "recovered %" PRIu32 " caches, %" PRIu32 " sequences, %" PRIu64
		  " rows in %" PRIu64 " MiB of pages in %.1f ms; %" PRIu32
		  " records dropped; generation %" PRIu32,
		  r->caches, r->sequences, r->rows, r->bytes / MIB, (double)r->ns / 1e6, r->dropped,
		  catalogue_header(s->catalogue)->generation);
}

static void on_reattach(void *arg)
{
	struct server *s = arg;
	uint32_t n = recover_expire(&s->store);

	if (n > 0)
		log_event(EVENT_EXPIRED, NULL,
			  "%" PRIu32 " sequences that nobody took up within reattach_s = %" PRIu32
			  " are dropped, as their caches say",
			  n, s->config.reattach_s);
}

/* The same nodes as if the pool were made now? */
static bool lies_as_told(const struct topo *now, struct topo *told, const char *list)
{
	int missing;

	*told = *now;
	if (topo_choose(told, list, &missing) < 0)
		return false;
	for (unsigned i = 0; i < topo_all(told); i++)
		if (told->node[i].left_out != now->node[topo_find(now, told->node[i].id)].left_out)
			return false;
	return true;
}

static void compare_nodes(const struct server *s)
{
	FREE_MEMORY struct topo *told = malloc(sizeof(*told));
	const char *list = s->config.numa_nodes;

	if (told && !lies_as_told(&s->topo, told, list))
		log_warning("numa_nodes = %s: what is kept lies on other nodes; a stop and a start "
			    "change it, and drop the KV",
			    *list ? list : "(those with CPUs)");
}

/* 0 also if it is refused. */
static int find_memory(struct server *s, int catalogue)
{
	char why[KEEP_WHY_BYTES] = "";
	int r = catalogue_adopt(catalogue, &s->catalogue, why);

	close(catalogue);
	if (r == 0)
		r = placement_adopt(&s->placement, &s->topo, &s->config,
				    catalogue_header(s->catalogue), &s->kept, why);
	if (r < 0) {
		s->catalogue = catalogue_free(s->catalogue);
		placement_deinit(&s->placement);
		server_refuse(s, r == -EPROTONOSUPPORT ? r : -EUCLEAN, "%s", why);
		return 0;
	}
	compare_sizes(s);
	compare_nodes(s);
	return placement_open_pool(&s->placement, catalogue_notes(s->catalogue), true);
}

static int recover(struct server *s)
{
	int r = recover_store(&s->store, &s->recovered);

	if (r < 0)
		return failed("recovery", r);
	tell(s, &s->recovered);
	loop_timer_set(s->loop, &s->reattach, s->config.reattach_s * UINT64_C(1000000000),
		       on_reattach, s);
	return 0;
}

/* ---- what is on a disk -------------------------------------------------------------- */

static void on_spill(void *arg)
{
	struct server *s = arg;

	server_changed(s);
	/* Who waits for room looks again, from the loop: this may be told from within a look. */
	evict_call(&s->evictor);
}

static enum evicted make_room(void *arg, struct user *u, const struct shortage *shortage)
{
	struct server *s = arg;

	return evict_or_spill_for(&s->evictor, u, shortage);
}

/* Before recovery, which has to know what is there. */
static int open_spill(struct server *s)
{
	const struct spill_hooks hooks = { .changed = on_spill, .make_room = make_room, .arg = s };
	int r = spill_open(&s->store, s->loop, &s->config, &s->spill);

	if (r == 0)
		spill_hook(s->spill, &hooks);
	return r;
}

/* Nothing of them is taken before a cache asks for one. */
static int make_devices(struct server *s)
{
	struct devices_params params = {
		.pool = &s->placement.pool,
		.arena = s->placement.arena,
		.n_arenas = s->placement.n,
		.module = s->config.cuda_module,
		.memory_bytes = s->config.device_bytes,
	};

	s->device_fd = params.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->device_fd < 0 ? -errno : devices_new(&params, &s->store.devices);
}

/* ---- either ------------------------------------------------------------------------- */

int server_open_store(struct server *s)
{
	int catalogue, r = topo_read("/", &s->topo);

	if (r < 0)
		return failed("the machine's topology", r);
	if (s->kept.error) {
		server_refuse(s, s->kept.error, "%s", s->kept.why);
		return 0;
	}
	catalogue = kept_steal(&s->kept, KEEP_CATALOGUE);
	r = catalogue >= 0 ? find_memory(s, catalogue) : make_memory(s);
	if (r < 0 || s->refused)
		return r;
	server_limit_users(s);
	r = store_init(&s->store, &s->placement.pool, s->catalogue, &s->users, s->config.max_rows);
	if (r == 0)
		r = server_open_stats(s);
	s->store.spread = s->config.placement;
	if (r == 0)
		r = make_devices(s);
	if (r == 0)
		r = evict_init(&s->evictor, &s->store);
	if (r == 0)
		r = open_spill(s);
	if (r < 0)
		return failed("the store", r);
	r = catalogue >= 0 ? recover(s) : 0;
	if (r == 0)
		spill_adopted(s->spill);
	return r;
}
