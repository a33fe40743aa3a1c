/* SPDX-License-Identifier: Apache-2.0 */
/* How the daemon is: one sentence, and the figures behind it. */
#include <string.h>

#include "daemon/control.h"
#include "daemon/server.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

static void add_number(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)MIN(n, INT64_MAX)));
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static json_object *pools(const struct placement *p)
{
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < p->n; i++) {
		const struct arena *a = &p->arena[i];
		json_object *o = json_object_new_object();

		json_object_object_add(o, "node", json_object_new_int(a->node));
		add_text(o, "pages", arena_pages_name(a->pages));
		add_number(o, "page_bytes", a->page_bytes);
		add_number(o, "bytes", a->bytes);
		add_number(o, "misplaced_pages", a->misplaced_pages);
		json_object_array_add(all, o);
	}
	return all;
}

static uint64_t read_bytes(const struct stats_user *u)
{
	uint64_t sum = 0;

	for (unsigned p = 0; u && p < SPARQ_PLANES; p++)
		sum += load_relaxed(&u->read.bytes[p]);
	return sum;
}

static json_object *users(const struct users *u)
{
	json_object *all = json_object_new_array();

	for (const struct user *user = u->first; user; user = user->next) {
		json_object *o = json_object_new_object();

		add_number(o, "uid", user->uid);
		add_number(o, "sessions", load_relaxed(&user->charged[USER_SESSIONS]));
		add_number(o, "queues", load_relaxed(&user->charged[USER_QUEUES]));
		add_number(o, "caches", load_relaxed(&user->charged[USER_CACHES]));
		add_number(o, "sequences", load_relaxed(&user->charged[USER_SEQUENCES]));
		add_number(o, "charged_bytes", load_relaxed(&user->charged[USER_BYTES]));
		add_number(o, "quota_bytes", load_relaxed(&user->limit[USER_BYTES]));
		add_number(o, "spilled_bytes", load_relaxed(&user->charged[USER_SPILLED]));
		add_number(o, "spill_quota_bytes", load_relaxed(&user->limit[USER_SPILLED]));
		add_number(o, "read_bytes", read_bytes(user->stats));
		add_number(o, "evicted_sequences", user->evicted_sequences);
		add_number(o, "evicted_bytes", user->evicted_bytes);
		json_object_array_add(all, o);
	}
	return all;
}

static json_object *cache(const struct cache *c, uint64_t *sequences)
{
	json_object *o = json_object_new_object();
	struct sparq_msg_cache_stat stat;
	uint32_t parked, pinned;

	cache_stat(c, &stat);
	evict_count(c, &parked, &pinned);
	add_text(o, "name", c->record->name);
	add_number(o, "uid", c->user->uid);
	add_text(o, "policy", c->record->policy);
	add_text(o, "k_format", c->record->k_format);
	add_text(o, "v_format", c->record->v_format);
	add_number(o, "sequences", stat.sequences);
	add_number(o, "rows", stat.rows);
	add_number(o, "bytes", stat.bytes);
	add_number(o, "budget_bytes", stat.budget_bytes);
	add_text(o, "evict", evict_names[c->evict]);
	add_number(o, "parked", parked);
	add_number(o, "pinned", pinned);
	add_number(o, "evicted_sequences", c->evicted_sequences);
	add_number(o, "evicted_bytes", c->evicted_bytes);
	*sequences += stat.sequences;
	return o;
}

static json_object *caches(const struct store *s, uint64_t *ret_sequences)
{
	json_object *all = json_object_new_array();
	uint64_t sequences = 0;

	for (const struct cache *c = s->caches; c; c = c->next)
		json_object_array_add(all, cache(c, &sequences));
	*ret_sequences = sequences;
	return all;
}

/* What went since the daemon started, by what room was made for. */
static json_object *evictions(const struct evictor *e)
{
	json_object *all = json_object_new_array();

	for (unsigned i = 0; i < LIMITS; i++) {
		json_object *o = json_object_new_object();

		add_text(o, "limit", limit_names[i]);
		add_number(o, "sequences", e->sum[i].sequences);
		add_number(o, "bytes", e->sum[i].bytes);
		json_object_array_add(all, o);
	}
	return all;
}

static void add_identity(const struct server *s, json_object *out)
{
	add_text(out, "version", SPARQ_VERSION);
	add_number(out, "pid", (uint64_t)getpid());
	add_number(out, "generation", s->generation);
	add_number(out, "uptime_s", (clock_now_ns() - s->started_ns) / 1000000000);
	add_text(out, "isa", kv_isa_name());
	add_text(out, "loop", loop_name(s->loop));
	add_number(out, "workers", workers_count(s->workers));
	add_number(out, "sessions", s->n_sessions);
}

static void add_work(const struct server *s, json_object *out)
{
	struct workers_stat stat;

	workers_stat(s->workers, &stat);
	add_number(out, "steps", stat.steps);
	add_number(out, "failed_steps", stat.errors);
	add_number(out, "read_bytes", stat.read_bytes);
	add_number(out, "dense_equivalent_bytes", stat.dense_bytes);
	add_number(out, "sleeps", stat.sleeps);
	add_number(out, "timeouts_that_found_work", stat.timeouts_that_found_work);
}

static void add_memory(const struct server *s, json_object *out)
{
	const struct placement *p = &s->placement;

	add_number(out, "pool_bytes", p->pool.bytes);
	add_number(out, "pool_used_bytes", load_relaxed(&p->pool.used_bytes));
	add_number(out, "segment_bytes", s->segment_bytes);
	add_number(out, "huge_page_shortfall_bytes", p->shortfall_bytes);
	add_number(out, "misplaced_pages", placement_misplaced(p));
}

static json_object *recovery(const struct recovered *r)
{
	json_object *o = json_object_new_object();

	add_number(o, "caches", r->caches);
	add_number(o, "sequences", r->sequences);
	add_number(o, "rows", r->rows);
	add_number(o, "dropped", r->dropped);
	add_number(o, "microseconds", r->ns / 1000);
	return o;
}

static json_object *spill(const struct spill *sp)
{
	struct spill_stat stat = spill_stat(sp);
	json_object *o = json_object_new_object();

	add_text(o, "directory", stat.directory);
	add_text(o, "engine", stat.engine);
	add_number(o, "sequences", stat.sequences);
	add_number(o, "bytes", stat.bytes);
	add_number(o, "limit_bytes", stat.limit_bytes);
	add_number(o, "elsewhere", stat.away);
	add_number(o, "spilling", stat.out);
	add_number(o, "spilling_bytes", stat.out_bytes);
	add_number(o, "spilling_bytes_done", stat.out_done);
	add_number(o, "loading", stat.in);
	add_number(o, "loading_bytes", stat.in_bytes);
	add_number(o, "loading_bytes_done", stat.in_done);
	add_number(o, "spilled_total", stat.spilled);
	add_number(o, "spilled_bytes_total", stat.spilled_bytes);
	add_number(o, "spilled_microseconds_total", stat.spilled_ns / 1000);
	add_number(o, "loaded_total", stat.loaded);
	add_number(o, "loaded_bytes_total", stat.loaded_bytes);
	add_number(o, "loaded_microseconds_total", stat.loaded_ns / 1000);
	add_number(o, "failed_total", stat.failed);
	return o;
}

/* Methods without parameters: an unknown one may be a question that this daemon cannot answer. */
static int refuse_any(json_object *in, struct varlink_error *e)
{
	json_object_object_foreach(in, key, value)
	{
		(void)value;
		return varlink_invalid(e, key);
	}
	return 0;
}

int control_status(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	const struct server *s = arg;
	json_object *all_caches;
	uint64_t sequences;
	char sentence[256];
	int r = refuse_any(in, e);

	if (r < 0)
		return r;
	all_caches = caches(&s->store, &sequences);
	server_sentence(s, sentence, sizeof(sentence));
	add_text(out, "sentence", sentence);
	add_text(out, "refusal", s->refusal);
	add_identity(s, out);
	add_number(out, "sequences", sequences);
	add_work(s, out);
	add_memory(s, out);
	add_text(out, "kept_by", keep_kind_name(server_is_kept(s) ? keep_kind() : KEEP_NONE));
	json_object_object_add(out, "recovery", recovery(&s->recovered));
	json_object_object_add(out, "pools", pools(&s->placement));
	json_object_object_add(out, "spill", spill(s->spill));
	json_object_object_add(out, "users", users(&s->users));
	json_object_object_add(out, "caches", all_caches);
	json_object_object_add(out, "evictions", evictions(&s->evictor));
	return 0;
}

int control_config(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	const struct server *s = arg;
	char text[8192];
	int r = refuse_any(in, e);

	if (r < 0)
		return r;
	if (config_dump(&s->config, text, sizeof(text)) >= sizeof(text))
		return varlink_refuse(e, CONTROL_REFUSED, "the configuration is too long");
	add_text(out, "config", text);
	return 0;
}
