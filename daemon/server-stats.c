/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gauges of the stats page: what changes without being counted. They are brought up to date
 * when somebody asks for the page, and never else: a daemon that nobody watches does nothing.
 */
#include <string.h>

#include "daemon/calibrate.h"
#include "daemon/layer.h"
#include "daemon/peer.h"
#include "daemon/record.h"
#include "daemon/seq.h"
#include "daemon/server-private.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "numa/bandwidth-file.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define LEAST_NS 100000000u /* between two refreshes */
/* A pass over more sequences than this goes on by itself, a part at a time, so that nobody waits
 * for more than one part. */
#define SLOTS_AT_ONCE 16384u
#define BETWEEN_PARTS_NS 10000000u
#define REFUSED_HELD 64u /* users whose connections wait to hear why they are refused */

int server_open_stats(struct server *s)
{
	const struct catalogue_header *h = catalogue_header(s->catalogue);
	struct stats_params params = {
		.n = {
			[STATS_CONTROL] = 1,
			[STATS_NODE] = s->topo.n_nodes + s->topo.n_chosen,
			[STATS_WORKER] = SERVER_MAX_WORKERS,
			/* Nobody else can have anything here. */
			[STATS_USER] = s->config.max_sessions + REFUSED_HELD + h->n_caches,
			[STATS_CACHE] = h->n_caches,
			[STATS_SEQUENCE] = h->n_sequences,
			[STATS_DEVICE] = STATS_DEVICES,
		},
		.generation = h->generation,
	};
	int r = stats_page_create(&params, &s->stats);
	struct stats_control *to;

	if (r < 0)
		return r;
	/* Until a pass over all sequences has ended. */
	to = stats_page_block(&s->stats, STATS_CONTROL, 0);
	to->parked = to->prefixes = STATS_UNKNOWN;
	for (unsigned i = 0; i < STATS_FORMATS; i++)
		to->rows[i] = STATS_UNKNOWN;
	stats_readers_find(&s->stats_readers);
	s->users.stats = &s->stats;
	s->store.stats = &s->stats;
	return 0;
}

/* ---- nodes ------------------------------------------------------------------ */

static void refresh_roofline(const struct server *s, unsigned index, struct stats_node *n)
{
	struct calibrated c;

	if (!calibrate_get(s->calibration, index, &c) || !c.bytes_s)
		return;
	stats_set(&n->roofline_bytes_s, c.bytes_s);
	stats_set(&n->calibrated_s, c.taken_s);
	stats_set(&n->calibrated_threads, c.n_threads);
}

static void set_source(struct stats_source *to, const char *name, const char *why,
		       const struct bandwidth_count *count)
{
	stats_page_text(to->name, sizeof(to->name), name);
	stats_page_text(to->why, sizeof(to->why), why);
	stats_set(&to->read_bytes, count->read_bytes);
	stats_set(&to->write_bytes, count->write_bytes);
	stats_set(&to->total_bytes, count->total_bytes);
}

/* By the kernel's number: sparqd-bandwidth may see more nodes than the daemon may use. */
static const struct bandwidth_entry *find_entry(const struct bandwidth_file *f, int node,
						unsigned source)
{
	for (uint32_t i = 0; i < f->n_nodes; i++)
		if (f->node[i].node == node)
			return &f->node[i].source[source];
	return NULL;
}

/* What hardware counts, as sparqd-bandwidth says it; else why not, for every node. */
static void refresh_sources(const struct server *s)
{
	static struct bandwidth_file file; /* too large for a stack; of the control thread alone */
	const struct bandwidth_count nothing = BANDWIDTH_NOTHING;
	char why[BANDWIDTH_WHY_BYTES] = "";
	int r = bandwidth_file_read(BANDWIDTH_FILE, (uint64_t)clock_now_ns(), &file, why);

	_Static_assert(BANDWIDTH_SOURCES == STATS_SOURCES, "sources");
	_Static_assert(BANDWIDTH_WHY_BYTES == STATS_TEXT, "reasons");
	_Static_assert(BANDWIDTH_UNKNOWN == STATS_UNKNOWN, "absent");
	for (unsigned i = 0; i < s->topo.n_nodes + s->topo.n_chosen; i++) {
		struct stats_node *n = stats_page_block(&s->stats, STATS_NODE, i);

		for (unsigned k = 0; k < STATS_SOURCES; k++) {
			const struct bandwidth_entry *e =
				r < 0 ? NULL : find_entry(&file, s->topo.node[i].id, k);

			if (e)
				set_source(&n->source[k], e->name, e->why, &e->count);
			else
				set_source(&n->source[k], bandwidth_sources[k]->name,
					   r < 0 ? why : "sparqd-bandwidth does not see this node",
					   &nothing);
		}
	}
}

/* A node may have several parts of the pool, and after a restart they are in another order. */
static void refresh_pool(const struct server *s, int node, struct stats_node *n)
{
	const struct placement *p = &s->placement;
	uint64_t bytes = 0, used_bytes = 0, misplaced = 0, strayed = 0;

	for (unsigned i = p->n; i-- > 0;) {
		const struct arena *a = &p->arena[i];

		if (a->node != node)
			continue;
		bytes += a->bytes;
		used_bytes += pool_node_used_bytes(&p->pool, i);
		misplaced += a->misplaced_pages;
		strayed += pool_node_strayed(&p->pool, i);
		refresh_roofline(s, i, n);
		stats_set(&n->page_bytes, a->page_bytes);
		stats_page_text(n->pages, sizeof(n->pages), arena_pages_name(a->pages));
	}
	stats_set(&n->pool_bytes, bytes);
	stats_set(&n->pool_used_bytes, used_bytes);
	stats_set(&n->misplaced_pages, misplaced);
	stats_set(&n->strayed_pages, strayed);
}

static void refresh_nodes(struct server *s)
{
	for (unsigned i = 0; i < s->topo.n_nodes + s->topo.n_chosen; i++) {
		struct stats_node *n = stats_page_block(&s->stats, STATS_NODE, i);
		uint32_t workers = 0;

		stats_set(&n->node, s->topo.node[i].id);
		for (unsigned w = 0; w < workers_count(s->workers); w++)
			workers += server_worker_node(s, w) == s->topo.node[i].id;
		stats_set(&n->workers, workers);
		refresh_pool(s, s->topo.node[i].id, n);
	}
}

/* ---- users ------------------------------------------------------------------ */

static void refresh_users(struct server *s)
{
	for (const struct user *u = s->users.first; u; u = u->next) {
		struct stats_user *to = u->stats;

		if (!to)
			continue;
		stats_set(&to->sessions, (uint32_t)load_relaxed(&u->charged[USER_SESSIONS]));
		stats_set(&to->queues, load_relaxed(&u->charged[USER_QUEUES]));
		stats_set(&to->caches, load_relaxed(&u->charged[USER_CACHES]));
		stats_set(&to->sequences, load_relaxed(&u->charged[USER_SEQUENCES]));
		stats_set(&to->charged_bytes, load_relaxed(&u->charged[USER_BYTES]));
		stats_set(&to->quota_bytes, load_relaxed(&u->limit[USER_BYTES]));
		stats_set(&to->spilled_bytes, load_relaxed(&u->charged[USER_SPILLED]));
		stats_set(&to->evicted_bytes, u->evicted_bytes);
		stats_set(&to->evicted_sequences, u->evicted_sequences);
	}
}

/* ---- caches ----------------------------------------------------------------- */

static void name_cache(struct stats_cache *to, const struct cache *c)
{
	const struct cache_record *r = c->record;

	stats_begin(&to->seq);
	stats_set(&to->id, c->id);
	stats_set(&to->uid, c->user->uid);
	stats_page_text(to->name, sizeof(to->name), r->name);
	stats_page_text(to->k_format, sizeof(to->k_format), r->k_format);
	stats_page_text(to->v_format, sizeof(to->v_format), r->v_format);
	stats_page_text(to->policy, sizeof(to->policy), r->policy);
	stats_set(&to->rows, 0);
	stats_end(&to->seq);
}

static struct stats_cache *cache_block(const struct server *s, const struct cache *c)
{
	return stats_page_block(&s->stats, STATS_CACHE, (uint32_t)c->id);
}

static void refresh_caches(struct server *s)
{
	struct stats_cache *to;

	for (const struct cache *c = s->store.caches; c; c = c->next) {
		to = cache_block(s, c);
		if (!to)
			continue;
		if (to->id != c->id)
			name_cache(to, c);
		stats_set(&to->sequences, c->n_sequences);
		stats_set(&to->bytes, load_relaxed(&c->charged_bytes));
		stats_set(&to->budget_bytes, c->budget_bytes);
		stats_set(&to->evicted_bytes, c->evicted_bytes);
		server_show_audit(c, to);
	}
	for (uint32_t i = 0; (to = stats_page_block(&s->stats, STATS_CACHE, i)); i++)
		if (to->id && catalogue_cache(s->catalogue, i)->generation != to->id >> 32)
			stats_set(&to->id, 0);
}

/* ---- sequences -------------------------------------------------------------- */

static uint32_t flags_of(const struct seq *s)
{
	const struct sequence_record *r = s->record;
	uint32_t flags = load_relaxed(&r->flags), ret = 0;

	ret |= load_relaxed(&s->session) ? 0 : STATS_SEQUENCE_PARKED;
	ret |= flags & SEQUENCE_PINNED ? STATS_SEQUENCE_PINNED : 0;
	ret |= flags & SEQUENCE_PREFIX ? STATS_SEQUENCE_PREFIX : 0;
	ret |= r->spilled ? STATS_SEQUENCE_SPILLED : 0;
	return ret;
}

static uint32_t rows_of(const struct seq *s)
{
	const struct sequence_record *r = s->record;

	if (!s->layer || !s->layer[0].record)
		return 0;
	return r->spilled ? s->layer[0].record->spilled_rows : seq_rows(s, 0);
}

static void walk_sequence(struct stats_walk *walk, struct seq *q)
{
	uint32_t flags = flags_of(q), rows = rows_of(q);

	/* These words are the control thread's: who holds it goes on counting beside them. */
	stats_set(&q->stats->flags, flags);
	stats_set(&q->stats->rows, rows);
	stats_set(&q->stats->bytes, load_relaxed(&q->bytes) + q->spilled_bytes);
	walk->parked += flags & STATS_SEQUENCE_PARKED ? 1 : 0;
	walk->prefixes += flags & STATS_SEQUENCE_PREFIX ? 1 : 0;
	if (q->cache->format_slot < STATS_FORMATS)
		walk->rows[q->cache->format_slot] += rows;
	q->cache->rows_walked += rows;
}

/* The sums of a whole walk, and the next one begins. */
static void end_walk(struct server *s)
{
	struct stats_control *to = stats_page_block(&s->stats, STATS_CONTROL, 0);
	struct stats_walk *walk = &s->stats_walk;

	stats_set(&to->parked, walk->parked);
	stats_set(&to->prefixes, walk->prefixes);
	for (unsigned i = 0; i < STATS_FORMATS; i++)
		stats_set(&to->rows[i], walk->rows[i]);
	for (struct cache *c = s->store.caches; c; c = c->next) {
		struct stats_cache *block = cache_block(s, c);

		if (block)
			stats_set(&block->rows, c->rows_walked);
		c->rows_walked = 0;
	}
	*walk = (struct stats_walk){ 0 };
}

static void walk_sequences(void *arg)
{
	struct server *s = arg;
	struct stats_walk *walk = &s->stats_walk;
	uint32_t end = MIN(s->store.max_sequences, walk->next + SLOTS_AT_ONCE);

	for (; walk->next < end; walk->next++) {
		struct seq *q = s->store.seq_by_slot[walk->next];

		if (q && load_relaxed(&q->id) && q->record && q->stats)
			walk_sequence(walk, q);
	}
	if (walk->next == s->store.max_sequences)
		end_walk(s);
	else
		loop_timer_set(s->loop, &s->stats_timer, BETWEEN_PARTS_NS, walk_sequences, s);
}

/* ---- all together ----------------------------------------------------------- */

static uint64_t depth_of(const struct queue *q)
{
	const struct ring_map *map = &q->ring.map;
	uint32_t head = load_relaxed(&map->ctl->sq_head), n = 0;

	/* The client can write these words: what it claims is a figure and nothing more. */
	while (n < map->sq_entries &&
	       load_relaxed(&map->sq[(head + n) & (map->sq_entries - 1)].seq) == head + n + 1)
		n++;
	return n;
}

static void refresh_sessions(const struct server *s, struct stats_control *to)
{
	uint64_t depth = 0, connections = 0;

	for (const struct peer *p = s->peers; p; p = p->next) {
		connections++;
		for (uint32_t i = 0; p->state == PEER_SERVING && i < p->session->n_queues; i++)
			depth += depth_of(&p->session->queue[i]);
	}
	stats_set(&to->sessions, s->n_sessions);
	stats_set(&to->connections, connections);
	stats_set(&to->refused_sessions, s->refused_sessions);
	stats_set(&to->queue_depth, depth);
	for (unsigned i = 0; i < STATS_FAULTS; i++)
		stats_set(&to->faults[i], s->broken[i]);
}

static void refresh_spill(const struct server *s, struct stats_control *to)
{
	struct spill_stat stat = spill_stat(s->spill);

	stats_set(&to->spilled.sequences, stat.sequences);
	stats_set(&to->spilled.bytes, stat.bytes);
	stats_set(&to->spilled_out.sequences, stat.spilled);
	stats_set(&to->spilled_out.bytes, stat.spilled_bytes);
	stats_set(&to->spilled_in.sequences, stat.loaded);
	stats_set(&to->spilled_in.bytes, stat.loaded_bytes);
}

static void refresh_moved(const struct server *s, struct stats_control *to)
{
	uint64_t away = STATS_UNKNOWN;

	rebalance_away(&s->rebalance, &away);
	stats_set(&to->away_pages, away);
	stats_set(&to->moved_pages, s->rebalance.mover.moved_pages);
	stats_set(&to->moved_bytes, s->rebalance.mover.moved_bytes);
}

static void refresh_control(const struct server *s, struct stats_control *to)
{
	const struct recovered *r = &s->recovered;
	uint64_t sequences = 0;

	for (const struct cache *c = s->store.caches; c; c = c->next)
		sequences += c->n_sequences;
	stats_set(&to->sequences, sequences);
	stats_set(&to->workers, workers_count(s->workers));
	stats_set(&to->pool_bytes, s->placement.pool.bytes);
	stats_set(&to->pool_used_bytes, load_relaxed(&s->placement.pool.used_bytes));
	stats_set(&to->unstriped_pages, load_relaxed(&s->placement.pool.unstriped));
	stats_set(&to->shortfall_bytes, s->placement.shortfall_bytes);
	stats_set(&to->segment_bytes, s->segment_bytes);
	stats_set(&to->catalogue_bytes, catalogue_header(s->catalogue)->bytes);
	for (unsigned i = 0; i < LIMITS; i++) {
		stats_set(&to->evicted[i].sequences, s->evictor.sum[i].sequences);
		stats_set(&to->evicted[i].bytes, s->evictor.sum[i].bytes);
	}
	stats_set(&to->recovered_sequences, r->sequences);
	stats_set(&to->recovered_rows, r->rows);
	stats_set(&to->recovered_dropped, r->dropped);
	stats_set(&to->recovery_ns, r->ns);
}

void server_refresh_stats(struct server *s)
{
	struct stats_control *to = stats_page_block(&s->stats, STATS_CONTROL, 0);
	uint64_t now = clock_now_ns();

	_Static_assert(LIMITS <= ARRAY_SIZE(((struct stats_control *)0)->evicted), "limits");
	if (to->updated_ns && now - to->updated_ns < LEAST_NS)
		return;
	refresh_nodes(s);
	server_refresh_devices(s);
	refresh_sources(s);
	refresh_users(s);
	refresh_caches(s);
	if (!s->stats_walk.next) /* else one is under way */
		walk_sequences(s);
	workers_refresh_stats(s->workers);
	refresh_sessions(s, to);
	refresh_spill(s, to);
	refresh_moved(s, to);
	refresh_control(s, to);
	server_refresh_audit(s, to);
	stats_set(&to->updated_ns, now);
}
