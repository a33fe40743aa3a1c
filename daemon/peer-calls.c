/* SPDX-License-Identifier: Apache-2.0 */
/* What a client asks for after its handshake: names, figures, caches, sequences. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer.h"
#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/doorbell.h"

_Static_assert(SPARQ_ERROR_TEXT == KV_ERROR_TEXT, "texts of kernels go to clients as they are");

/* ---- the daemon ----------------------------------------------------------- */

static const char *format_at(const struct server *s, uint32_t i)
{
	return kv_format_at(i);
}

static const char *policy_at(const struct server *s, uint32_t i)
{
	const struct kv_policy *policy = kv_policy_at(i, true);

	return policy ? policy->name : NULL;
}

static const char *device_at(const struct server *s, uint32_t i)
{
	return devices_name(s->store.devices, i);
}

static const struct {
	const char *kind;
	const char *(*at)(const struct server *s, uint32_t i);
} names[] = {
	{ "format", format_at },
	{ "policy", policy_at },
	{ "device", device_at },
};

static int call_name(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_name request = m->name;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *name;

		if (strcmp(request.kind, names[i].kind) != 0)
			continue;
		name = names[i].at(p->server, request.index);
		if (!name)
			return PEER_REFUSE(-ENOENT, "there is no %s number %" PRIu32, request.kind,
					   request.index);
		message_reply(m, &request.head);
		memcpy(m->name.kind, request.kind, sizeof(request.kind));
		m->name.index = request.index;
		snprintf(m->name.name, sizeof(m->name.name), "%s", name);
		return 0;
	}
	return PEER_REFUSE(-EINVAL, "kind \"%s\": format, policy or device is expected",
			   request.kind);
}

static int call_info(struct peer *p, union message *m, char *why)
{
	struct sparq_msg head = m->head;
	struct server *s = p->server;

	message_reply(m, &head);
	m->info.pool_bytes = s->placement.pool.bytes;
	m->info.pool_used_bytes = load_relaxed(&s->placement.pool.used_bytes);
	m->info.quota_bytes = load_relaxed(&p->user->limit[USER_BYTES]);
	m->info.charged_bytes = load_relaxed(&p->user->charged[USER_BYTES]);
	m->info.nodes = s->topo.n_nodes;
	m->info.workers = workers_count(s->workers);
	m->info.sessions = s->n_sessions;
	m->info.page_bytes = s->placement.arena[0].page_bytes;
	snprintf(m->info.version, sizeof(m->info.version), "%s", SPARQ_VERSION);
	snprintf(m->info.isa, sizeof(m->info.isa), "%s", kv_isa_name());
	return 0;
}

/* Made here, never taken from a client: a write to a foreign descriptor can block. */
static int call_queue_fd(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_queue request = m->queue;
	struct queue *q;
	int fd, r;

	if (request.queue >= p->session->n_queues)
		return PEER_REFUSE(-EINVAL, "queue %" PRIu32 ": this session has %" PRIu32,
				   request.queue, p->session->n_queues);
	q = &p->session->queue[request.queue];
	if (load_relaxed(&q->wake_fd) < 0) {
		r = waiter_pair(&fd, &q->client_end);
		if (r < 0)
			return r;
		/* The descriptor exists before the worker that writes to it can read its number. */
		store_release(&q->wake_fd, fd);
	}
	message_reply(m, &request.head);
	m->queue.queue = request.queue;
	p->out_fds[0] = q->client_end;
	p->n_out_fds = 1;
	return 0;
}

/* ---- caches --------------------------------------------------------------- */

/* Only those of this session: another's id is as good as none. */
struct peer_cache *peer_held_cache(struct peer *p, uint64_t id)
{
	for (uint32_t i = 0; i < p->n_caches; i++)
		if (p->cache[i].cache->id == id)
			return &p->cache[i];
	return NULL;
}

int peer_no_cache(uint64_t id, char *why)
{
	return PEER_REFUSE(-ENOENT, "cache %#" PRIx64 ": this session has no such cache", id);
}

/* They are counted in 32 bits and given back one by one when the session ends. */
#define CACHE_REFS_MAX 65535u

static int reserve_cache(struct peer *p)
{
	uint32_t room = MAX(2 * p->cache_room, 8u);
	struct peer_cache *cache;

	if (p->n_caches < p->cache_room)
		return 0;
	cache = realloc(p->cache, room * sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	p->cache = cache;
	p->cache_room = room;
	return 0;
}

int peer_hold_cache(struct peer *p, struct cache *cache, char *why)
{
	struct peer_cache *held = peer_held_cache(p, cache->id);
	int r = held ? 0 : reserve_cache(p);

	if (r == 0 && held && held->refs == CACHE_REFS_MAX)
		r = PEER_REFUSE(-EMFILE, "this session holds the cache %u times", CACHE_REFS_MAX);
	if (r < 0) {
		cache_unref(cache);
		return r;
	}
	if (!held) {
		held = &p->cache[p->n_caches++];
		*held = (struct peer_cache){ .cache = cache };
	}
	held->refs++;
	/* Made by this call, or found by a restart, whose first owner goes on: who attaches later
	 * finds another's. */
	if (!cache->creator)
		cache->creator = p->session->id;
	return 0;
}

static int call_cache_create(struct peer *p, union message *m, char *why)
{
	struct sparq_msg head = m->head;
	struct cache *cache;
	int r = cache_create(&p->server->store, p->user, &m->cache_create, &cache, why);

	if (r == DEVICE_LATER)
		return peer_await_device(p);
	if (r == 0)
		r = peer_hold_cache(p, cache, why);
	if (r < 0)
		return r;
	message_reply(m, &head);
	m->cache.cache = cache->id;
	return 0;
}

static int call_cache_unref(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_cache request = m->cache;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	struct cache *cache;

	if (!held)
		return peer_no_cache(request.cache, why);
	cache = held->cache;
	if (--held->refs == 0)
		*held = p->cache[--p->n_caches];
	cache_leave(cache);
	message_reply(m, &request.head);
	m->cache.cache = request.cache;
	return 0;
}

static int call_cache_set(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_cache_set request = m->cache_set;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	int r;

	if (!held)
		return peer_no_cache(request.cache, why);
	r = cache_set(held->cache, request.key, request.value, why);
	if (r < 0)
		return r;
	message_reply(m, &request.head);
	return 0;
}

static int call_cache_table(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_cache_table request = m->cache_table;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	int r;

	if (!held)
		return peer_no_cache(request.cache, why);
	if (held->cache->creator != p->session->id)
		return PEER_REFUSE(-EPERM,
				   "cache %#" PRIx64
				   ": only the session that made it loads its tables",
				   request.cache);
	do
		r = channels_load(held->cache, &request, why);
	while (r < 0 && peer_has_room(p, &r));
	if (r)
		return r;
	message_reply(m, &request.head);
	return 0;
}

/* As the wire calls it. */
static uint32_t placement_told(const struct cache *c)
{
	static const uint32_t told[] = {
		[SPREAD_LOCAL] = SPARQ_PLACEMENT_LOCAL,
		[SPREAD_HEADS] = SPARQ_PLACEMENT_HEADS,
		[SPREAD_ROWS] = SPARQ_PLACEMENT_ROWS,
	};

	return told[c->spread];
}

static int call_cache_stat(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_cache request = m->cache;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	struct sparq_msg head;

	if (!held)
		return peer_no_cache(request.cache, why);
	message_reply(m, &request.head);
	head = m->head; /* cache_stat may clear what it fills */
	cache_stat(held->cache, &m->cache_stat);
	m->head = head;
	m->head.rsv = placement_told(held->cache);
	m->cache_stat.cache = request.cache;
	return 0;
}

/* ---- sequences ------------------------------------------------------------ */

static int find_seq(struct peer *p, uint64_t id, struct seq **ret, char *why)
{
	struct seq *s = seq_find(&p->server->store, p->user, p->session->id, id);

	if (!s)
		return PEER_REFUSE(-ENOENT,
				   "sequence %#" PRIx64 ": this session has no such sequence", id);
	*ret = s;
	return 0;
}

static int check_rows(uint64_t rows, char *why)
{
	if (rows < SPARQ_ROW_LIMIT)
		return 0;
	return PEER_REFUSE(-EINVAL, "%" PRIu64 " rows: fewer than %u", rows, SPARQ_ROW_LIMIT);
}

static int reply_seq(union message *m, const struct sparq_msg *request, uint64_t id, uint64_t rows)
{
	message_reply(m, request);
	m->seq.sequence = id;
	m->seq.rows = rows;
	return 0;
}

static int call_seq_create(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_create request = m->seq_create;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	struct seq *s;
	int r;

	if (!held)
		return peer_no_cache(request.cache, why);
	do
		r = seq_create(held->cache, request.name, p->session->id, &s, why);
	while (r < 0 && peer_has_room(p, &r));
	return r ? r : reply_seq(m, &request.head, s->id, 0);
}

/* Its new owner goes on where every layer has its rows. */
static int call_seq_attach(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq_create request = m->seq_create;
	struct peer_cache *held = peer_held_cache(p, request.cache);
	struct sparq_msg_seq_stat stat;
	struct seq *s;
	int r;

	if (!held)
		return peer_no_cache(request.cache, why);
	r = seq_attach(held->cache, request.name, p->session->id, &s, why);
	if (r == SEQ_ELSEWHERE)
		r = peer_await(p, s, why);
	if (r)
		return r;
	r = seq_stat(s, SPARQ_LAYER_ALL, &stat);
	return r < 0 ? r : reply_seq(m, &request.head, s->id, stat.rows_least);
}

static int call_seq_fork(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct seq *parent, *child;
	int r = find_seq(p, request.sequence, &parent, why);

	if (r == 0)
		r = check_rows(request.rows, why);
	if (r < 0)
		return r;
	do
		r = seq_fork(parent, (uint32_t)request.rows, p->session->id, &child, why);
	while (r < 0 && peer_has_room(p, &r));
	return r ? r : reply_seq(m, &request.head, child->id, request.rows);
}

static int call_seq_drop(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct seq *s;
	int r = find_seq(p, request.sequence, &s, why);

	if (r == 0)
		r = seq_retire(s, why);
	return r < 0 ? r : reply_seq(m, &request.head, request.sequence, 0);
}

static int call_seq_truncate(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct seq *s;
	int r = find_seq(p, request.sequence, &s, why);

	if (r == 0)
		r = check_rows(request.rows, why);
	if (r == 0)
		r = seq_truncate(s, (uint32_t)request.rows, why);
	return r < 0 ? r : reply_seq(m, &request.head, request.sequence, request.rows);
}

static int call_seq_stat(struct peer *p, union message *m, char *why)
{
	struct sparq_msg_seq request = m->seq;
	struct sparq_msg head;
	struct seq *s;
	int r = find_seq(p, request.sequence, &s, why);

	if (r < 0)
		return r;
	if (request.rows != SPARQ_LAYER_ALL && request.rows >= s->cache->record->layers)
		return PEER_REFUSE(-EINVAL, "layer %" PRIu64 ": below %" PRIu32 ", or %u for all",
				   request.rows, s->cache->record->layers, SPARQ_LAYER_ALL);
	message_reply(m, &request.head);
	head = m->head;
	r = seq_stat(s, (uint32_t)request.rows, &m->seq_stat);
	m->head = head;
	m->head.rsv = placement_told(s->cache);
	m->seq_stat.sequence = request.sequence;
	return r;
}

/* ---- the table ------------------------------------------------------------ */

static int call_too_early(struct peer *p, union message *m, char *why)
{
	return PEER_REFUSE(-EPROTO, "%s comes after HELLO and MAPPED", message_name(m->head.type));
}

static const struct {
	uint16_t type;
	peer_call_fn *call;
} calls[] = {
	{ SPARQ_MSG_NAME, call_name },
	{ SPARQ_MSG_INFO, call_info },
	{ SPARQ_MSG_QUEUE_FD, call_queue_fd },
	{ SPARQ_MSG_CACHE_CREATE, call_cache_create },
	{ SPARQ_MSG_CACHE_UNREF, call_cache_unref },
	{ SPARQ_MSG_CACHE_SET, call_cache_set },
	{ SPARQ_MSG_CACHE_STAT, call_cache_stat },
	{ SPARQ_MSG_CACHE_TABLE, call_cache_table },
	{ SPARQ_MSG_CACHE_ATTACH, peer_cache_attach },
	{ SPARQ_MSG_SEQ_CREATE, call_seq_create },
	{ SPARQ_MSG_SEQ_ATTACH, call_seq_attach },
	{ SPARQ_MSG_SEQ_FORK, call_seq_fork },
	{ SPARQ_MSG_SEQ_DROP, call_seq_drop },
	{ SPARQ_MSG_SEQ_TRUNCATE, call_seq_truncate },
	{ SPARQ_MSG_SEQ_STAT, call_seq_stat },
	{ SPARQ_MSG_SEQ_ADOPT, peer_seq_adopt },
	{ SPARQ_MSG_SEQ_EXPORT, peer_seq_export },
	{ SPARQ_MSG_SEQ_IMPORT, peer_seq_import },
	{ SPARQ_MSG_SEQ_IMPORT_PIECE, peer_seq_import_piece },
	{ SPARQ_MSG_SEQ_IMPORT_END, peer_seq_import_end },
	{ SPARQ_MSG_SEQ_PREFETCH, peer_seq_prefetch },
	{ SPARQ_MSG_SEQ_TOKENS, peer_seq_tokens },
	{ SPARQ_MSG_SEQ_CREATE_PREFIX, peer_seq_create_prefix },
	{ SPARQ_MSG_SEQ_PIN, peer_seq_pin },
};

peer_call_fn *peer_call(const struct peer *p, uint16_t type)
{
	if (type == SPARQ_MSG_HELLO)
		return peer_hello;
	if (type == SPARQ_MSG_MAPPED)
		return peer_mapped;
	if (type == SPARQ_MSG_STATS)
		return peer_stats;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].type == type)
			return p->state == PEER_SERVING ? calls[i].call : call_too_early;
	return NULL;
}
