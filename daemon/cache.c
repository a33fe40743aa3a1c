/* SPDX-License-Identifier: Apache-2.0 */
/* Caches as the control thread sees them: see cache.h. */
#include "daemon/cache.h"

#include <assert.h>
#include <string.h>

#include "daemon/cache-params.h"
#include "daemon/census.h"
#include "daemon/format-list.h"
#include "daemon/layer.h"
#include "daemon/name.h"
#include "daemon/point.h"
#include "daemon/seq.h"
#include "daemon/store.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/stats-page.h"

/* ---- store ------------------------------------------------------------------------ */

int store_init(struct store *s, struct pool *pool, struct catalogue *catalogue, struct users *users,
	       uint32_t max_rows)
{
	const struct catalogue_header *h = catalogue_header(catalogue);
	FREE_MEMORY struct seq **seqs = calloc(h->n_sequences, sizeof(*seqs));
	FREE_MEMORY struct table *tables = calloc(h->n_blocks, sizeof(*tables));
	struct prefixes prefixes;
	int r;

	if (!seqs || !tables || prefixes_init(&prefixes, h->n_blocks) < 0)
		return -ENOMEM;
	*s = (struct store){
		.pool = pool,
		.catalogue = catalogue,
		.users = users,
		.seq_by_slot = STEAL_PTR(seqs),
		.tables = STEAL_PTR(tables),
		.prefixes = prefixes,
		.max_sequences = h->n_sequences,
		.max_rows = MIN(max_rows, SPARQ_ROW_LIMIT),
		.spread = SPREAD_HEADS,
		.parts = spread_parts(pool),
		.room_fd = -1,
	};
	r = names_init(s);
	if (r < 0)
		store_deinit(s);
	return r;
}

void store_deinit(struct store *s)
{
	/* The catalogue keeps what is live; this is the heap's part. */
	for (uint32_t i = 0; s->seq_by_slot && i < s->max_sequences; i++)
		seq_forget(s->seq_by_slot[i]);
	while (s->caches) {
		struct cache *c = s->caches;

		s->caches = c->next;
		users_put(s->users, c->user);
		free(c->channels.table);
		free(c);
	}
	free(s->seq_by_slot);
	free(s->tables);
	prefixes_deinit(&s->prefixes);
	names_deinit(s);
	*s = (struct store){ 0 };
}

/* ---- caches ----------------------------------------------------------------------- */

struct cache *cache_find_named(struct store *s, const struct user *user, const char *name)
{
	for (struct cache *c = s->caches; c; c = c->next)
		if (c->user == user && *name && !strcmp(c->record->name, name))
			return c;
	return NULL;
}

static int attach(struct cache *c, const struct cache_record *wanted, struct cache **ret, char *why)
{
	int r;

	r = cache_params_compare(c->record, wanted, why);
	if (r < 0)
		return r;
	c->n_sessions++;
	*ret = c;
	return 0;
}

/* Could its largest page ever be taken? */
static int check_fits(const struct cache *c, char *why)
{
	const struct pool *pool = c->store->pool;

	for (uint32_t i = 0; i < c->spaces.n; i++) {
		size_t head = kv_extent_bytes(&c->spaces.space[i], KV_EXTENT_TILES);
		struct page_size size = spread_size(c, head);

		if (!pool_could_take(pool, size))
			return why_fail(why, ENOSPC,
					"%u rows of a layer take %llu bytes at once, the pool has "
					"%llu on %u nodes",
					KV_EXTENT_TILES * KV_TILE_ROWS,
					(unsigned long long)pool_charge(pool, size),
					(unsigned long long)pool->bytes, pool->n_nodes);
	}
	return 0;
}

/* Its place in the header of the stats page. */
static uint32_t policy_slot(const struct kv_policy *policy)
{
	uint32_t i = 0;

	while (i < STATS_POLICY_NONE && kv_policy_at(i, false) != policy)
		i++;
	return i;
}

static uint32_t format_slot(const struct cache_record *r)
{
	struct format_list list;
	char why[KV_ERROR_TEXT];

	/* It was settled, so it can be parsed. */
	return format_list_parse("k_format", r->k_format, r->layers, &list, why) < 0
		       ? STATS_FORMATS
		       : list.of_layer[0];
}

/* The heap's part, with parameters that kernels accept. */
static int build(struct store *s, uid_t uid, const struct cache_record *params, struct cache **ret,
		 char *why)
{
	FREE_MEMORY struct cache *c = calloc(1, sizeof(*c));
	struct device_use use = { .rows = DEVICE_ROWS_ALL };
	int r;

	if (!c)
		return why_fail(why, ENOMEM, "out of memory");
	c->store = s;
	c->spread = (enum spread)params->placement;
	if (c->spread == SPREAD_HEADS && s->parts.n > 1)
		c->parts = &s->parts;
	r = cache_params_settle(params, c->args, &c->spaces, why);
	if (r == 0)
		r = devices_find(s->devices, params->device, &use, why);
	c->device = use.device;
	c->device_rows = use.rows;
	if (r == 0)
		r = check_fits(c, why);
	if (r < 0)
		return r;
	c->budget_bytes = params->budget_bytes;
	c->rollback = params->rollback;
	c->timeout_us = params->timeout_us;
	c->on_disconnect = (enum on_disconnect)params->on_disconnect;
	c->evict = (enum evict_policy)params->evict;
	c->n_sessions = 1;
	evict_queues_init(&c->queues);
	c->policy_slot = policy_slot(cache_shape(c)->policy);
	c->format_slot = format_slot(params);
	r = users_get(s->users, uid, &c->user);
	if (r < 0)
		return why_fail(why, ENOMEM, "out of memory");
	*ret = STEAL_PTR(c);
	return 0;
}

static void enlist(struct cache *c, uint32_t slot)
{
	c->record = catalogue_cache(c->store->catalogue, slot);
	c->id = id_make(slot, c->record->generation);
	c->next = c->store->caches;
	c->store->caches = c;
}

static void publish(struct cache *c, uint32_t slot, const struct cache_record *params)
{
	struct cache_record *r = catalogue_cache(c->store->catalogue, slot);
	size_t fixed = offsetof(struct cache_record, uid);

	memcpy((char *)r + fixed, (const char *)params + fixed, sizeof(*r) - fixed);
	r->uid = c->user->uid;
	POINT(cache_filled);
	catalogue_publish_cache(c->store->catalogue, slot);
	POINT(cache_published);
	enlist(c, slot);
}

static int take_slot(struct store *s, struct user *user, uint32_t *ret_slot, char *why)
{
	int r;

	if (user_charge(user, USER_CACHES, 1) < 0)
		return why_fail(why, EDQUOT, "caches: the limit of %llu per user is reached",
				(unsigned long long)load_relaxed(&user->limit[USER_CACHES]));
	r = catalogue_take_cache(s->catalogue, ret_slot);
	if (r < 0) {
		user_refund(user, USER_CACHES, 1);
		return why_fail(why, ENOSPC, "caches: all %u slots of this daemon are taken",
				catalogue_header(s->catalogue)->n_caches);
	}
	return 0;
}

static int settle_placement(const struct store *s, struct cache_record *params, char *why)
{
	enum spread spread;
	int r = spread_settle(s->pool, (enum spread)params->placement, s->spread, params->kv_heads,
			      &spread, why);

	if (r == 0)
		params->placement = (uint16_t)spread;
	return r;
}

/* 0: it is open, or what it is wanted for needs none. */
static int open_device(struct store *s, const char *name, char *why)
{
	struct device_use use;
	int r = devices_find(s->devices, name, &use, why);

	return r == 0 && use.device ? device_open(use.device, why) : r;
}

/* Nothing is left to another processor that the device was asked to do. */
static int check_device(const struct cache *c, const char *device, char *why)
{
	char part[KV_ERROR_TEXT];
	int r = 0;

	for (uint32_t i = 0; r == 0 && c->device && i < c->spaces.n; i++)
		r = device_serves(c->device, &c->spaces.space[i], why);
	if (r == 0 && c->device_rows != DEVICE_ROWS_ALL && kv_splits(cache_shape(c), part) < 0)
		r = why_fail(why, EOPNOTSUPP, "device \"%.32s\": %.180s", device, part);
	return r;
}

int cache_create(struct store *s, struct user *user, const struct sparq_msg_cache_create *m,
		 struct cache **ret, char *why)
{
	struct cache_record params;
	struct cache *c;
	uint32_t slot;
	int r;

	r = cache_params_parse(m, &params, why);
	if (r < 0)
		return r;
	c = cache_find_named(s, user, params.name);
	r = open_device(s, params.device, why);
	/* What a device fails to do is no reason to keep a cache from who has rows there. */
	if (c && r != DEVICE_LATER)
		return attach(c, &params, ret, why);
	if (r == 0)
		r = settle_placement(s, &params, why);
	if (r == 0)
		r = build(s, user->uid, &params, &c, why);
	if (r)
		return r;
	r = check_device(c, params.device, why);
	if (r == 0)
		r = take_slot(s, user, &slot, why);
	if (r < 0) {
		users_put(s->users, c->user);
		free(c);
		return r;
	}
	publish(c, slot, &params);
	*ret = c;
	return 0;
}

/* What cache_params_parse made sure of, and settling it does not. */
static int check_record(const struct cache_record *r, char *why)
{
	const struct {
		const char *text;
		size_t n;
	} texts[] = {
		{ r->name, sizeof(r->name) },         { r->k_format, sizeof(r->k_format) },
		{ r->v_format, sizeof(r->v_format) }, { r->policy, sizeof(r->policy) },
		{ r->device, sizeof(r->device) },     { r->model, sizeof(r->model) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!memchr(texts[i].text, 0, texts[i].n))
			return why_fail(why, EUCLEAN, "a text of it has no end");
	if (!r->layers || r->layers > MAX_LAYERS || r->sinks > KV_MAX_SINKS ||
	    r->rollback > KV_MAX_ROLLBACK || r->outliers > KV_MAX_OUTLIERS ||
	    r->on_disconnect > ON_DISCONNECT_PARK || r->evict > EVICT_LFU ||
	    r->placement > SPREAD_ROWS)
		return why_fail(why, EUCLEAN, "a parameter of it is out of range");
	return 0;
}

static void let_go(struct cache *c)
{
	struct store *s = c->store;
	struct cache **at = &s->caches;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	user_refund(c->user, USER_CACHES, 1);
	users_put(s->users, c->user);
	free(c);
}

int cache_revive(struct store *s, uint32_t slot, struct cache **ret, char *why)
{
	const struct cache_record *record = catalogue_cache(s->catalogue, slot);
	struct cache *c;
	int r;

	r = check_record(record, why);
	if (r == 0 && record->placement == SPREAD_HEADS && record->kv_heads < s->pool->n_nodes)
		r = why_fail(why, EUCLEAN, "its KV heads do not reach all nodes");
	if (r == 0)
		r = build(s, record->uid, record, &c, why);
	if (r < 0)
		return r == -ENOMEM ? r : -EUCLEAN;
	c->n_sessions = 0;
	user_restore(c->user, USER_CACHES, 1);
	enlist(c, slot);
	r = channels_revive(c, why);
	if (r < 0) {
		let_go(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct cache *cache_find(struct store *s, const struct user *user, uint64_t id)
{
	for (struct cache *c = s->caches; c; c = c->next)
		if (c->id == id && c->user == user)
			return c;
	return NULL;
}

void cache_drop_unused(struct cache *c)
{
	if (c->n_sessions || c->n_sequences || load_acquire(&c->audits))
		return;
	channels_clear(c);
	assert(load_acquire(&c->charged_bytes) == 0);
	catalogue_drop_cache(c->store->catalogue, id_slot(c->id));
	let_go(c);
}

void cache_unref(struct cache *c)
{
	assert(c->n_sessions > 0);
	c->n_sessions--;
	cache_drop_unused(c);
}

void cache_leave(struct cache *c)
{
	/* Nobody will ask it for them again. */
	if (c->n_sessions == 1 && !*c->record->name)
		prefix_drop_all(c);
	cache_unref(c);
}

int cache_set(struct cache *c, const char *key, const char *value, char *why)
{
	struct cache_record params = *c->record;
	uint32_t slot = id_slot(c->id);
	int r;

	if (c->n_sequences)
		return why_fail(why, EBUSY,
				"%.32s: the cache has sequences; set it before the first", key);
	r = cache_params_set(&params, key, value, why);
	if (r == 0)
		r = cache_params_settle(&params, c->args, &c->spaces, why);
	if (r < 0)
		return r;
	/* Not LIVE for an instant: a crash here loses a cache that holds nothing. */
	store_release(&c->record->state, RECORD_BUILDING);
	POINT(cache_unset);
	memcpy(c->record->args, params.args, sizeof(params.args));
	catalogue_publish_cache(c->store->catalogue, slot);
	return 0;
}

void cache_stat(const struct cache *c, struct sparq_msg_cache_stat *ret)
{
	const struct cache_record *r = c->record;

	ret->cache = c->id;
	ret->sequences = c->n_sequences;
	ret->rows = load_relaxed(&c->rows);
	ret->bytes = load_relaxed(&c->charged_bytes);
	ret->budget_bytes = c->budget_bytes;
	ret->row_bytes = 0;
	for (uint32_t i = 0; i < r->layers; i++)
		ret->row_bytes += kv_row_bytes(cache_layer(c, i));
	ret->dense_row_bytes = (uint64_t)r->layers * r->kv_heads * (r->k_dim + r->v_dim) * 2;
}

/* ---- charging --------------------------------------------------------------------- */

/* Its user, for what lies on a device as well. */
static int charge_user(struct cache *c, uint64_t bytes)
{
	int r = user_charge(c->user, USER_BYTES, bytes);

	if (r < 0 || !c->device)
		return r;
	r = user_charge(c->user, USER_DEVICE_BYTES, bytes);
	if (r < 0)
		user_refund(c->user, USER_BYTES, bytes);
	else
		device_charge(c->device, (int64_t)bytes);
	return r;
}

int cache_charge(struct cache *c, uint64_t bytes)
{
	uint64_t limit = c->budget_bytes ? c->budget_bytes : UINT64_MAX;
	uint64_t now = load_relaxed(&c->charged_bytes);
	int r;

	do {
		if (now > limit || bytes > limit - now)
			return -ENOSPC;
	} while (!compare_exchange(&c->charged_bytes, &now, now + bytes));
	r = charge_user(c, bytes);
	if (r < 0)
		fetch_sub(&c->charged_bytes, bytes);
	return r;
}

void cache_refund(struct cache *c, uint64_t bytes)
{
	uint64_t before = fetch_sub(&c->charged_bytes, bytes);

	assert(before >= bytes);
	(void)before;
	user_refund(c->user, USER_BYTES, bytes);
	if (!c->device)
		return;
	user_refund(c->user, USER_DEVICE_BYTES, bytes);
	device_charge(c->device, -(int64_t)bytes);
}

void cache_restore(struct cache *c, uint64_t bytes)
{
	fetch_add(&c->charged_bytes, bytes);
	user_restore(c->user, USER_BYTES, bytes);
	if (!c->device)
		return;
	user_restore(c->user, USER_DEVICE_BYTES, bytes);
	device_charge(c->device, (int64_t)bytes);
}
